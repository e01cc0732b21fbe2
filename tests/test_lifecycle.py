"""The life of a process: how it starts, how it tells so, and every way in which it ends."""

import asyncio
import gc
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import zmq
from pyramid.registry import Registry
from pyramid.threadlocal import get_current_registry, manager
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

import pyams_zmq.listener
import pyams_zmq.process
from chaos import zmtp
from parents.actors import Actor, ActorHandler, Gate
from pyams_zmq.address import parse_address
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode, ProcessStartError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.interfaces import IZMQProcessStartedEvent, IZMQProcessStoppingEvent
from pyams_zmq.listener import listen, make_dummy
from pyams_zmq.process import process_exit_func
from pyams_zmq.socket import zmq_response, zmq_socket
from services import EchoHandler, Process

pytestmark = pytest.mark.lifecycle

PARENTS = Path(__file__).parent / 'parents'

#: The contract: seconds after the parent's death in which the port is free.
FREE_WITHIN = 2.0

BOTH_SIGNALS = pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'SIGINT'])


class Hooked(Process):
    """Runs a function in the child before it is a service."""

    before = staticmethod(lambda: None)

    def run(self):
        self.before()
        super().run()


class WithWorkers(Process):
    workers = 2


class Impatient(Process):
    stop_timeout = 0.3


class ImpatientWithWorkers(Impatient):
    workers = 2


class DeferringHandler(ZMQMessageHandler):
    """Replies later, when the gate that the message names is opened."""

    handler = Actor

    def __call__(self, frames):
        gate = Gate(json.loads(frames[0])[1])
        gate.path.touch()

        def look():
            if gate.reached:
                self.process.loop.call_later(0.005, look)
            else:
                self.rep_stream.send_json([200, 'done'])

        look()


def handler_of(make):
    """A handler class whose delegate is what the function returns."""
    return type('Handler', (ZMQMessageHandler,), {'handler': staticmethod(make)})


def registry_with(subscriber):
    registry = Registry()
    registry.registerHandler(subscriber, [IZMQProcessStartedEvent])
    return registry


