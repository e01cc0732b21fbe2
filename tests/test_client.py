"""The client: its connections, and why no reply came."""

import contextlib
import multiprocessing
import os
import signal
import socket as sockets
import threading
import time

import psutil
import pytest
import zmq

from pyams_zmq.client import Reply, ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from services import Echo, Process

LONG = 30


class Gated(Echo):
    """Waits in a method until it is let on."""

    gate = None
    entered = None

    def wait(self, data):
        self.entered.set()
        assert self.gate.wait(20)
        return [200, data]


@pytest.fixture
def gated():
    fork = multiprocessing.get_context('fork')
    delegate = type('Delegate', (Gated,), {'gate': fork.Event(), 'entered': fork.Event()})
    return type('Handler', (ZMQMessageHandler,), {'handler': delegate})


def in_thread(function, *args):
    """Run a function in a thread; returns what waits for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()

    def result():
        thread.join(LONG)
        return results[0]

    return result


def test_calls(start):
    process = start()
    with ZMQClient(process.endpoint) as client:
        reply = client.call('echo', {'a': [1, None]})
        assert isinstance(reply, Reply)
        assert reply == (200, {'a': [1, None]})
        assert client.call('nothing') == (200, None)
        assert client.call('fail', 'x') == (500, 'ValueError: x')
        assert client.call('no_such') == (404, 'No such message type: no_such')
        assert client.call('fail', 'x').delivered
        for _ in range(50):
            assert client.call('echo', 1).ok
        connections = psutil.Process(process.pid).net_connections('tcp')
        assert [one.status for one in connections].count('ESTABLISHED') == 1
        client.close()
        assert client.call('echo', 2) == (200, 2)


def test_threads_share_a_client(start):
    process = start(workers=4)
    wrong = []
    together = threading.Barrier(32)
    with ZMQClient(process.endpoint, timeout=LONG) as client:

        def work(number):
            together.wait()
            for n in range(10):
                data = [number, n]
                if client.call('echo', data) != (200, data):
                    wrong.append(data)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(client._idle) <= 16


def test_idle_connections_are_bounded(start, gated):
    process = start(handler=gated, workers=20)
    with ZMQClient(process.endpoint, timeout=LONG) as client:
        results = [in_thread(client.call, 'wait', n) for n in range(20)]
        deadline = time.monotonic() + LONG
        while client.call('_status').body['in_flight'] < 20:
            assert time.monotonic() < deadline
        gated.handler.gate.set()
        assert [result() for result in results] == [(200, n) for n in range(20)]
        assert len(client._idle) == 16


def test_too_slow_and_the_next_call(start, gated):
    process = start(handler=gated, workers=2)
    with ZMQClient(process.endpoint) as client:
        reply = client.call('wait', 'late', timeout=0.1)
        assert (reply.status, reply.delivered) == (504, False)
        assert 'No answer' in reply.body
        assert gated.handler.entered.wait(10)
        gated.handler.gate.set()
        assert client.call('echo', 'mine') == (200, 'mine')


def test_nobody_there():
    reply = ZMQClient('127.0.0.1:9', timeout=0.2).call('echo')
    assert (reply.status, reply.delivered) == (503, False)


@pytest.mark.parametrize(
    ('theirs', 'ours', 'status'),
    [('user:secret', 'user:wrong', 403), ('user:secret', None, 401), (None, 'user:secret', 401)],
)
def test_refused_at_once(start, theirs, ours, status):
    process = start(auth=theirs)
    began = time.monotonic()
    for timeout in LONG, 0.0001:
        client = ZMQClient(process.endpoint, auth=ours, timeout=LONG)
        if timeout != LONG:
            # The refusal is there before the call is made.
            assert client._idle[0]._monitor.poll(10_000)
        reply = client.call('echo')
        assert (reply.status, reply.delivered) == (status, False)
        assert client.call('echo').status == status
    assert time.monotonic() - began < LONG


def test_not_among_the_clients(start):
    process = start(clients='192.0.2.1')
    assert ZMQClient(process.endpoint, timeout=LONG).call('echo').status == 403


def test_the_process_dies_during_the_call(start, gated):
    process = start(handler=gated)
    client = ZMQClient(process.endpoint, timeout=LONG)
    began = time.monotonic()
    result = in_thread(client.call, 'wait')
    assert gated.handler.entered.wait(10)
    os.kill(process.pid, signal.SIGKILL)
    reply = result()
    assert (reply.status, reply.delivered) == (504, False)
    assert 'Connection lost' in reply.body
    assert time.monotonic() - began < LONG


def test_a_process_that_went_and_came_back_is_found(start, wait_until):
    process = start()
    with ZMQClient(process.endpoint, timeout=LONG) as client:
        for _ in range(2):
            assert client.call('echo', 1).ok
            process.stop()
            process.join()
            process = start(process.endpoint)
            assert client.call('echo', 2).ok
        process.stop()
        process.join()
        assert client.call('echo', timeout=0.1).status == 503
        process = start(process.endpoint)
        assert client.call('echo', 3).ok


def test_a_process_that_starts_during_the_call(start):
    with sockets.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = probe.getsockname()
    with ZMQClient(address, timeout=LONG) as client:
        result = in_thread(client.call, 'echo', 'early')
        start(address)
        assert result() == (200, 'early')


@pytest.mark.parametrize('answer', [None, b'', b'HTTP/1.1 400 Bad Request\r\n\r\n' * 10])
def test_what_is_no_process(answer):
    """A peer that says nothing, one that hangs up, and one that speaks something else."""
    kept = []
    with sockets.socket() as server:
        server.bind(('127.0.0.1', 0))
        server.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    kept.append(peer)
                    if answer is not None:
                        peer.sendall(answer)
                        peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        reply = ZMQClient(server.getsockname(), timeout=0.5).call('echo')
        assert reply.status in {401, 503}
        assert not reply.delivered
        server.shutdown(sockets.SHUT_RDWR)
        thread.join()
    for peer in kept:
        peer.close()


def test_a_bare_rep_and_a_reply_that_is_no_json():
    context = zmq.Context()
    rep = context.socket(zmq.REP)
    port = rep.bind_to_random_port('tcp://127.0.0.1')
    client = ZMQClient(('127.0.0.1', port))
    for sent, outcome in [(b'[200, "old"]', (200, 'old')), (b'\xff', None), (b'"text"', (200, 'text'))]:
        result = in_thread(lambda: catch(client.call, 'echo'))
        assert rep.poll(10_000)
        assert rep.recv() == b'["echo", null]'
        rep.send(sent)
        assert result() == outcome
    client.close()
    rep.close()
    context.term()


def catch(function, *args):
    try:
        return function(*args)
    except ValueError:
        return None


def test_bad_arguments(start):
    for timeout in 0, -1:
        with pytest.raises(ValueError, match='timeout'):
            ZMQClient('127.0.0.1:9', timeout=timeout)
    with pytest.raises(ValueError):
        ZMQClient('127.0.0.1')
    with pytest.raises(ValueError):
        ZMQClient('127.0.0.1:9', auth='no colon')
    process = start()
    with ZMQClient(process.endpoint) as client:
        with pytest.raises(TypeError):
            client.call('echo', {1})
        assert client.call('echo', 1).ok


def test_secrets_do_not_show():
    assert repr(ZMQClient('127.0.0.1:9', auth='user:secret')) == "<ZMQClient '127.0.0.1:9'>"


def test_a_forked_child_has_connections_of_its_own(start):
    process = start()
    client = ZMQClient(process.endpoint)
    assert client.call('echo', 1).ok
    fork = multiprocessing.get_context('fork')
    reader, writer = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: writer.send(client.call('echo', 'child')))
    child.start()
    assert reader.poll(10)
    assert reader.recv() == (200, 'child')
    child.join(10)
    assert child.exitcode == 0
    assert client.call('echo', 'parent') == (200, 'parent')
    client.close()
    reader.close()
    writer.close()


def test_a_client_that_is_dropped_leaves_nothing(start):
    process = start()
    this = psutil.Process()
    assert ZMQClient(process.endpoint).call('echo').ok
    before = this.num_fds()
    for _ in range(200):
        assert ZMQClient(process.endpoint).call('echo').ok
    assert this.num_fds() <= before + 10


def test_an_ipc_endpoint(start, tmp_path):
    process = start(f'ipc://{tmp_path}/s', cls=Process)
    assert ZMQClient(process.endpoint).call('echo', 1) == (200, 1)
