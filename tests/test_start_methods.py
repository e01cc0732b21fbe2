"""Start methods: fork wherever it exists, spawn and forkserver where the attributes pickle."""

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import zmq
from pyramid.registry import Registry
from pyramid.threadlocal import get_current_registry, manager
from tornado.ioloop import IOLoop

from parents.actors import Actor, Forkserved, Gate, Service, Spawned
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode, ProcessStartError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess, process_exit_func
from pyams_zmq.socket import zmq_response, zmq_socket
from services import EchoHandler, Process

pytestmark = pytest.mark.lifecycle

HERE = Path(__file__).parent


class SpawnedWithWorkers(Spawned):
    workers = 2


class PicklableActor(Actor):
    """Tells what a child finds, however it was started."""

    def unlisted(self, data):
        return [200, os.getppid()]


class PicklableHandler(ZMQMessageHandler):
    handler = PicklableActor


class UnfitActor(Actor):
    def __init__(self):
        raise ValueError('no licence')


class UnfitHandler(ZMQMessageHandler):
    handler = UnfitActor


class Looking(Actor):
    """Finds what the thread that started the process had put there."""

    local = threading.local()

    def look(self, data):
        registry = get_current_registry()
        return [200, [getattr(self.local, 'text', None), getattr(registry, 'mark', None)]]


class LookingHandler(ZMQMessageHandler):
    handler = Looking


@pytest.fixture(autouse=True)
def _no_process_left():
    """Each test leaves nothing running but the helpers of multiprocessing, which serve the next one."""
    yield
    for child in multiprocessing.active_children():
        child.join(5)
    left = [child for child in psutil.Process().children(recursive=True) if not is_helper(child)]
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    assert left == []


def is_helper(process):
    try:
        command = ' '.join(process.cmdline())
        return process.status() == psutil.STATUS_ZOMBIE or (
            process.ppid() == os.getpid()
            and ('multiprocessing.forkserver' in command or 'multiprocessing.resource_tracker' in command)
        )
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / 'gate')