class Last(Actor):
    """Ends the process with its reply, which is large."""

    def last(self, _data):
        self.process.stop()
        return [200, 20_000_000 * 'x']

    def push(self, address):
        stream, _port = self.process.stream(zmq.PUSH, address, bind=False)
        stream.socket.send(b'never read', zmq.NOBLOCK)
        return self.last(None)

    def leave_open(self, _data):
        self.socket = self.process.context.socket(zmq.DEALER)
        return self.last(None)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def port_of(endpoint):
    return int(endpoint.rpartition(':')[2])


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def can_be_bound(endpoint):
    """Whether libzmq, and for a port a plain socket too, can bind this."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        try:
            other.bind(endpoint)
        except zmq.ZMQError:
            return False
    if endpoint.startswith('tcp://127.'):
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                plain.bind(('127.0.0.1', port_of(endpoint)))
                plain.listen()
            except OSError:
                return False
    return True


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / 'gate')


@pytest.fixture
def send():
    """Send a request and do not wait; returns the socket that the reply will come to."""
    sent = []

    def send(process, message_type, data=None):
        sent.append(zmq_socket(getattr(process, 'endpoint', process)))
        sent[-1].send_json([message_type, data])
        return sent[-1]

    yield send
    for one in sent:
        one.close()


def reply_to(client):
    return zmq_response(client, timeout=10)


# Readiness


@pytest.mark.parametrize(
    ('form', 'expected'),
    [
        ('127.0.0.1', r'tcp://127\.0\.0\.1:\d+'),
        ('127.0.0.1:{port}', 'tcp://127.0.0.1:{port}'),
        (('127.0.0.1', '{port}'), 'tcp://127.0.0.1:{port}'),
        (('127.0.0.1', 0), r'tcp://127\.0\.0\.1:\d+'),
        ('tcp://127.0.0.1:{port}', 'tcp://127.0.0.1:{port}'),
        ('*', r'tcp://0\.0\.0\.0:\d+'),
        ('[::1]', r'tcp://\[::1\]:\d+'),
        ('[::1]:{port}', r'tcp://\[::1\]:{port}'),
        ('ipc://{folder}/s', 'ipc://{folder}/s'),
    ],
    ids=str,
)
def test_the_parent_learns_where_the_process_answers(start, call, tmp_path, form, expected):
    port = free_port()

    def fill(text):
        return text.format(port=port, folder=tmp_path) if isinstance(text, str) else text

    process = start(fill(form) if isinstance(form, str) else tuple(fill(part) for part in form))
    assert re.fullmatch(fill(expected), process.endpoint)
    assert call(process, 'echo', 'x') == (200, 'x')


def test_wait_ready_may_be_called_again_and_from_many_threads(start):
    process = start(wait=False)
    together = threading.Barrier(8)
    endpoints = []

    def wait():
        together.wait()
        endpoints.append(process.wait_ready())

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert endpoints == [process.wait_ready()] * 8
    process.stop()
    process.join()
    assert process.wait_ready() == endpoints[0]


def test_all_threads_get_the_same_failure(start):
    process = start('no.such.interface:1', wait=False)
    failures = []

    def wait():
        try:
            process.wait_ready()
        except ProcessStartError as error:
            failures.append((error.reason, error.exitcode))

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 8
    assert len(set(failures)) == 1


def test_wait_ready_before_start_says_so():
    process = Process('127.0.0.1', EchoHandler)
    with pytest.raises(ProcessStartError, match=r'call start\(\) first') as caught:
        process.wait_ready()
    assert caught.value.exitcode is None


def test_wait_ready_in_a_process_that_did_not_start_it(start):
    process = start()
    context = multiprocessing.get_context('fork')
    reader, writer = context.Pipe(duplex=False)

    def ask():
        try:
            writer.send(process.wait_ready(0.1))
        except ProcessStartError:
            writer.send('ProcessStartError')

    other = context.Process(target=ask)
    other.start()
    writer.close()
    assert reader.recv() == 'ProcessStartError'
    reader.close()
    other.join()


def test_a_set_up_that_takes_its_time(start, gate, call, wait_until):
    def make():
        gate.wait()
        return Actor()

    process = start(handler=handler_of(make), wait=False)
    with pytest.raises(TimeoutError):
        process.wait_ready(0.05)
    with pytest.raises(TimeoutError):
        process.wait_ready(0)
    opening = threading.Thread(target=lambda: (wait_until(lambda: gate.reached), gate.open()))
    opening.start()
    process.endpoint = process.wait_ready()
    opening.join()
    assert call(process, 'echo', 1) == (200, 1)


def test_a_short_wait_is_not_held_up_by_a_long_one(start, gate, wait_until):
    def make():
        gate.wait()
        return Actor()

    process = start(handler=handler_of(make), wait=False)
    waiting = threading.Event()
    outcome = []

    def wait_long():
        waiting.set()
        try:
            outcome.append(process.wait_ready(3))
        except TimeoutError as error:
            outcome.append(error)

    thread = threading.Thread(target=wait_long)
    thread.start()
    waiting.wait()
    wait_until(lambda: gate.reached)
    with pytest.raises(TimeoutError):
        process.wait_ready(0.05)
    gate.open()
    thread.join()
    assert outcome == [process.wait_ready()]


def test_a_process_can_be_started_once(start):
    process = start()
    with pytest.raises(AssertionError):
        process.start()
    assert process.wait_ready() == process.endpoint


# Failures


def bad_constructor():
    raise ValueError('no licence')


def leave_at_once():
    os._exit(7)


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def leave_by_sys_exit():
    sys.exit(9)


@pytest.mark.parametrize(
    ('make', 'reason', 'exitcode'),
    [
        (bad_constructor, 'ValueError: no licence', ExitCode.SETUP),
        (leave_at_once, 'ended before it was ready', 7),
        (leave_by_sys_exit, 'ended before it was ready', 9),
        (kill_oneself, 'ended before it was ready', -signal.SIGKILL),
    ],
)
def test_a_delegate_that_cannot_be_made(start, log_file, make, reason, exitcode):
    process = start(handler=handler_of(make), wait=False)
    with pytest.raises(ProcessStartError) as caught:
        process.wait_ready()
    assert reason in caught.value.reason
    assert caught.value.exitcode == exitcode
    assert str(int(exitcode)) in str(caught.value)
    process.join()
    assert process.exitcode == exitcode
    if exitcode == ExitCode.SETUP:
        assert reason in log_file.read_text()
        assert 'Traceback' in log_file.read_text()
    with pytest.raises(ProcessStartError):
        process.wait_ready()


def occupy_port(tmp_path):
    taken = socket.socket()
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    return f'127.0.0.1:{taken.getsockname()[1]}', taken


def occupy_path(tmp_path):
    taken = socket.socket(socket.AF_UNIX)
    taken.bind(str(tmp_path / 'taken'))
    taken.listen()
    return f'ipc://{tmp_path}/taken', taken


def file_in_the_way(tmp_path):
    (tmp_path / 'file').write_text('precious')
    return f'ipc://{tmp_path}/file', None


def folder_in_the_way(tmp_path):
    (tmp_path / 'folder').mkdir()
    return f'ipc://{tmp_path}/folder', None


def no_folder(tmp_path):
    return f'ipc://{tmp_path}/missing/s', None


def long_path(tmp_path):
    return f'ipc://{tmp_path}/{"x" * 120}', None


@pytest.mark.parametrize(
    ('prepare', 'reason'),
    [
        (occupy_port, 'Address already in use'),
        (lambda _: ('no.such.interface:5555', None), 'No such device'),
        (lambda _: ('192.0.2.1:5555', None), 'No such device|Cannot assign'),
        (lambda _: ('no.such.interface', None), 'No such device'),
        (occupy_path, 'in use'),
        (file_in_the_way, 'no socket|exists'),
        (folder_in_the_way, 'no socket|exists|directory'),
        (no_folder, 'No such file or directory'),
        (long_path, 'too long'),
        (lambda _: ('inproc-is-fine://x', None), 'not supported'),
    ],
    ids=['port', 'host', 'address', 'random', 'ipc', 'file', 'folder', 'missing', 'long', 'transport'],
)
def test_an_address_that_cannot_be_bound(start, log_file, tmp_path, prepare, reason):
    address, taken = prepare(tmp_path)
    process = start(address, wait=False)
    with pytest.raises(ProcessStartError, match=reason) as caught:
        process.wait_ready()
    if taken is not None:
        taken.close()
    assert caught.value.exitcode == process.exitcode == ExitCode.ADDRESS
    assert address in caught.value.reason or 'interface' in caught.value.reason
    assert caught.value.reason in log_file.read_text()
    if prepare is file_in_the_way:
        assert (tmp_path / 'file').read_text() == 'precious'


def test_a_path_that_nobody_listens_on_any_more_is_taken_over(start, call, tmp_path):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / 's'))
        old.listen()
    process = start(f'ipc://{tmp_path}/s')
    assert call(process, 'echo', 1) == (200, 1)
    assert (tmp_path / 's').stat().st_mode & 0o777 == 0o600


def test_clients_that_cannot_be_resolved(start, log_file):
    process = start('127.0.0.1', EchoHandler, None, 'no-such-host.invalid', wait=False)
    with pytest.raises(ProcessStartError, match=r'no-such-host\.invalid') as caught:
        process.wait_ready(30)
    assert caught.value.exitcode == ExitCode.SETUP
    assert 'no-such-host.invalid' in log_file.read_text()


def test_a_set_up_that_raises_before_anything_is_made(start):
    class Broken(Process):
        def setup(self):
            raise RuntimeError('no luck')

    process = start(cls=Broken, wait=False)
    with pytest.raises(ProcessStartError, match='RuntimeError: no luck'):
        process.wait_ready()
    assert process.exitcode == ExitCode.SETUP


def test_a_subscriber_that_raises(start, log_file):
    def fail(event):
        raise LookupError('no index')

    process = start(registry=registry_with(fail), wait=False)
    with pytest.raises(ProcessStartError, match='LookupError: .?no index') as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.SETUP
    assert 'no index' in log_file.read_text()


def test_a_run_that_raises_before_it_is_a_service(start, capfd):
    def fail():
        raise ValueError('no scheduler')

    process = Hooked('127.0.0.1', EchoHandler)
    process.before = fail
    process.start()
    with pytest.raises(ProcessStartError, match='ended before it was ready') as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.ERROR
    assert 'no scheduler' in capfd.readouterr().err


def test_a_process_killed_during_its_set_up(start, gate, wait_until):
    def make():
        gate.wait()

    process = start(handler=handler_of(make), wait=False)
    wait_until(lambda: gate.reached)
    process.kill()
    with pytest.raises(ProcessStartError) as caught:
        process.wait_ready()
    assert caught.value.exitcode == -signal.SIGKILL


def test_a_failure_is_told_although_a_thread_goes_on(start, gate):
    """The exit code is that of the failure: nobody asked this process to end."""

    def make():
        threading.Thread(target=gate.wait).start()
        raise ValueError('no licence')

    process = start(handler=handler_of(make), cls=Impatient, wait=False)
    with pytest.raises(ProcessStartError, match='no licence') as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.SETUP


# The event


def note_what_is_there(event):
    process = event.object
    process.seen = {
        'interface': IZMQProcessStartedEvent.providedBy(event),
        'process': type(process).__name__,
        'pid': os.getpid(),
        'loop': isinstance(process.loop, IOLoop),
        'context': isinstance(process.context, zmq.Context),
        'stream': isinstance(process.rep_stream, ZMQStream),
        'registry': getattr(get_current_registry(), 'mark', None),
    }


class Seeing(Actor):
    def seen(self, data):
        return [200, self.process.seen]


class SeeingHandler(ZMQMessageHandler):
    handler = Seeing


@pytest.mark.parametrize('given', [True, False], ids=['given', 'current'])
def test_the_event_is_notified_in_the_child(start, call, given):
    registry = registry_with(note_what_is_there)
    registry.mark = 'ours'
    if not given:
        manager.push({'registry': registry, 'request': None})
    try:
        process = start(handler=SeeingHandler, registry=registry if given else None)
    finally:
        if not given:
            manager.pop()
    assert not hasattr(process, 'seen')
    assert call(process, 'seen') == (
        200,
        {
            'interface': True,
            'process': 'Process',
            'pid': process.pid,
            'loop': True,
            'context': True,
            'stream': True,
            'registry': 'ours',
        },
    )


@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'workers'])
def test_delegates_find_the_registry(start, call, cls):
    registry = Registry()
    registry.package_name = 'ours'
    process = start(handler=ActorHandler, registry=registry, cls=cls)
    assert call(process, 'registry_name') == (200, 'ours')


def test_a_stop_before_the_loop_runs(start):
    """A subscriber, or a handler's constructor, changes its mind."""
    process = start(registry=registry_with(lambda event: event.object.stop()))
    process.join(10)
    assert process.exitcode == 0


