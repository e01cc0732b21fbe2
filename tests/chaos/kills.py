"""Kills at random moments, under load: what honest clients see, and whether a successor gets the port."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode
from services import EchoHandler, Process

#: Seconds that anything may take on a machine which has other things to do, too.
PATIENCE = 30.0


@dataclass(frozen=True)
class Kill:
    """One row of the table."""

    #: Called with a number of rounds; returns what there is to note.
    run: Callable[[int], str]
    #: How many rounds in the tests.
    short: int
    #: How many under ``make chaos``.
    long: int


KILLS: dict[str, Kill] = {}


def kill(short, long):
    """Add a function to the table."""

    def add(function):
        KILLS[function.__name__.replace('_', ' ')] = Kill(function, short, long)
        return function

    return add


def free_address():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{probe.getsockname()[1]}'


@contextmanager
def load(address, threads=3):
    """Honest clients that call without a pause; gives the statuses that they see, counted."""
    statuses = Counter()
    over = threading.Event()

    def calls():
        with ZMQClient(address, timeout=PATIENCE) as client:
            while not over.is_set():
                statuses[client.call('echo', 1).status] += 1

    callers = [threading.Thread(target=calls) for _ in range(threads)]
    for caller in callers:
        caller.start()
    try:
        yield statuses
    finally:
        over.set()
        for caller in callers:
            caller.join(2 * PATIENCE)
            assert not caller.is_alive(), 'a call hangs'


def _until_served(statuses):
    """Wait until clients have been served again."""
    deadline = time.monotonic() + PATIENCE
    before = statuses[200]
    while statuses[200] < before + 10:
        assert time.monotonic() < deadline, 'nobody is served'
        time.sleep(0.001)


def _summary(rounds, statuses):
    return f'{rounds} survived; {statuses.total()} calls: {dict(sorted(statuses.items()))}'


@kill(short=5, long=300)
def sigkill_of_the_process(rounds):
    """Each time it is started again at the same address, which works at once."""
    moments = random.Random(0)
    address = free_address()
    with load(address) as statuses:
        for _ in range(rounds):
            process = Process(address, EchoHandler)
            process.start()
            try:
                process.wait_ready(PATIENCE)
                _until_served(statuses)
                time.sleep(moments.uniform(0, 0.02))
            finally:
                process.kill()
                process.join(PATIENCE)
            assert process.exitcode == -signal.SIGKILL
        # The callers end with somebody there.
        last = Process(address, EchoHandler)
        last.start()
        _until_served(statuses)
    last.stop()
    last.join(PATIENCE)
    assert last.exitcode == ExitCode.OK
    # A call that was under way is lost, which it is told at once; no other fails.
    assert set(statuses) <= {200, 504}, statuses
    return _summary(rounds, statuses)


@kill(short=2, long=100)
def sigkill_of_the_parent(rounds):
    """Each time somebody else starts the process again at the same address."""
    moments = random.Random(0)
    address = free_address()
    slowest = 0.0
    orphans = []
    with load(address) as statuses:
        for _ in range(rounds):
            script, pid = _own(address)
            orphans.append(pid)
            _until_served(statuses)
            time.sleep(moments.uniform(0, 0.02))
            script.kill()
            began = time.monotonic()
            script.wait()
            script.stdout.close()
            while not _is_free(address):
                assert time.monotonic() < began + PATIENCE, 'the port is not given back'
                time.sleep(0.001)
            slowest = max(slowest, time.monotonic() - began)
        script, pid = _own(address)
        _until_served(statuses)
    script.kill()
    script.wait()
    script.stdout.close()
    for orphan in [*orphans, pid]:
        _wait_for_the_end(orphan)
    assert set(statuses) <= {200, 504}, statuses
    return f'{_summary(rounds, statuses)}; port free within {slowest:.2f} s'


def _own(address):
    """Start a script that owns a process; returns it, and the process's id."""
    command = [sys.executable, Path(__file__).parents[1] / 'parents' / 'owner.py', 'Service', address]
    script = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pid, _endpoint, _sibling = json.loads(script.stdout.readline())
    return script, pid


def _is_free(address):
    host, _, port = address.partition(':')
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
            probe.listen()
        except OSError:
            return False
    return True


def _wait_for_the_end(pid):
    deadline = time.monotonic() + PATIENCE
    while Path(f'/proc/{pid}').exists():
        assert time.monotonic() < deadline, 'an orphan stays'
        time.sleep(0.01)


@kill(short=10, long=500)
def sigterm_storms_from_the_start_on(rounds):
    """SIGTERM again and again, from a random moment of the start or of the idle process until its end."""
    moments = random.Random(0)
    codes = Counter()
    for _ in range(rounds):
        address = free_address()
        process = Process(address, EchoHandler)
        process.start()
        time.sleep(moments.uniform(0, 0.08))
        deadline = time.monotonic() + PATIENCE
        while process.exitcode is None:
            assert time.monotonic() < deadline, 'it does not end'
            os.kill(process.pid, moments.choice([signal.SIGTERM, signal.SIGINT]))
            process.join(moments.uniform(0, 0.005))
        codes[process.exitcode] += 1
        assert _is_free(address)
    # The signal itself where it came before the process had taken its signals over.
    assert set(codes) <= {ExitCode.OK, -signal.SIGTERM, -signal.SIGINT, 1}, codes
    return f'{rounds} survived; exit codes {dict(sorted(codes.items()))}'
