"""What handlers start: processes by every means, which are no part of the service, and are waited for."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from parents.actors import Actor, ActorHandler, Gate
from peers import in_fork
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import process_exit_func
from pyams_zmq.socket import zmq_response, zmq_socket
from services import EchoHandler, Process
from test_lifecycle import FREE_WITHIN, can_be_bound, connects, gone, port_of

pytestmark = pytest.mark.lifecycle

KINDS = pytest.mark.parametrize('kind', ['fork', 'os.fork', 'subprocess', 'spawn'])
FORKS = pytest.mark.parametrize('kind', ['fork', 'os.fork'])


class WithWorkers(Process):
    workers = 2


class Impatient(Process):
    stop_timeout = 0.3


class Exiting(Process):
    """Leaves a mark where its signal handler runs in a process that is not the service."""

    stray = None

    def exit(self, num=None, frame=None):
        if os.getpid() != self._owner:
            Path(self.stray).touch()
        super().exit(num, frame)


WHERE = pytest.mark.parametrize(
    ('cls', 'method'),
    [(Process, 'child'), (WithWorkers, 'child'), (Process, 'child_async')],
    ids=['loop', 'worker', 'async'],
)


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / 'gate')


@pytest.fixture
def mark(tmp_path):
    return tmp_path / 'mark'


@pytest.fixture
def adopted():
    """Process ids of grandchildren that may outlive their service; ended with the test."""
    pids = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Signals


@KINDS
@WHERE
def test_a_grandchild_obeys_sigterm(start, call, gate, mark, wait_until, cls, method, kind):
    process = start(handler=ActorHandler, cls=cls)
    pid = call(process, method, [kind, str(gate), str(mark)]).body
    wait_until(lambda: gate.reached)
    os.kill(pid, signal.SIGTERM)
    assert call(process, 'end_of_child', kind) == (200, -signal.SIGTERM)
    assert not mark.exists()
    assert call(process, 'echo', 1) == (200, 1)


@KINDS
@WHERE
def test_sigint_interrupts_a_grandchild(start, call, gate, mark, wait_until, cls, method, kind):
    process = start(handler=ActorHandler, cls=cls)
    pid = call(process, method, [kind, str(gate), str(mark)]).body
    wait_until(lambda: gate.reached)
    os.kill(pid, signal.SIGINT)
    # CPython's exit code is 1 where a thread of a pool has forked.
    assert call(process, 'end_of_child', kind).body in ({0, 1} if cls is WithWorkers else {0})
    assert mark.read_text() == 'KeyboardInterrupt'
    assert call(process, 'echo', 1) == (200, 1)


@pytest.mark.parametrize('kind', ['fork', 'spawn'])
def test_a_handler_terminates_its_grandchild(start, call, gate, mark, wait_until, kind):
    process = start(handler=ActorHandler)
    call(process, 'child', [kind, str(gate), str(mark)])
    wait_until(lambda: gate.reached)
    assert call(process, 'terminate_child') == (200, -signal.SIGTERM)


class Brief(Actor):
    def terminate_at_once(self, data):
        child = multiprocessing.get_context('fork').Process(target=signal.pause)
        child.start()
        child.terminate()
        child.join()
        return [200, child.exitcode]

    def pool(self, data):
        with multiprocessing.get_context('fork').Pool(4) as pool:
            return [200, pool.map(abs, data)]


class BriefHandler(ZMQMessageHandler):
    handler = Brief


@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'worker'])
def test_a_grandchild_that_is_ended_at_once_takes_nobody_along(start, call, cls):
    """Before it handles signals by itself."""
    process = start(handler=BriefHandler, cls=cls)
    for _ in range(50):
        assert call(process, 'terminate_at_once') == (200, -signal.SIGTERM)
        assert call(process, '_ping').ok


@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'worker'])
def test_pools_of_grandchildren_come_and_go(start, call, cls):
    process = start(handler=BriefHandler, cls=cls)
    for _ in range(40):
        assert call(process, 'pool', [-1, 2, -3], timeout=30) == (200, [1, 2, 3])


@FORKS
def test_a_grandchild_does_not_run_the_services_handler(
    start, call, gate, mark, tmp_path, wait_until, kind, log_file
):
    process = Exiting('127.0.0.1', ActorHandler)
    process.stray = str(tmp_path / 'stray')
    process = start(cls=lambda *_: process)
    pid = call(process, 'child', [kind, str(gate), str(mark)]).body
    wait_until(lambda: gate.reached)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert call(process, 'end_of_child', kind).ok
    # Nor has the service heard of these signals.
    assert call(process, 'echo', 1) == (200, 1)
    assert not (tmp_path / 'stray').exists()


def test_stop_and_exit_in_a_grandchild_do_nothing(start, call):
    class Delegate(Actor):
        def stop_elsewhere(self, data):
            def stop():
                self.process.stop()
                self.process.exit()
                process_exit_func(self.process)

            child = multiprocessing.get_context('fork').Process(target=stop)
            child.start()
            child.join()
            return [200, child.exitcode]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}))
    assert call(process, 'stop_elsewhere') == (200, 0)
    assert call(process, 'echo', 1) == (200, 1)


@pytest.mark.parametrize(
    'cls',
    [Process, WithWorkers],
    ids=['loop', 'worker'],
)
def test_a_grandchild_that_has_done_its_work_ends_well(start, call, tmp_path, cls):
    """Its exit code tells so, and what it printed has been written."""
    printed = tmp_path / 'printed'

    class Delegate(Actor):
        def work(self, data):
            def work():
                sys.stdout = printed.open('w')
                print('all done')

            child = multiprocessing.get_context('fork').Process(target=work)
            child.start()
            child.join()
            return [200, child.exitcode]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), cls=cls)
    assert call(process, 'work') == (200, 0)
    assert printed.read_text() == 'all done\n'


# Ports


@KINDS
@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'worker'])
def test_a_grandchild_does_not_hold_the_port(start, call, gate, mark, wait_until, adopted, kind, cls):
    process = start(handler=ActorHandler, cls=cls)
    pid = call(process, 'child', [kind, str(gate), str(mark)]).body
    adopted.append(pid)
    wait_until(lambda: gate.reached)
    process.kill()
    os.waitpid(process.pid, 0)
    assert not connects(port_of(process.endpoint))
    assert can_be_bound(process.endpoint)
    assert alive(pid)
    successor = start(process.endpoint)
    with ZMQClient(successor.endpoint) as client:
        assert client.call('slow', 0) == (200, successor.pid)


@FORKS
def test_a_grandchild_does_not_hold_the_path(start, call, gate, mark, tmp_path, wait_until, adopted, kind):
    process = start(f'ipc://{tmp_path}/s', ActorHandler)
    pid = call(process, 'child', [kind, str(gate), str(mark)]).body
    adopted.append(pid)
    wait_until(lambda: gate.reached)
    process.kill()
    os.waitpid(process.pid, 0)
    successor = start(process.endpoint)
    assert alive(pid)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))
    with ZMQClient(successor.endpoint) as client:
        assert client.call('slow', 0) == (200, successor.pid)


@FORKS
def test_clients_notice_the_end_of_a_service_whose_grandchild_lives(
    start, gate, mark, wait_until, adopted, kind
):
    """Else they would wait for replies on connections which only the grandchild still has."""
    process = start(handler=ActorHandler)
    with ZMQClient(process.endpoint) as client:
        adopted.append(client.call('child', [kind, str(gate), str(mark)]).body)
        wait_until(lambda: gate.reached)
        process.kill()
        os.waitpid(process.pid, 0)
        start(process.endpoint)
        replies = [client.call('echo', 1, timeout=2) for _ in range(2)]
    assert replies[1] == (200, 1)
    assert 'No answer' not in str(replies[0].body)


# The end


@pytest.mark.parametrize('kind', ['fork', 'spawn'])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'SIGINT'])
def test_a_grandchild_is_waited_for(start, call, gate, mark, wait_until, kind, number):
    process = start(handler=ActorHandler)
    call(process, 'child', [kind, str(gate), str(mark)])
    wait_until(lambda: gate.reached)
    os.kill(process.pid, number)
    wait_until(lambda: not connects(port_of(process.endpoint)))
    assert process.is_alive()
    gate.open()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert mark.read_text() == 'released'


@pytest.mark.parametrize('kind', ['fork', 'spawn'])
def test_a_grandchild_that_takes_longer_is_ended(start, call, gate, mark, wait_until, log_file, kind):
    process = start(handler=ActorHandler, cls=Impatient)
    pid = call(process, 'child', [kind, str(gate), str(mark)]).body
    wait_until(lambda: gate.reached)
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.STOP_TIMEOUT
    wait_until(lambda: not alive(pid))
    assert not mark.exists()
    assert 'stop_timeout' in log_file.read_text()


class Contrary(multiprocessing.get_context('fork').Process):
    def terminate(self):
        raise RuntimeError('not from here')


class Starting(Actor):
    def contrary(self, data):
        self.child = Contrary(target=signal.pause)
        self.child.start()
        return [200, self.child.pid]


class StartingHandler(ZMQMessageHandler):
    handler = Starting


def test_a_grandchild_that_cannot_be_ended_does_not_keep_the_service(start, call, wait_until, adopted):
    process = start(handler=StartingHandler, cls=Impatient)
    adopted.append(call(process, 'contrary').body)
    process.stop()
    wait_until(lambda: not process.is_alive())
    assert process.exitcode == ExitCode.STOP_TIMEOUT


def test_a_grandchild_started_by_a_thread_is_waited_for(start, call, gate, mark, tmp_path, wait_until):
    """As an index update does: the thread starts it when the service has ended already."""
    first = Gate(tmp_path / 'first')
    process = start(handler=ActorHandler)
    assert call(process, 'child_from_thread', [str(first), str(gate), str(mark)]).ok
    wait_until(lambda: first.reached)
    process.stop()
    wait_until(lambda: not connects(port_of(process.endpoint)))
    first.open()
    wait_until(lambda: gate.reached)
    assert process.is_alive()
    gate.open()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert mark.exists()


def test_a_grandchild_started_late_is_ended_as_well(start, call, gate, mark, tmp_path, wait_until):
    first = Gate(tmp_path / 'first')
    process = start(handler=ActorHandler, cls=Impatient)
    assert call(process, 'child_from_thread', [str(first), str(gate), str(mark)]).ok
    wait_until(lambda: first.reached)
    service = psutil.Process(process.pid)
    first.open()
    wait_until(lambda: gate.reached)
    (grandchild,) = service.children()
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.STOP_TIMEOUT
    wait_until(lambda: gone(grandchild))


def test_a_daemonic_grandchild_is_not_waited_for(start, call, gate, wait_until):
    class Delegate(Actor):
        def daemon(self, gate):
            child = multiprocessing.get_context('fork').Process(target=Gate(gate).wait, daemon=True)
            child.start()
            return [200, child.pid]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}))
    pid = call(process, 'daemon', str(gate)).body
    wait_until(lambda: gate.reached)
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    wait_until(lambda: not alive(pid))


def test_a_stubborn_grandchild_does_not_keep_the_service(start, call, gate, wait_until, adopted):
    process = start(handler=ActorHandler, cls=Impatient)
    adopted.append(call(process, 'stubborn_child', str(gate)).body)
    wait_until(lambda: gate.reached)
    process.stop()
    wait_until(lambda: not process.is_alive())
    assert process.exitcode == ExitCode.STOP_TIMEOUT


# Copies of sockets


@pytest.mark.parametrize('address', ['127.0.0.1', '0.0.0.0', '[::]', '[::1]', 'ipc://{}/s', 'ipc://@{}'])
def test_a_grandchild_keeps_neither_the_address_nor_connections(
    start, gate, mark, tmp_path, adopted, wait_until, address
):
    process = start(address.format(tmp_path), ActorHandler)
    transport, _, where = process.endpoint.partition('://')
    if transport == 'ipc':
        peer = socket.socket(socket.AF_UNIX)
        peer.connect('\0' + where[1:] if where.startswith('@') else where)
    else:
        host = '::1' if address == '[::1]' else '127.0.0.1'
        peer = socket.create_connection((host, port_of(process.endpoint)))
    with peer:
        peer.settimeout(30)
        assert peer.recv(1)  # it has been accepted
        endpoint = process.endpoint.replace('0.0.0.0', '127.0.0.1').replace('[::]', '127.0.0.1')
        with ZMQClient(endpoint) as client:
            adopted.append(client.call('child', ['os.fork', str(gate), str(mark)]).body)
        wait_until(lambda: gate.reached)
        process.kill()
        os.waitpid(process.pid, 0)
        with suppress(ConnectionError):
            while peer.recv(4096):
                pass
    start(process.endpoint)


def test_a_grandchild_keeps_sockets_that_are_not_the_services(start):
    """Others may have the same port number: another protocol's, or another address's."""

    class Delegate:
        process = None

        def keep(self, port):
            with (
                socket.socket(type=socket.SOCK_DGRAM) as datagrams,
                socket.socket() as server,
            ):
                datagrams.bind(('127.0.0.1', port))
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(('127.0.0.2', port))
                server.listen()

                def names():
                    return [one.getsockname() for one in (datagrams, server)]

                return [200, names(), in_fork(names)]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}))
    with zmq_socket(process.endpoint) as caller:
        caller.send_json(['keep', port_of(process.endpoint)])
        _status, names, found = zmq_response(caller)
        assert found == names


class Patient(Process):
    stop_timeout = 30.0


def test_exit_func_does_not_wait_for_what_is_no_child_of_multiprocessing(
    start, call, gate, mark, wait_until, adopted
):
    """The grandchild has copies of the pipe whose end tells the parent of the process's end."""
    process = start(handler=ActorHandler, cls=Patient)
    adopted.append(call(process, 'child', ['os.fork', str(gate), str(mark)]).body)
    wait_until(lambda: gate.reached)
    service = psutil.Process(process.pid)
    ending = threading.Thread(target=process_exit_func, args=(process,))
    ending.start()
    wait_until(lambda: gone(service))
    try:
        ending.join(3)
        assert not ending.is_alive()
        assert process.exitcode == ExitCode.OK
    finally:
        os.kill(adopted[0], signal.SIGKILL)
        ending.join()