def test_a_stop_before_there_is_a_loop(start):
    class Reluctant(Process):
        def setup(self):
            self.stop()
            super().setup()

    process = start(cls=Reluctant)
    process.join(2)
    assert process.exitcode == ExitCode.OK


def test_a_reason_that_is_too_long_to_tell(start, log_file):
    def make():
        raise ValueError('x' * 1_000_000)

    process = start(handler=handler_of(make), wait=False)
    process.join(30)
    assert process.exitcode == ExitCode.SETUP
    with pytest.raises(ProcessStartError, match='^ValueError: xxx+ ') as caught:
        process.wait_ready()
    assert len(str(caught.value)) < 3000
    assert 'x' * 1_000_000 in log_file.read_text()


# Ending: who asks


def ended_at_once(start):
    process = start(wait=False)
    process.stop()
    process.join(30)
    return process.exitcode


def test_an_end_right_after_the_start_is_not_lost(start):
    """The child has the parent's handler until it has its own."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(os.getpid()))
    try:
        codes = {ended_at_once(start) for _ in range(20)}
    finally:
        signal.signal(signal.SIGTERM, before)
    assert codes <= {ExitCode.OK, -signal.SIGTERM}
    assert heard == []


def test_an_end_right_after_the_start_is_none_for_the_parent(start):
    heard = []

    async def parent():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, 'SIGTERM')
        codes = {ended_at_once(start) for _ in range(20)}
        os.kill(os.getpid(), signal.SIGTERM)
        while not heard:
            await asyncio.sleep(0)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        return codes

    assert asyncio.run(parent()) <= {ExitCode.OK, -signal.SIGTERM}
    assert heard == ['SIGTERM']


def test_what_a_subscriber_of_the_stopping_event_raises_stops_nothing(start, call, log_file):
    def look(event):
        assert IZMQProcessStoppingEvent.providedBy(event)
        raise ValueError(f'{event.object.name} is not to stop')

    registry = Registry()
    registry.registerHandler(look, [IZMQProcessStoppingEvent])
    process = start(registry=registry)
    assert call(process, 'echo', 1) == (200, 1)
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    told = log_file.read_text()
    assert 'A subscriber of the stopping event raised' in told
    assert f'ValueError: {process.name} is not to stop' in told


def test_stop_in_the_parent(start, call):
    process = start()
    assert call(process, 'echo', 1).ok
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert can_be_bound(process.endpoint)


@pytest.mark.parametrize('way', ['stop', 'stop_from_thread', 'stop_from_timer', 'exit'])
@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'workers'])
def test_a_delegate_ends_its_process(start, call, way, cls):
    process = start(handler=ActorHandler, cls=cls)
    assert call(process, way) == (200, 'stopping')
    process.join(10)
    assert process.exitcode == ExitCode.OK


def test_the_handlers_stop_ends_the_process(start, call):
    class Handler(ZMQMessageHandler):
        handler = Actor

        def __call__(self, frames):
            super().__call__(frames)
            self._stop()

    process = start(handler=Handler)
    assert call(process, 'echo', 1) == (200, 1)
    process.join(10)
    assert process.exitcode == ExitCode.OK


def test_exit_in_the_parent(start):
    process = start()
    process.exit()
    process.join(10)
    assert process.exitcode == ExitCode.OK


@BOTH_SIGNALS
@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'workers'])
def test_a_signal_ends_an_idle_process(start, number, cls):
    process = start(cls=cls)
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert can_be_bound(process.endpoint)


UNDER_WAY = pytest.mark.parametrize(
    ('cls', 'handler', 'method'),
    [
        (Process, ActorHandler, 'hold'),
        (Process, ActorHandler, 'busy'),
        (Process, ActorHandler, 'hold_async'),
        (Process, DeferringHandler, 'hold'),
        (WithWorkers, ActorHandler, 'hold'),
        (WithWorkers, ActorHandler, 'busy'),
        (WithWorkers, ActorHandler, 'hold_async'),
    ],
    ids=['loop', 'busy', 'async', 'deferred', 'worker', 'busy_worker', 'async_beside_workers'],
)


@BOTH_SIGNALS
@UNDER_WAY
def test_what_is_under_way_completes(start, send, gate, wait_until, number, cls, handler, method):
    process = start(handler=handler, cls=cls)
    client = send(process, method, str(gate))
    wait_until(lambda: gate.reached)
    os.kill(process.pid, number)
    os.kill(process.pid, number)
    assert process.is_alive()
    gate.open()
    assert reply_to(client) == [200, 'done']
    process.join(10)
    assert process.exitcode == ExitCode.OK


def test_many_signals_are_as_good_as_one(start, send, gate, wait_until):
    process = start(handler=ActorHandler)
    client = send(process, 'hold', str(gate))
    wait_until(lambda: gate.reached)
    for _ in range(5000):
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    gate.open()
    assert reply_to(client) == [200, 'done']
    process.join(10)
    assert process.exitcode == ExitCode.OK


@BOTH_SIGNALS
def test_a_signal_during_set_up(start, gate, wait_until, number):
    def make():
        gate.wait()
        return Actor()

    process = start(handler=handler_of(make), wait=False)
    wait_until(lambda: gate.reached)
    os.kill(process.pid, number)
    os.kill(process.pid, number)
    gate.open()
    process.join(10)
    assert process.exitcode == ExitCode.OK


def test_all_workers_complete(start, send, tmp_path, wait_until):
    """Also those messages that wait for a thread: they have been taken."""
    process = start(handler=ActorHandler, cls=WithWorkers)
    gates = [Gate(tmp_path / str(i)) for i in range(6)]
    clients = [send(process, 'hold', str(gate)) for gate in gates]
    wait_until(lambda: sum(gate.reached for gate in gates) == 2)
    wait_until(lambda: ask(process, '_status')[1]['in_flight'] == 6)
    process.stop()
    pending = list(gates)
    while pending:
        wait_until(lambda: any(gate.reached for gate in pending))
        gate = next(gate for gate in pending if gate.reached)
        pending.remove(gate)
        gate.open()
    assert [reply_to(client) for client in clients] == [[200, 'done']] * 6
    process.join(10)
    assert process.exitcode == ExitCode.OK


def ask(process, message_type, data=None):
    with ZMQClient(process.endpoint) as client:
        return client.call(message_type, data)


@pytest.mark.parametrize(
    ('cls', 'handler', 'method'),
    [
        (Impatient, ActorHandler, 'hold'),
        (Impatient, ActorHandler, 'busy'),
        (Impatient, ActorHandler, 'hold_async'),
        (Impatient, DeferringHandler, 'hold'),
        (ImpatientWithWorkers, ActorHandler, 'hold'),
        (ImpatientWithWorkers, ActorHandler, 'hold_async'),
    ],
    ids=['loop', 'busy', 'async', 'deferred', 'worker', 'async_beside_workers'],
)
def test_what_takes_longer_is_cut_off(start, send, gate, wait_until, log_file, cls, handler, method):
    process = start(handler=handler, cls=cls)
    send(process, method, str(gate))
    wait_until(lambda: gate.reached)
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.STOP_TIMEOUT
    assert 'stop_timeout' in log_file.read_text()
    assert can_be_bound(process.endpoint)


def test_a_set_up_that_takes_longer_is_cut_off(start, gate, wait_until, log_file):
    process = start(handler=handler_of(gate.wait), cls=Impatient, wait=False)
    wait_until(lambda: gate.reached)
    process.stop()
    with pytest.raises(ProcessStartError) as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.STOP_TIMEOUT
    assert 'stop_timeout' in log_file.read_text()


def test_the_end_does_not_need_another_thread(start, send, gate, wait_until):
    """A handler that leaks threads has used up what the system gives."""

    class Delegate(Actor):
        def use_up_threads(self, data):
            def fail(thread):
                raise RuntimeError("can't start new thread")

            threading.Thread.start = fail
            gate.wait()

    process = start(handler=handler_of(Delegate), cls=Impatient)
    send(process, 'use_up_threads')
    wait_until(lambda: gate.reached)
    process.stop()
    process.join(3)
    exitcode = process.exitcode
    process.kill()
    assert exitcode == ExitCode.STOP_TIMEOUT


def test_a_method_that_takes_no_notice_is_cut_off(start, send, gate, wait_until):
    """stop() from inside counts as well: the time begins with it."""

    class Delegate(Actor):
        def stop_and_stay(self, data):
            self.process.stop()
            threading.Thread(target=gate.wait).start()

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), cls=Impatient)
    assert reply_to(send(process, 'stop_and_stay')) is None
    process.join(10)
    assert process.exitcode == ExitCode.STOP_TIMEOUT


def test_a_thread_of_a_handlers_own_is_waited_for(start, call, tmp_path, gate, wait_until):
    mark = tmp_path / 'mark'
    process = start(handler=ActorHandler)
    assert call(process, 'thread_with_gate', [str(gate), str(mark)]).ok
    wait_until(lambda: gate.reached)
    process.stop()
    # The service has ended, and what it started has not.
    wait_until(lambda: not connects(port_of(process.endpoint)))
    assert process.is_alive()
    gate.open()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert mark.exists()


def test_a_thread_that_takes_longer_is_cut_off(start, call, tmp_path, gate, wait_until, log_file):
    mark = tmp_path / 'mark'
    process = start(handler=ActorHandler, cls=Impatient)
    assert call(process, 'thread_with_gate', [str(gate), str(mark)]).ok
    wait_until(lambda: gate.reached)
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.STOP_TIMEOUT
    assert not mark.exists()
    assert 'stop_timeout' in log_file.read_text()


def test_stop_in_another_process_does_nothing(start, call):
    process = start()

    def stop():
        process.stop()
        process.exit()

    other = multiprocessing.get_context('fork').Process(target=stop)
    other.start()
    other.join()
    assert other.exitcode == 0
    assert call(process, 'echo', 1) == (200, 1)


def test_stop_before_the_start_after_the_end_and_twice(start):
    process = Process('127.0.0.1', EchoHandler)
    process.stop()
    process.exit()
    process.start()
    process.wait_ready()
    process.stop()
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    process.stop()
    process.exit()
    process.close()
    process.stop()


@BOTH_SIGNALS
def test_an_overridden_exit_is_called(start, tmp_path, wait_until, number):
    mark = tmp_path / 'mark'

    class Exiting(Process):
        def exit(self, num=None, frame=None):
            mark.write_text(str(int(num)))
            super().exit(num, frame)

    process = start(cls=Exiting)
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert int(mark.read_text()) == number


def test_an_exit_overridden_without_effect_does_not_keep_the_process(start):
    class Staying(Impatient):
        def exit(self, num=None, frame=None):
            raise ValueError('no')

    process = start(cls=Staying)
    process.terminate()
    process.join(10)
    assert process.exitcode == ExitCode.STOP_TIMEOUT


def test_an_ended_process_is_as_in_multiprocessing():
    process = Process('127.0.0.1', EchoHandler)
    process.start()
    process.wait_ready()
    assert isinstance(process, multiprocessing.Process)
    assert process.daemon is False
    assert process.is_alive()
    assert process in multiprocessing.active_children()
    process.terminate()
    process.join()
    assert not process.is_alive()
    assert process.exitcode == 0
    process.terminate()
    process.kill()
    process.join()
    process.close()
    with pytest.raises(ValueError, match='closed'):
        process.is_alive()


def test_a_signal_for_a_process_whose_parent_runs_a_loop_is_its_own(gate):
    """asyncio's handlers come along with a fork, with the pipe through which they hear of signals."""
    code = f'''
import asyncio, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
os.environ['GATE'] = {str(gate)!r}
from parents import actors

async def main():
    heard = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, 'SIGTERM')
    process = actors.LateService('127.0.0.1', actors.ActorHandler)
    process.start()
    gate = actors.Gate(os.environ['GATE'])
    while not gate.reached:
        await asyncio.sleep(0.005)
    process.terminate()
    # Two turns of the child's interpreter later the signal has been handled there.
    gate.open()
    await asyncio.get_running_loop().run_in_executor(None, process.join, 0.5)
    process.kill()
    process.join()
    print(heard)

asyncio.run(main())
'''
    assert script(code).stdout == '[]\n'


