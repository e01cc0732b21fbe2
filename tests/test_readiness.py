"""The one message of a process that starts, and the descriptors it listens on, without a process."""

import errno
import math
import os
import socket as sockets
import threading
import time
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
import zmq

from pyams_zmq.address import parse_address
from pyams_zmq.exceptions import AddressError, ProcessStartError
from pyams_zmq.listener import Listener, close_copies, listen, make_dummy
from pyams_zmq.readiness import Readiness, join


class FakeProcess:
    """What is asked of a process: whether it has ended, and what is ready once it has."""

    name = 'fake'
    exitcode = None

    def __init__(self):
        self.sentinel, self.end = Pipe(duplex=False)
        self.joined = 0

    def join(self, timeout):
        self.joined += 1

    def finish(self, exitcode):
        self.exitcode = exitcode
        self.end.close()

    def close(self):
        self.sentinel.close()
        self.end.close()


@pytest.fixture
def process():
    fake = FakeProcess()
    yield fake
    fake.close()


@pytest.fixture
def readiness():
    made = Readiness()
    yield made
    made._reader.close()
    made._writer.close()


def test_ready(readiness, process):
    readiness.report('tcp://127.0.0.1:5555')
    assert readiness.wait(process, 10) == 'tcp://127.0.0.1:5555'
    assert readiness.wait(process, 0) == 'tcp://127.0.0.1:5555'


def test_not_ready_in_time(readiness, process):
    for timeout in (0, -1, 0.6):
        with pytest.raises(TimeoutError, match='fake was not ready within'):
            readiness.wait(process, timeout)
    # It may still become so.
    readiness.report('endpoint')
    assert readiness.wait(process, 10) == 'endpoint'


def test_a_failure_is_told_again(readiness, process):
    process.exitcode = 4
    readiness.report(None, 'the reason')
    for _ in range(2):
        with pytest.raises(ProcessStartError, match=r'the reason \(exit code 4\)') as error:
            readiness.wait(process, 10)
        assert (error.value.reason, error.value.exitcode) == ('the reason', 4)


@pytest.mark.parametrize('pipe_open_elsewhere', [True, False])
def test_an_end_without_a_word(readiness, process, pipe_open_elsewhere):
    if not pipe_open_elsewhere:
        readiness.started()
    process.finish(-9)
    with pytest.raises(ProcessStartError, match=r'ended before it was ready.*-9'):
        readiness.wait(process, 10)


def test_another_thread_waits_at_the_pipe(readiness, process):
    with readiness._lock, pytest.raises(TimeoutError):
        readiness.wait(process, 0.01)


def test_another_thread_was_faster(readiness, process):
    found = []
    with readiness._lock:
        thread = threading.Thread(target=lambda: found.append(readiness.wait(process, 10)))
        thread.start()
        readiness.report('endpoint')
        for _ in range(2):
            readiness._receive(process, time.monotonic() + 10)
    thread.join(10)
    assert found == ['endpoint']


def test_a_parent_that_is_gone(readiness):
    readiness._reader.close()
    readiness.report('endpoint')
    assert readiness._writer.closed


def test_only_the_end_to_write_to_goes_to_a_new_interpreter(readiness, process):
    copy = Readiness.__new__(Readiness)
    state = readiness.__getstate__()
    copy.__setstate__(state)
    assert vars(copy) == {'_writer': state}
    copy.report('endpoint')
    assert readiness.wait(process, 10) == 'endpoint'


def test_join_is_bounded(process):
    join(process, -1)
    assert process.joined == 0
    join(process, 0.01)
    assert process.joined > 0
    join(SimpleNamespace(exitcode=os.EX_OK), math.inf)


# Descriptors


def listener_of(server):
    """What :func:`listen` would return for a plain listening socket."""
    status = os.fstat(server.fileno())
    name = host, port = server.getsockname()
    return Listener(f'tcp://{host}:{port}', port, server.fileno(), (status.st_dev, status.st_ino), name)


@pytest.fixture
def server():
    with sockets.create_server(('127.0.0.1', 0)) as server:
        yield server


def test_a_port_is_given_back(server):
    listener = listener_of(server)
    with make_dummy() as dummy:
        listener.give_back(dummy)
    # The number is still open, the port is free.
    assert os.fstat(server.fileno()).st_ino != listener.inode[1]
    sockets.create_server(('127.0.0.1', listener.port)).close()


def test_a_descriptor_that_is_another_by_now_is_left_alone(server):
    listener = listener_of(server)
    with make_dummy() as dummy:
        listener._replace(fd=None).give_back(dummy)
        listener._replace(inode=(0, 0)).give_back(dummy)
        with sockets.socket() as closed:
            number = closed.fileno()
        listener._replace(fd=number).give_back(dummy)
    assert server.getsockname()[1] == listener.port


def test_copies_of_listening_sockets_and_their_connections_are_closed(server):
    listener = listener_of(server)
    client = sockets.create_connection(server.getsockname())
    peer, _ = server.accept()
    copies = [os.dup(server.fileno()), os.dup(peer.fileno())]
    close_copies([])
    assert all(os.fstat(copy) for copy in copies)
    close_copies([listener])
    for number in (*copies, server.detach(), peer.detach()):
        with pytest.raises(OSError) as error:
            os.fstat(number)
        assert error.value.errno == errno.EBADF
    # The other end of the connection is not theirs.
    assert client.recv(1) == b''
    client.close()


def test_what_is_listened_on():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        listener = listen(socket, parse_address('127.0.0.1'))
        assert listener.endpoint == f'tcp://127.0.0.1:{listener.port}'
        assert listener.name == ('127.0.0.1', listener.port)
        with (
            context.socket(zmq.ROUTER) as other,
            pytest.raises(AddressError, match=f'{listener.endpoint}: Address already in use'),
        ):
            listen(other, parse_address(listener.endpoint))
        with context.socket(zmq.ROUTER) as other:
            assert listen(other, parse_address('inproc://x')) == ('inproc://x', None, None, None, None)


@pytest.mark.parametrize(
    ('listening', 'name', 'its'),
    [
        (('127.0.0.1', 5), ('127.0.0.1', 5), True),
        (('127.0.0.1', 5), ('127.0.0.2', 5), False),
        (('127.0.0.1', 5), ('127.0.0.1', 6), False),
        (('0.0.0.0', 5), ('127.0.0.2', 5), True),
        (('0.0.0.0', 5), ('::1', 5), False),
        (('0.0.0.0', 5), ('127.0.0.2', 6), False),
        (('::', 5), ('::ffff:127.0.0.1', 5), True),
        ('/run/socket', '/run/socket', True),
        (b'\0name', b'\0name', True),
        (b'\0name', b'\0other', False),
        ('/run/socket', None, False),
        (None, None, False),
    ],
)
def test_whose_an_address_is(listening, name, its):
    assert Listener('', None, None, None, listening).has(name) is its


def test_an_error_of_0mq_alone():
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as socket,
        pytest.raises(AddressError, match=r'udp://127\.0\.0\.1:5555: .'),
    ):
        listen(socket, parse_address('udp://127.0.0.1:5555'))