# The parent's death


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('Service', 'fork'),
        ('Service', 'os.fork'),
        ('Service', 'subprocess'),
        ('ServiceWithWorkers', 'fork'),
    ],
)
def test_the_parent_dies_while_a_grandchild_lives(gate, mark, wait_until, adopted, kind, name):
    script = subprocess.Popen(
        [sys.executable, Path(__file__).parent / 'parents' / 'owner.py', name, '127.0.0.1'],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        pid, endpoint, _ = json.loads(script.stdout.readline())
        adopted.append(pid)
        with ZMQClient(endpoint) as client:
            grandchild = client.call('child', [kind, str(gate), str(mark)]).body
        adopted.append(grandchild)
        wait_until(lambda: gate.reached)
        script.kill()
        script.wait()
        wait_until(lambda: can_be_bound(endpoint), FREE_WITHIN)
        assert alive(grandchild)
        assert not connects(port_of(endpoint))
        wait_until(lambda: not alive(pid), FREE_WITHIN + 1.5)
        if kind == 'fork':
            wait_until(lambda: not alive(grandchild))
    finally:
        script.kill()
        script.wait()
        script.stdout.close()


# What a grandchild may do


def test_a_grandchild_talks_to_its_service(start, call, mark, wait_until):
    class Delegate(Actor):
        def delegate(self, data):
            endpoint, mark = data

            def work():
                with ZMQClient(endpoint) as client:
                    replies = [client.call('echo', 'from the grandchild').body]
                raw = zmq_socket(endpoint)
                raw.send_json(['echo', 'once more'])
                replies.append(zmq_response(raw)[1])
                Path(mark).write_text(json.dumps(replies))

            multiprocessing.get_context('fork').Process(target=work).start()
            return [200, 'started']

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}))
    assert call(process, 'delegate', [process.endpoint, str(mark)]).ok
    wait_until(lambda: mark.exists() and mark.read_text())
    assert json.loads(mark.read_text()) == ['from the grandchild', 'once more']