def script(code, **kwargs):
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=30, check=True, **kwargs
    )


def test_a_signal_mask_of_the_starting_thread_does_not_hinder_the_end(start):
    """Servers keep signals from their threads; a child takes over the mask of the one that starts it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        process = start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    process.stop()
    process.join(3)
    assert process.exitcode == ExitCode.OK


def test_clients_that_stay_and_one_that_does_not_read_do_not_keep_it(start):
    process = start()
    with zmq.Context() as context:
        clients = [context.socket(zmq.REQ) for _ in range(50)]
        deaf = context.socket(zmq.DEALER)
        try:
            for client in [*clients, deaf]:
                client.linger = 0
                client.rcvhwm = 1
                client.connect(process.endpoint)
            for client in clients:
                client.send_json(['echo', 1])
                assert reply_to(client) == [200, 1]
            for _ in range(3000):
                with suppress(zmq.Again):
                    deaf.send_multipart([b'', json.dumps(['echo', 'x' * 10_000]).encode()], zmq.NOBLOCK)
            process.stop()
            process.join(10)
            assert process.exitcode == ExitCode.OK
        finally:
            for client in [*clients, deaf]:
                client.close()


def test_a_descriptor_that_is_another_sockets_by_now_is_not_replaced(monkeypatch):
    """0MQ may have closed its own, and the system gives numbers away again; on macOS all look alike."""
    monkeypatch.setattr(pyams_zmq.listener, '_inode', lambda _fd: (0, 0))
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as bound,
        socket.create_server(('127.0.0.1', 0)) as other,
        socket.create_connection(other.getsockname()),
        other.accept()[0] as accepted,
        make_dummy() as dummy,
    ):
        listener = listen(bound, parse_address('127.0.0.1'))
        name = other.getsockname()
        listener._replace(fd=other.fileno()).give_back(dummy)
        # A connection has the address of the socket that accepted it.
        listener._replace(fd=accepted.fileno(), name=name).give_back(dummy)
        assert other.getsockname() == accepted.getsockname() == name
        assert accepted.getpeername()


class Patient(Process):
    """A test that had to wait for its end would fail."""

    stop_timeout = 600.0


def test_a_large_reply_has_more_time_to_leave_than_a_moment(start, monkeypatch):
    monkeypatch.setattr(pyams_zmq.process, '_LINGER', 1)
    process = start(handler=handler_of(Last), cls=Patient)
    with ZMQClient(process.endpoint, timeout=30) as client:
        assert client.call('last') == (200, 20_000_000 * 'x')
    process.join(10)
    assert process.exitcode == ExitCode.OK


def test_a_reply_whose_client_has_hung_up_keeps_nobody(start):
    process = start(handler=handler_of(Last), cls=Patient)
    process.auth = None
    request = json.dumps(['last', None]).encode()
    with zmtp.shake_hands(process) as peer:
        peer.sendall(zmtp.header(0, more=True) + zmtp.header(len(request)) + request)
        zmtp.receive(peer, 1000)
    process.join(30)
    assert process.exitcode == ExitCode.OK


@pytest.mark.parametrize('what', ['push', 'leave_open'])
def test_sockets_that_may_never_be_done_keep_nobody(start, what):
    """One has a message for a peer that is not there, the other was not closed."""
    process = start(handler=handler_of(Last), cls=Patient)
    with ZMQClient(process.endpoint, timeout=30) as client:
        assert client.call(what, f'127.0.0.1:{free_port()}').ok
    process.join(30)
    assert process.exitcode == ExitCode.OK


# process_exit_func


def test_exit_func_ends_a_process():
    process = Process('127.0.0.1', EchoHandler)
    process.start()
    process.wait_ready()
    process_exit_func(process)
    assert not process.is_alive()
    assert process.exitcode == ExitCode.OK
    process_exit_func(process=process)
    process.close()
    process_exit_func(process)


def test_exit_func_with_nothing_to_do():
    process_exit_func()
    process_exit_func(None)
    process_exit_func(Process('127.0.0.1', EchoHandler))


def test_exit_func_after_a_kill_or_a_failed_start(start):
    process = start()
    process.kill()
    process_exit_func(process)
    assert process.exitcode == -signal.SIGKILL
    process = start('no.such.interface:1', wait=False)
    process_exit_func(process)
    assert not process.is_alive()


def test_exit_func_with_a_method_that_goes_on(start, send, gate, wait_until):
    process = start(handler=ActorHandler, cls=Impatient)
    send(process, 'busy', str(gate))
    wait_until(lambda: gate.reached)
    process_exit_func(process)
    assert process.exitcode == ExitCode.STOP_TIMEOUT


def test_exit_func_with_a_stopped_process(start, wait_until):
    process = start(cls=Impatient)
    # In the parent, where the bound is this and some 5 seconds more.
    process.stop_timeout = -4.5
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    before = time.monotonic()
    process_exit_func(process)
    assert time.monotonic() - before < 5
    assert process.exitcode == -signal.SIGKILL


def test_exit_func_with_an_ordinary_process():
    process = multiprocessing.get_context('fork').Process(target=signal.pause)
    process.start()
    process_exit_func(process)
    assert process.exitcode == -signal.SIGTERM


def test_exit_func_in_a_process_that_did_not_start_it(start, call):
    process = start()
    other = multiprocessing.get_context('fork').Process(target=process_exit_func, args=(process,))
    other.start()
    other.join()
    assert other.exitcode == 0
    assert call(process, 'echo', 1) == (200, 1)


ATEXIT = f'''
import atexit, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from parents import actors
from pyams_zmq.process import process_exit_func

process = actors.Service('127.0.0.1', actors.ActorHandler)
process.start()
if process.is_alive():
    atexit.register(process_exit_func, process=process)
print(process.pid, process.wait_ready(), flush=True)
'''


@pytest.mark.parametrize(
    ('end', 'returncode'),
    [
        ('', 0),
        ('sys.exit(3)', 3),
        ('raise ValueError', 1),
        ('signal.pause()', -signal.SIGINT),
        ('os.fork() or os._exit(0)', 0),
        ('if not os.fork(): sys.exit()', 0),
    ],
    ids=['end', 'sys.exit', 'exception', 'Ctrl-C', 'fork', 'forked_exit'],
)
def test_nothing_is_left_of_a_script(end, returncode):
    parent = subprocess.Popen(
        [sys.executable, '-c', ATEXIT + end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with parent:
        pid, endpoint = parent.stdout.readline().split()
        if end == 'signal.pause()':
            # As a terminal does, to everybody.
            os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(10) == returncode
        assert not psutil.pid_exists(int(pid))
        assert can_be_bound(endpoint)


# The parent's death


@pytest.fixture
def owner(tmp_path):
    """Run ``parents/owner.py``; gives the script, and process id, endpoint and sibling of its process."""
    scripts = []
    pids = []

    def owner(name, address='127.0.0.1', *options, stderr=subprocess.DEVNULL, **environ):
        script = subprocess.Popen(
            [sys.executable, PARENTS / 'owner.py', name, address, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **{key: str(value) for key, value in environ.items()}},
        )
        scripts.append(script)
        pid, endpoint, sibling = json.loads(script.stdout.readline())
        pids.extend(filter(None, [pid, sibling]))
        return script, psutil.Process(pid), endpoint

    yield owner
    for script in scripts:
        script.kill()
        script.wait()
        script.stdout.close()
        if script.stderr is not None:
            script.stderr.close()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(script):
    script.kill()
    script.wait()


@pytest.mark.parametrize(
    ('name', 'method', 'option'),
    [
        ('Service', None, None),
        ('Service', 'hold', None),
        ('Service', 'busy', None),
        ('ServiceWithWorkers', 'hold', None),
        ('Spawned', 'hold', None),
        ('Forkserved', None, None),
        # Another child of the parent holds the pipes open that tell of its death.
        ('ServiceWithWorkers', 'busy', 'sibling'),
        ('Spawned', None, 'sibling'),
        ('Forkserved', None, 'sibling'),
    ],
)
def test_a_process_ends_with_its_parent(owner, send, gate, wait_until, name, method, option):
    script, process, endpoint = owner(name, '127.0.0.1', option or '')
    if method is not None:
        send(endpoint, method, str(gate))
        wait_until(lambda: gate.reached)
    kill(script)
    wait_until(lambda: can_be_bound(endpoint), FREE_WITHIN)
    assert not connects(port_of(endpoint))
    wait_until(lambda: gone(process), FREE_WITHIN + 1)


def test_a_running_method_ends_although_the_parent_died(owner, send, gate, tmp_path, wait_until):
    script, process, endpoint = owner('Service')
    client = send(endpoint, 'hold', str(gate))
    wait_until(lambda: gate.reached)
    kill(script)
    wait_until(lambda: can_be_bound(endpoint), FREE_WITHIN)
    assert not gone(process)
    gate.open()
    # The connection was there already, so even the reply arrives.
    assert reply_to(client) == [200, 'done']
    wait_until(lambda: gone(process))


def test_every_bound_socket_is_given_back(owner, send, gate, wait_until):
    second = f'tcp://127.0.0.1:{free_port()}'
    script, process, endpoint = owner('TwoSockets', SECOND=second)
    send(endpoint, 'hold', str(gate))
    wait_until(lambda: gate.reached)
    kill(script)
    wait_until(lambda: can_be_bound(endpoint) and can_be_bound(second), FREE_WITHIN)
    assert not gone(process)
    wait_until(lambda: gone(process), FREE_WITHIN + 1)


def test_the_parent_dies_while_nobody_reads_the_log(owner, send, gate, wait_until):
    """``script 2>&1 | less``: the pipe is full, whoever logs something waits."""
    reader, writer = os.pipe()
    try:
        script, process, endpoint = owner('Service', stderr=writer)
        os.close(writer)
        send(endpoint, 'shout', str(gate))
        wait_until(lambda: gate.reached)
        wait_until(lambda: in_a_write(process))
        kill(script)
        wait_until(lambda: can_be_bound(endpoint), FREE_WITHIN)
        wait_until(lambda: gone(process), FREE_WITHIN + 1)
    finally:
        os.close(reader)


def in_a_write(process):
    """Whether the process does nothing any more: it waits for the reader of its pipe."""
    before = process.cpu_times()
    time.sleep(0.1)
    return process.cpu_times() == before


def test_the_parent_dies_when_there_are_no_descriptors_left(owner, send, gate, wait_until):
    script, process, endpoint = owner('Service')
    send(endpoint, 'use_up_descriptors', str(gate))
    wait_until(lambda: gate.reached)
    wait_until(lambda: process.num_fds() >= 250)
    kill(script)
    wait_until(lambda: can_be_bound(endpoint), FREE_WITHIN)
    wait_until(lambda: gone(process), FREE_WITHIN + 1)


def test_the_parent_dies_before_the_process_is_bound(owner, tmp_path, wait_until):
    gate, bound = Gate(tmp_path / 'gate'), Gate(tmp_path / 'bound')
    port = free_port()
    script, process, _ = owner('SlowSetup', f'127.0.0.1:{port}', 'unready', GATE=gate, GATE_BOUND=bound)
    wait_until(lambda: gate.reached)
    kill(script)
    wait_until(lambda: process.ppid() != script.pid)
    gate.open()
    # An orphan, it binds all the same, and its set-up does not come to an end.
    wait_until(lambda: bound.reached or gone(process))
    wait_until(lambda: can_be_bound(f'tcp://127.0.0.1:{port}'), FREE_WITHIN)
    if not gone(process):
        bound.open()
    wait_until(lambda: gone(process))


@pytest.mark.parametrize('options', [(), ('sibling',)], ids=['alone', 'sibling'])
def test_the_parent_dies_before_the_process_is_a_service(owner, gate, wait_until, options):
    """An overridden run() does its work first; the parent has died when it comes to ours."""
    script, process, _ = owner('LateService', '127.0.0.1', 'unready', *options, GATE=gate)
    wait_until(lambda: gate.reached)
    kill(script)
    wait_until(lambda: process.ppid() != script.pid)
    gate.open()
    wait_until(lambda: gone(process), FREE_WITHIN + 1)


@pytest.mark.parametrize('name', ['Service', 'Spawned'])
def test_an_orphan_leaves_the_path_to_its_successor(
    owner, start, call, send, gate, tmp_path, wait_until, name
):
    script, process, endpoint = owner(name, f'ipc://{tmp_path}/s')
    send(endpoint, 'hold', str(gate))
    wait_until(lambda: gate.reached)
    kill(script)
    successor = None

    def succeed():
        nonlocal successor
        try:
            successor = start(endpoint)
        except ProcessStartError:
            return False
        return True

    wait_until(succeed, FREE_WITHIN)
    gate.open()
    wait_until(lambda: gone(process))
    # A new connection, so the file is still there and still the successor's.
    assert call(successor, 'slow', 0) == (200, successor.pid)


# In the foreground

FOREGROUND = f'''
import logging, os, signal, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from parents import actors

class Telling(actors.Service):
    def init_stream(self):
        super().init_stream()
        print(self.rep_stream.listener.endpoint, flush=True)
'''


def foreground(code):
    return subprocess.Popen([sys.executable, '-c', FOREGROUND + code], stdout=subprocess.PIPE, text=True)


@BOTH_SIGNALS
def test_run_in_the_foreground(call, number):
    with foreground("Telling('127.0.0.1', actors.ActorHandler).run(); print('went on')") as service:
        service.endpoint = service.stdout.readline().strip()
        assert call(service, 'echo', 1) == (200, 1)
        service.send_signal(number)
        assert service.wait(10) == 0
        assert service.stdout.read() == 'went on\n'


def test_run_in_the_foreground_that_fails():
    with foreground("Telling('no.such.interface:1', actors.ActorHandler).run()") as service:
        assert service.wait(10) == ExitCode.ADDRESS


def test_the_script_has_its_signals_back_after_run(call):
    code = '''
def ours(number, frame):
    print('ours', flush=True)

signal.signal(signal.SIGTERM, ours)
Telling('127.0.0.1', actors.ActorHandler).run()
os.kill(os.getpid(), signal.SIGTERM)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print('KeyboardInterrupt', flush=True)
print(threading.active_count())
'''
    with foreground(code) as service:
        service.endpoint = service.stdout.readline().strip()
        assert call(service, 'stop') == (200, 'stopping')
        assert service.wait(10) == 0
        assert service.stdout.read() == 'ours\nKeyboardInterrupt\n1\n'


def test_run_again(call):
    code = '''
service = Telling('127.0.0.1', actors.ActorHandler)
service.run()
service.run()
'''
    with foreground(code) as service:
        try:
            for _ in range(2):
                service.endpoint = service.stdout.readline().strip()
                assert call(service, 'echo', 1, timeout=3) == (200, 1)
                assert call(service, 'stop') == (200, 'stopping')
            assert service.wait(5) == 0
        finally:
            service.kill()


def test_run_in_a_thread(wait_until):
    threads = threading.active_count()
    process = Process(f'127.0.0.1:{free_port()}', EchoHandler)
    thread = threading.Thread(target=process.run)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread.start()
    try:
        with ZMQClient(process.bind_addr) as client:
            assert client.call('echo', 1) == (200, 1)
    finally:
        process.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert threading.active_count() == threads
    assert not connects(int(process.bind_addr.rpartition(':')[2]))


# What is left in the parent


def test_starts_and_ends_leave_nothing_in_the_parent(start):
    def cycle(number):
        process = Process('127.0.0.1' if number % 4 else 'no.such.interface:1', EchoHandler)
        process.start()
        if number % 4:
            if number % 2:
                process.wait_ready()
            process.stop()
        else:
            with pytest.raises(ProcessStartError):
                process.wait_ready()
        process.join()
        if number % 3:
            process.close()

    cycle(1)
    gc.collect()
    before = psutil.Process().num_fds(), threading.active_count()
    for number in range(20):
        cycle(number)
    gc.collect()
    assert (psutil.Process().num_fds(), threading.active_count()) == before
