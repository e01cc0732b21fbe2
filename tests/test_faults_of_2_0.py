"""The faults of version 2.0.0, one test each.

They use only what both versions have, and no fixture of this project, so that they can be run on 2.0.0 too,
where each of them fails: ``pytest --noconftest -o addopts= tests/test_faults_of_2_0.py`` in its environment.
"""

import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path

import psutil
import pytest
import zmq
from pyramid.registry import Registry

from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.socket import zmq_response, zmq_socket


class Delegate:
    process = None
    not_callable = 'text'
    meeting = threading.Barrier(4)

    def echo(self, data):
        return [200, data]

    def fail(self, data):
        raise ValueError(data)

    def unfit(self, data):
        return {1, 2}

    def _private(self, data):
        return [200, data]

    def meet(self, data):
        self.meeting.wait(5)
        return [200, data]

    def slow(self, path):
        Path(path).touch()
        time.sleep(0.5)
        return [200, 'done']


class Handler(ZMQMessageHandler):
    handler = Delegate


class Service(ZMQProcess):
    workers = 4
    stop_timeout = 5.0


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def ask(address, message, timeout=5.0, **kwargs):
    client = zmq_socket(address, **kwargs)
    client.send(message if isinstance(message, bytes) else zmq.utils.jsonapi.dumps(message))
    return zmq_response(client, timeout=timeout)


def wait_until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, 'the event did not come'
        time.sleep(0.01)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(('127.0.0.1', port)) != 0 and probe.bind(('127.0.0.1', port)) is None


@contextmanager
def running(address, cls=Service, *args):
    """A started process; killed at the end if need be."""
    process = cls(address, Handler, *args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize(
    'message',
    [
        b'\xff\xfe',
        b'no JSON',
        b'42',
        ['echo'],
        [1, None],
        ['unknown', None],
        ['_private', None],
        ['not_callable', None],
        ['fail', None],
        ['unfit', None],
    ],
    ids=str,
)
def test_1_a_bad_message_leaves_the_service_able_to_answer(message):
    address = f'127.0.0.1:{free_port()}'
    with running(address):
        assert ask(address, ['echo', 1]) == [200, 1]
        assert ask(address, message, timeout=2)[0] in {400, 404, 500}
        assert ask(address, ['echo', 2], timeout=2) == [200, 2]


def test_2_clients_are_enforced_without_auth():
    address = f'127.0.0.1:{free_port()}'
    with running(address, Service, None, '127.0.0.1'):
        assert ask(address, ['echo', 1]) == [200, 1]
    with running(address, Service, None, '192.0.2.1'):
        wait_until(lambda: not is_free(int(address.split(':')[1])))
        assert ask(address, ['echo', 1], timeout=1) == [503, 'Connection timeout']


def test_3_the_child_ends_with_its_parent():
    port = free_port()
    code = f'''
import signal, test_faults_of_2_0 as tests
process = tests.Service('127.0.0.1:{port}', tests.Handler)
process.start()
print(process.pid, tests.ask('127.0.0.1:{port}', ['echo', 1]), flush=True)
signal.pause()
'''
    parent = subprocess.Popen(
        [sys.executable, '-c', code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline().split()[0])
    child = psutil.Process(pid)
    try:
        parent.kill()
        parent.wait()
        wait_until(lambda: is_free(port), timeout=2)
        wait_until(lambda: not child.is_running(), timeout=Service.stop_timeout)
    finally:
        parent.stdout.close()
        if child.is_running():
            child.kill()


@pytest.mark.parametrize('host', ['127.0.0.1', 'no.such.interface'])
def test_4_a_process_that_cannot_listen_has_an_exit_code(host):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        with running(f'{host}:{taken.getsockname()[1]}') as process:
            process.join(10)
            assert process.exitcode not in {0, None}


@pytest.mark.parametrize('form', ['[::1]:{}', ('::1', '{}')], ids=str)
def test_5_ipv6_addresses_can_be_bound(form):
    port = free_port()
    address = form.format(port) if isinstance(form, str) else (form[0], port)
    with running(address):
        client = zmq.Context.instance().socket(zmq.REQ)
        client.linger = 0
        client.ipv6 = True
        client.connect(f'tcp://[::1]:{port}')
        client.send_json(['echo', 1])
        try:
            assert zmq_response(client, timeout=5) == [200, 1]
        finally:
            client.close()


def test_6_sockets_that_nobody_closes_cost_nothing():
    address = f'127.0.0.1:{free_port()}'
    with running(address):
        this = psutil.Process()
        assert ask(address, ['echo', 1]) == [200, 1]
        before = this.num_fds(), this.num_threads()
        gc.disable()
        try:
            clients = [zmq_socket(address) for _ in range(20)]
            assert this.num_threads() == before[1]
            del clients
            wait_until(lambda: this.num_fds() <= before[0] + 2, timeout=5)
        finally:
            gc.enable()


def test_7_requests_are_handled_at_once():
    address = f'127.0.0.1:{free_port()}'
    with running(address):
        clients = [zmq_socket(address) for _ in range(4)]
        for client in clients:
            client.send_json(['meet', 1])
        assert [zmq_response(client, timeout=6) for client in clients] == [[200, 1]] * 4


def test_8_stop_in_the_parent_ends_the_child():
    address = f'127.0.0.1:{free_port()}'
    with running(address) as process:
        assert ask(address, ['echo', 1]) == [200, 1]
        process.stop()
        process.join(5)
        assert process.exitcode == 0


def test_9_a_running_method_completes_on_sigterm(tmp_path):
    address = f'127.0.0.1:{free_port()}'
    started = tmp_path / 'started'
    with running(address) as process:
        client = zmq_socket(address)
        client.send_json(['slow', str(started)])
        wait_until(started.exists)
        os.kill(process.pid, signal.SIGTERM)
        assert zmq_response(client, timeout=5) == [200, 'done']
        process.join(5)
        assert process.exitcode == 0


def test_10_a_registry_does_not_hinder_the_start(monkeypatch):
    context = multiprocessing.get_context('spawn')
    monkeypatch.setattr(multiprocessing.context._default_context, '_actual_context', context)
    registry = Registry()
    registry.unpicklable = threading.Lock()
    address = f'127.0.0.1:{free_port()}'
    with running(address, Service, None, None, registry):
        assert ask(address, ['echo', 1]) == [200, 1]


def test_11_few_distributions_are_needed():
    needed = [line for line in requires('pyams_zmq') if 'extra ==' not in line]
    names = {''.join(c if c.isalnum() or c in '._-' else ' ' for c in line).split()[0] for line in needed}
    assert {name.replace('-', '.').replace('_', '.') for name in names} == {
        'pyramid',
        'pyzmq',
        'tornado',
        'zope.interface',
    }