def test_a_service_within_a_service(start, call, wait_until):
    class Outer(Actor):
        inner = None

        def start_inner(self, data):
            self.inner = Process('127.0.0.1', EchoHandler)
            self.inner.start()
            return [200, [self.inner.pid, self.inner.wait_ready()]]

        def end_inner(self, data):
            process_exit_func(self.inner)
            return [200, self.inner.exitcode]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Outer}))
    pid, endpoint = call(process, 'start_inner').body
    with ZMQClient(endpoint) as client:
        assert client.call('slow', 0) == (200, pid)
        assert call(process, 'slow', 0) == (200, process.pid)
        assert call(process, 'end_inner') == (200, 0)
    pid, endpoint = call(process, 'start_inner').body
    # With its parent dead the inner one ends, too.
    process.kill()
    wait_until(lambda: can_be_bound(endpoint), FREE_WITHIN)
    wait_until(lambda: not alive(pid))


class Forking(Actor):
    """Forks, and lets both go on as if there were only one."""

    def fork_and_return(self, mark):
        pid = os.fork()
        if pid == 0:
            Path(mark).touch()
        return [200, pid]

    def fork_and_exit(self, code):
        pid = os.fork()
        if pid == 0:
            sys.exit(code)
        return [200, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    def fork_and_raise(self, data):
        pid = os.fork()
        if pid == 0:
            raise ValueError(data)
        return [200, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    async def fork_and_return_async(self, mark):
        return self.fork_and_return(mark)


class ForkingHandler(ZMQMessageHandler):
    handler = Forking


@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'worker'])
@pytest.mark.parametrize('method', ['fork_and_return', 'fork_and_return_async'])
def test_a_copy_of_the_service_does_not_serve(start, call, mark, wait_until, cls, method):
    process = start(handler=ForkingHandler, cls=cls)
    status, pid = call(process, method, str(mark))
    assert status == 200
    assert pid not in {0, process.pid}
    wait_until(mark.exists)
    wait_until(lambda: not alive(pid))
    assert [call(process, 'echo', i).body for i in range(10)] == list(range(10))
    assert call(process, '_status').body['replied'] == 11
    assert call(process, '_status').body['unwanted'] == 0