def script(code, *args):
    done = subprocess.run(
        [sys.executable, '-c', f'import sys; sys.path.insert(0, {str(HERE)!r})\n{code}', *args],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# fork, whatever the default


@pytest.mark.parametrize('default', ['spawn', 'forkserver', 'fork'])
def test_fork_whatever_the_default(default):
    """The lambda would not pickle; it does not have to."""
    out = script(f'''
import multiprocessing
multiprocessing.set_start_method({default!r})
from parents import actors
from pyams_zmq.client import ZMQClient

process = actors.Service('127.0.0.1', actors.ActorHandler)
process.unpicklable = lambda: None
process.start()
with ZMQClient(process.wait_ready()) as client:
    print(client.call('echo', 1).body, type(process._popen).__module__)
print(isinstance(process, multiprocessing.Process), multiprocessing.get_start_method())
process.stop()
process.join()
print(process.exitcode)
''')
    assert out == f'1 multiprocessing.popen_fork\nTrue {default}\n0\n'


def test_a_process_is_one_of_multiprocessing():
    process = Process('127.0.0.1', EchoHandler)
    assert isinstance(process, multiprocessing.Process)
    assert issubclass(ZMQProcess, multiprocessing.Process)
    assert process.start_method == 'fork'
    assert process.daemon is False
    assert process.exitcode is None
    assert process.pid is None


def test_other_processes_keep_their_start_method():
    """Ours is chosen for this class alone."""
    process = Process('127.0.0.1', EchoHandler)
    process.start()
    process.wait_ready()
    other = multiprocessing.get_context('spawn').Process(target=os.getpid)
    other.start()
    other.join()
    assert type(other._popen).__module__ == 'multiprocessing.popen_spawn_posix'
    process_exit_func(process)
    assert process.exitcode == 0


# Where start() is called


def test_the_context_of_the_starting_thread(start, call):
    registry = Registry()
    registry.mark = 'thread'
    started = []

    def begin():
        Looking.local.text = 'of the thread'
        manager.push({'registry': registry, 'request': None})
        try:
            started.append(start(handler=LookingHandler))
        finally:
            manager.pop()

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    # The thread has ended, and what it started has not.
    assert call(started[0], 'look') == (200, ['of the thread', 'thread'])
    assert call(started[0], 'echo', 1) == (200, 1)
    started[0].stop()
    started[0].join(10)
    assert started[0].exitcode == ExitCode.OK


def test_several_threads_start_processes_at_once(start, call):
    processes = []
    together = threading.Barrier(4)

    def begin():
        process = Process('127.0.0.1', EchoHandler)
        together.wait()
        process.start()
        process.endpoint = process.wait_ready()
        processes.append(process)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({process.endpoint for process in processes}) == 4
        for process in processes:
            assert call(process, 'slow', 0) == (200, process.pid)
    finally:
        for process in processes:
            process_exit_func(process)
    assert [process.exitcode for process in processes] == [0] * 4


def test_a_failure_is_told_although_other_threads_start_processes(start):
    """A process forked meanwhile has copies of the pipes on which the parent waits."""
    going_on = threading.Event()

    def begin_others():
        while not going_on.is_set():
            other = Process('127.0.0.1', EchoHandler)
            other.start()
            other.wait_ready()
            process_exit_func(other)

    thread = threading.Thread(target=begin_others)
    thread.start()
    try:
        for _ in range(10):
            process = start('no.such.interface:1', wait=False)
            with pytest.raises(ProcessStartError, match='No such device') as caught:
                process.wait_ready()
            assert caught.value.exitcode == ExitCode.ADDRESS
    finally:
        going_on.set()
        thread.join()


def test_start_inside_a_running_asyncio_loop(start, call):
    async def main():
        process = start()
        await asyncio.sleep(0)
        reply = await asyncio.to_thread(call, process, 'later', 0.01)
        process.stop()
        await asyncio.to_thread(process.join, 10)
        return reply, process.exitcode

    assert asyncio.run(main()) == ((200, 0.01), 0)


def test_start_inside_a_running_tornado_loop(call):
    """Its loop, its epoll descriptor and its callbacks stay the parent's."""
    out = script('''
import asyncio, os, zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream
from parents import actors
from pyams_zmq.client import ZMQClient

context = zmq.Context.instance()
heard = []

async def main():
    loop = IOLoop.current()
    pull = context.socket(zmq.PULL)
    port = pull.bind_to_random_port('tcp://127.0.0.1')
    stream = ZMQStream(pull, loop)
    stream.on_recv(lambda frames: heard.append((os.getpid() == parent, frames)))
    push = context.socket(zmq.PUSH)
    push.connect(f'tcp://127.0.0.1:{port}')
    loop.add_callback(heard.append, 'before')
    process = actors.Service('127.0.0.1', actors.ActorHandler)
    process.start()
    endpoint = process.wait_ready()
    push.send(b'to the parent')
    with ZMQClient(endpoint) as client:
        print(await asyncio.to_thread(client.call, 'later', 0.01))
    while len(heard) < 2:
        await asyncio.sleep(0.01)
    process.stop()
    await asyncio.to_thread(process.join)
    print(process.exitcode, heard)
    stream.close(0)
    push.close(0)

parent = os.getpid()
asyncio.run(main())
context.term()
''')
    assert out.splitlines() == [
        'Reply(status=200, body=0.01)',
        "0 ['before', (True, [b'to the parent'])]",
    ]


def test_the_parent_has_contexts_and_sockets_open(start, call):
    context = zmq.Context()
    replies = context.socket(zmq.REP)
    requests = context.socket(zmq.REQ)
    port = replies.bind_to_random_port('tcp://127.0.0.1')
    requests.connect(f'tcp://127.0.0.1:{port}')
    requests.send(b'before')
    try:
        process = start()
        assert call(process, 'echo', 1) == (200, 1)
        process.stop()
        process.join(10)
        assert process.exitcode == 0
        assert replies.poll(5000)
        assert replies.recv() == b'before'
        replies.send(b'after')
        assert requests.poll(5000)
        assert requests.recv() == b'after'
    finally:
        replies.close(0)
        requests.close(0)
        context.term()


def test_a_client_of_the_parent_is_not_the_childs(start, call):
    """A service that calls another one, with a socket made by the helper which its parent used as well."""
    first = start()
    assert zmq_ask(first.endpoint) == [200, 1]

    class Calling(Actor):
        def relay(self, endpoint):
            return zmq_ask(endpoint)

    second = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Calling}))
    assert call(second, 'relay', first.endpoint) == (200, 1)
    assert zmq_ask(first.endpoint) == [200, 1]


def zmq_ask(endpoint):
    client = zmq_socket(endpoint)
    client.send_json(['echo', 1])
    return zmq_response(client, timeout=5)


# spawn and forkserver


OTHERS = pytest.mark.parametrize('cls', [Spawned, Forkserved, SpawnedWithWorkers])


