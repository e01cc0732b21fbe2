"""What the tests share: processes that end with their test, and waiting for events."""

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import work
from browsers import Visitor, browsing_or_skipping
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from servers import Site
from services import EchoHandler, Process

# A shell ignores it in what it runs in the background, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_process_left():
    """Each test leaves nothing running."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [
        child for child in psutil.Process().children(recursive=True) if child not in before and _lives(child)
    ]
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    for child in multiprocessing.active_children():
        if child.pid not in {one.pid for one in before}:
            child.join(5)
    assert left == []


HELPERS = ('multiprocessing.resource_tracker', 'multiprocessing.forkserver')


def _lives(process):
    """Whether a process is left over; multiprocessing's own helpers live as long as the parent."""
    try:
        command = ''.join(process.cmdline())
        return process.status() != 'zombie' and not any(helper in command for helper in HELPERS)
    except psutil.Error:
        return False


@pytest.fixture
def start():
    """Start a process on a free port of 127.0.0.1; returns it, ready, with its ``endpoint``."""
    running = []

    def start(bind_addr='127.0.0.1', handler=EchoHandler, *args, cls=Process, wait=True, **kwargs):
        process = cls(bind_addr, handler, *args, **kwargs)
        process.start()
        running.append(process)
        process.endpoint = process.wait_ready() if wait else None
        return process

    yield start
    running = [process for process in running if not process._closed]
    for process in running:
        if process.is_alive():
            process.stop()
    for process in running:
        process.join(10)
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.join(10)


@pytest.fixture
def call(start):
    """Call the process given, with a client that is closed afterwards."""
    clients = {}

    def call(process, message_type, data=None, timeout=10, **kwargs):
        key = process.endpoint, *kwargs.items()
        if key not in clients:
            clients[key] = ZMQClient(process.endpoint, **kwargs)
        return clients[key].call(message_type, data, timeout=timeout)

    yield call
    for client in clients.values():
        client.close()


@pytest.fixture
def serve(start, tmp_path):
    """Start a process with jobs; returns a client, with the process and its options as attributes."""
    clients = []

    def serve(delegate=work.Work, cls=Process, **options):
        options.setdefault('journal', str(tmp_path / 'journal'))
        handler = type('Handler', (ZMQMessageHandler,), {'handler': delegate})
        process = start(handler=handler, cls=type('Configured', (cls,), options))
        client = ZMQClient(process.endpoint, timeout=30)
        client.process = process
        clients.append(client)
        return client

    work.reset()
    yield serve
    for client in clients:
        client.close()


@pytest.fixture
def wait_until():
    """Wait until a condition holds; fails after a bound in seconds."""

    def wait_until(condition, timeout=10.0):
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, 'the event did not come'
            time.sleep(0.005)
        return value

    return wait_until


@pytest.fixture
def log_file(tmp_path):
    """A file with everything that this process and the children that it forks log."""
    path = tmp_path / 'log.txt'
    handler = logging.FileHandler(path)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield path
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


@pytest.fixture
def site():
    """Make a site in a folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix='site-'))
    sites = []

    def make(**settings):
        sites.append(Site(folder, **settings))
        return sites[-1]

    yield make
    for one in sites:
        one.kill()
    shutil.rmtree(folder)


@pytest.fixture(scope='module')
def browser():
    """A real browser."""
    with browsing_or_skipping() as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Open pages as :class:`browsers.Visitor` does."""
    visitor = Visitor(browser)
    yield visitor
    visitor.close()
    assert visitor.wrong == []