@pytest.mark.parametrize('cls', [Process, WithWorkers], ids=['loop', 'worker'])
def test_a_copy_that_exits_or_raises(start, call, cls, log_file):
    process = start(handler=ForkingHandler, cls=cls)
    assert call(process, 'fork_and_exit', 7) == (200, 7)
    assert call(process, 'fork_and_exit', None) == (200, 0)
    assert call(process, 'fork_and_exit', 'text') == (200, 1)
    assert call(process, 'fork_and_raise', 'in the copy') == (200, 1)
    assert 'in the copy' in log_file.read_text()
    assert call(process, 'echo', 1) == (200, 1)


WITHOUT_OUTPUT = """
import os, sys
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess

class Delegate:
    process = None
    def copy(self, data):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return [200, pid]

class Handler(ZMQMessageHandler):
    handler = Delegate

assert sys.stdout is None
process = ZMQProcess('127.0.0.1', Handler)
process.start()
with ZMQClient(process.wait_ready()) as client:
    assert client.call('copy').body > 0
process.stop()
process.join()
"""


def test_copies_end_where_there_is_no_output():
    command = f'exec "{sys.executable}" -c "$0" >&-'
    subprocess.run(['sh', '-c', command, WITHOUT_OUTPUT], check=True, timeout=60)