@OTHERS
def test_the_whole_cycle(start, cls):
    process = start('127.0.0.1', PicklableHandler, 'user:secret', '127.0.0.1', cls=cls)
    with ZMQClient(process.endpoint, auth='user:secret') as client:
        assert client.call('slow', 0) == (200, process.pid)
    with ZMQClient(process.endpoint, auth='user:wrong') as client:
        assert client.call('echo', 1).status == 403
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.OK


@pytest.mark.parametrize('cls', [Spawned, Forkserved])
def test_clients_are_enforced(start, call, cls):
    process = start('127.0.0.1', PicklableHandler, None, '192.0.2.0/24', cls=cls)
    assert call(process, 'echo', 1).status == 403


@OTHERS
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'SIGINT'])
def test_a_running_method_completes(start, gate, wait_until, cls, number):
    process = start(handler=PicklableHandler, cls=cls)
    client = zmq_socket(process.endpoint)
    client.send_json(['hold', str(gate)])
    wait_until(lambda: gate.reached)
    os.kill(process.pid, number)
    os.kill(process.pid, number)
    gate.open()
    assert zmq_response(client) == [200, 'done']
    process.join(10)
    assert process.exitcode == ExitCode.OK


@pytest.mark.parametrize('cls', [Spawned, Forkserved])
def test_what_takes_longer_is_cut_off(start, gate, wait_until, cls):
    process = cls('127.0.0.1', PicklableHandler)
    process.stop_timeout = 0.3
    process = start(cls=lambda *_: process)
    client = zmq_socket(process.endpoint)
    client.send_json(['hold', str(gate)])
    wait_until(lambda: gate.reached)
    process_exit_func(process)
    assert process.exitcode == ExitCode.STOP_TIMEOUT


@pytest.mark.parametrize('cls', [Spawned, Forkserved])
def test_failures_are_told(start, cls):
    process = start('no.such.interface:1', PicklableHandler, cls=cls, wait=False)
    with pytest.raises(ProcessStartError, match='No such device') as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.ADDRESS
    process = start('127.0.0.1', UnfitHandler, cls=cls, wait=False)
    with pytest.raises(ProcessStartError, match='no licence') as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.SETUP


@pytest.mark.parametrize('cls', [Spawned, Forkserved])
def test_a_delegate_ends_it(start, call, cls):
    process = start(handler=PicklableHandler, cls=cls)
    assert call(process, 'stop_from_thread') == (200, 'stopping')
    process.join(10)
    assert process.exitcode == ExitCode.OK


@pytest.mark.parametrize('cls', [Spawned, Forkserved])
def test_what_does_not_pickle_is_told_by_start(start, call, cls):
    process = cls('127.0.0.1', PicklableHandler, registry=Registry())
    process.lock = threading.Lock()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError), match=r'pickle|lock'):
        process.start()
    assert process.pid is None
    assert not process.is_alive()
    with pytest.raises(ProcessStartError, match=r'call start\(\) first'):
        process.wait_ready()
    process.stop()
    process_exit_func(process)
    # What stood in the way removed, the same object starts.
    process.lock = process.registry = None
    process = start(cls=lambda *_: process)
    assert call(process, 'slow', 0) == (200, process.pid)


@pytest.mark.parametrize('cls', [Spawned, Forkserved])
def test_a_handler_that_cannot_be_imported(cls):
    class Handler(ZMQMessageHandler):
        handler = Actor

    process = cls('127.0.0.1', Handler)
    with pytest.raises((AttributeError, pickle.PicklingError), match='Handler'):
        process.start()
    assert not process.is_alive()


def test_passwords_are_not_in_the_command_line(start):
    process = start('127.0.0.1', PicklableHandler, 'user:secret', cls=Spawned)
    assert 'secret' not in ' '.join(psutil.Process(process.pid).cmdline())
    assert 'secret' not in repr(process.__dict__)


def test_an_instance_may_choose_too(start, call):
    process = Service('127.0.0.1', PicklableHandler)
    process.start_method = 'spawn'
    process = start(cls=lambda *_: process)
    assert type(process._popen).__module__ == 'multiprocessing.popen_spawn_posix'
    assert call(process, 'echo', 1) == (200, 1)


def test_a_start_method_that_does_not_exist():
    process = Service('127.0.0.1', PicklableHandler)
    process.start_method = 'teleport'
    with pytest.raises(ValueError, match='teleport'):
        process.start()
    process.start_method = 'fork'
    process.start()
    assert process.wait_ready()
    process_exit_func(process)


def test_no_loop_is_made_in_the_parent(start):
    process = start()
    assert process.loop is None
    assert process.context is None
    assert process.rep_stream is None
    assert IOLoop.current(instance=False) is None