def test_many_grandchildren_at_once_from_threads(start, tmp_path, wait_until):
    """Forked while other threads run, with their locks in whatever state."""
    process = start(handler=ActorHandler, cls=type('Many', (Process,), {'workers': 4}))
    marks = [tmp_path / f'mark{i}' for i in range(12)]
    gates = [tmp_path / f'gate{i}' for i in range(12)]
    clients = [zmq_socket(process.endpoint) for _ in marks]
    for client, gate, mark in zip(clients, gates, marks, strict=True):
        client.send_json(['child', ['fork', str(gate), str(mark)]])
    replies = [zmq_response(client) for client in clients]
    assert all(status == 200 for status, _ in replies)
    for gate in gates:
        wait_until(gate.exists)
        gate.unlink()
    process.stop()
    process.join(10)
    assert process.exitcode == ExitCode.OK
    assert [mark.read_text() for mark in marks] == ['released'] * 12
    for client in clients:
        client.close()


def test_the_hooks_of_a_service_do_not_reach_an_unrelated_fork():
    """A script that serves in a thread keeps its own handlers in the processes that it forks."""
    code = f'''
import os, signal, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from parents import actors

signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
service = actors.Service('127.0.0.1', actors.ActorHandler)
thread = threading.Thread(target=service.run)
thread.start()
while service.loop is None or not service._streams:
    time.sleep(0.005)
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
service.stop()
thread.join()
'''
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == '42\n'
