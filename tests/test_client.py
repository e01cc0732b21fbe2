"""The client: its connections, and why no reply came."""

import contextlib
import gc
import multiprocessing
import os
import signal
import socket as sockets
import subprocess
import threading
import time
import warnings
from pathlib import Path

import psutil
import pytest
import zmq

from peers import STRICT_PYTHON, in_fork, suspend
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


def test_a_connection_without_a_message(start, wait_until):
    process = start(auth='user:password')
    with ZMQClient(process.endpoint, 'user:password') as client:
        assert client.connect() == (200, None)
        assert client.call('_status').body['received'] == 1
        connections = psutil.Process(process.pid).net_connections
        wait_until(lambda: [one.status for one in connections('tcp')].count('ESTABLISHED') == 1)
        # A new one each time: the one that is kept may be of old, and the process wedged since.
        suspend(process, wait_until)
        try:
            reply = client.connect(timeout=0.2)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert (reply.status, reply.delivered) == (503, False)
    assert ZMQClient(process.endpoint, 'user:wrong').connect().status == 403
    assert ZMQClient(process.endpoint).connect(timeout=LONG).status == 401
    assert ZMQClient('127.0.0.1:9').connect(timeout=0.1).status == 503
    for senseless in (0, -1, 'soon', True):
        with pytest.raises(ValueError, match='timeout'):
            client.connect(timeout=senseless)


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
        assert (reply.status, reply.delivered) == (503, False)
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


def test_a_client_that_is_dropped_leaves_nothing(start, wait_until):
    process = start()
    this = psutil.Process()
    assert ZMQClient(process.endpoint).call('echo').ok
    before = this.num_fds()
    for _ in range(200):
        assert ZMQClient(process.endpoint).call('echo').ok
    # 0MQ closes in the background.
    wait_until(lambda: this.num_fds() <= before + 10)


def test_an_ipc_endpoint(start, tmp_path):
    process = start(f'ipc://{tmp_path}/s', cls=Process)
    assert ZMQClient(process.endpoint).call('echo', 1) == (200, 1)


# Connections that are used again


def connections(process):
    """The connections that a process has accepted."""
    return [one for one in psutil.Process(process.pid).net_connections('tcp') if one.status == 'ESTABLISHED']


def test_two_thousand_calls_are_one_connection(start):
    process = start()
    this = psutil.Process()
    with ZMQClient(process.endpoint) as client:
        assert client.call('echo', 0) == (200, 0)
        before = this.num_fds(), this.num_threads()
        peers = connections(process)
        for number in range(2000):
            assert client.call('echo', number) == (200, number)
        assert (this.num_fds(), this.num_threads()) == before
        assert connections(process) == peers
        assert len(peers) == 1


def test_what_was_not_delivered_is_never_done(start, tmp_path):
    """A 503 means that the message can be sent again."""
    with sockets.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = probe.getsockname()
    client = ZMQClient(address)
    assert client.call('mark', str(tmp_path / 'lost'), timeout=0.2) == (503, ANYTHING)

    class Marking(Echo):
        def mark(self, path):
            Path(path).touch()
            return [200, path]

    start(address, type('MarkingHandler', (ZMQMessageHandler,), {'handler': Marking}))
    assert client.call('mark', str(tmp_path / 'second')).ok
    assert os.listdir(tmp_path) == ['second']


class _Anything:
    def __eq__(self, other):
        return True

    __hash__ = None


ANYTHING = _Anything()


def test_a_process_that_came_back_while_connections_were_idle(start):
    process = start()
    with ZMQClient(process.endpoint, timeout=LONG) as client:
        for connection in [client._take() for _ in range(4)]:
            client._give_back(connection)
        assert client.call('echo', 1).ok
        process.kill()
        process.join()
        process = start(process.endpoint)
        assert client.call('echo', 2) == (200, 2)


def test_a_process_that_came_back_with_another_password(start):
    process = start(auth='user:first')
    with ZMQClient(process.endpoint, auth='user:first', timeout=LONG) as client:
        assert client.call('echo', 1).ok
        process.stop()
        process.join()
        process = start(process.endpoint, auth='user:second')
        began = time.monotonic()
        reply = client.call('echo', 2)
        assert (reply.status, reply.delivered) == (403, False)
        assert time.monotonic() - began < 5


def test_a_refusal_of_yesterday_is_no_refusal_of_today(start, wait_until, log_file):
    """The password was wrong for a while, while the client was idle."""
    process = start(auth='user:second')
    with ZMQClient(process.endpoint, auth='user:first', timeout=LONG) as client:
        wait_until(lambda: 'Connection refused' in log_file.read_text())
        process.stop()
        process.join()
        process = start(process.endpoint, auth='user:first')
        assert client.call('echo', 2) == (200, 2)


def test_a_client_left_alone_does_not_connect_again_and_again(wait_until):
    """Nobody would read what its monitor tells, until 0MQ's thread stops for all the others, too."""
    accepted = []
    with sockets.create_server(('127.0.0.1', 0)) as server, ZMQClient(server.getsockname()) as client:
        server.settimeout(10)
        server.accept()[0].close()
        monitor = client._idle[0]._monitor
        wait_until(lambda: monitor.poll(0))
        server.settimeout(1)  # ten times 0MQ's own interval
        with contextlib.suppress(TimeoutError):
            accepted.append(server.accept()[0])
    assert accepted == []


def run(script, *args):
    command = [*STRICT_PYTHON, '-c', script, *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ''
    assert result.returncode == 0
    return result.stdout


def test_many_clients_at_once(start):
    process = start()
    clients = [ZMQClient(process.endpoint) for _ in range(400)]
    assert [client.call('echo', n) for n, client in enumerate(clients)] == [(200, n) for n in range(400)]
    for client in clients:
        client.close()


# Arguments


@pytest.mark.parametrize('timeout', [0.5, 1, 5_000, 40 * 86_400, 1e12, 1e300, float('inf')])
def test_long_timeouts(start, timeout):
    process = start()
    with ZMQClient(process.endpoint, timeout=timeout) as client:
        assert client.call('echo', 1) == (200, 1)
        assert client.call('echo', 2, timeout=timeout) == (200, 2)
        assert client.call('echo', 2, timeout=None) == (200, 2)


@pytest.mark.parametrize('timeout', [0, -1, -1e12, -float('inf')])
def test_no_time_at_all(start, timeout):
    """Refused, or over at once; 0MQ takes -1 for ever."""
    process = start()
    with ZMQClient(process.endpoint) as client:
        try:
            reply = client.call('slow', 1, timeout=timeout)
        except ValueError:
            pass
        else:
            assert not reply.delivered
        assert client.call('echo', 1) == (200, 1)


def test_a_timeout_that_is_no_number():
    script = """
import sys
from pyams_zmq.client import ZMQClient
try:
    print(ZMQClient('127.0.0.1:9').call('echo', timeout=float('nan')).delivered)
except ValueError:
    print(False)
"""
    assert run(script) == 'False\n'
    with pytest.raises(ValueError):
        ZMQClient('127.0.0.1:9', timeout=float('nan'))
    for timeout in (None, 'long'):
        with pytest.raises((TypeError, ValueError)):
            ZMQClient('127.0.0.1:9', timeout=timeout)


def circular():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize('data', [{1}, b'x', object(), {(1, 2): 3}, circular(), {'a': [1, {2}]}])
def test_data_that_json_cannot_hold(start, data):
    process = start()
    with ZMQClient(process.endpoint) as client:
        assert client.call('echo', 1).ok
        peers = connections(process)
        with pytest.raises((TypeError, ValueError)):
            client.call('echo', data)
        assert client.call('echo', 2) == (200, 2)
        assert connections(process) == peers


def test_data_of_all_sizes(start):
    process = start()
    with ZMQClient(process.endpoint) as client:
        for data in ('', 'é€\U0001f600', 'x' * 300, 'x' * 70_000, ['y' * 1000] * 5000, {'': None}, 2**80):
            assert client.call('echo', data, timeout=LONG) == (200, data)


# Garbage, threads, interrupts and forks


def test_dropped_clients_are_silent(start, wait_until):
    process = start(auth='user:password')
    this = psutil.Process()
    with ZMQClient(process.endpoint, auth='user:password') as client:
        assert client.call('echo', 1).ok
    before = this.num_fds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        for _ in range(20):
            ZMQClient(process.endpoint)
            ZMQClient(process.endpoint, auth='user:wrong').call('echo')
            cycle = [ZMQClient(process.endpoint, auth='user:password')]
            cycle.append(cycle)
            assert cycle[0].call('echo', 1).ok
            for mistake in ({'address': 'nonsense'}, {'auth': 'nonsense'}, {'timeout': -1}):
                with pytest.raises(ValueError):
                    ZMQClient(**{'address': process.endpoint, **mistake})
        del cycle
        gc.collect()
    assert [str(one.message) for one in caught] == []
    wait_until(lambda: this.num_fds() <= before)


def test_close_while_others_call(start):
    process = start(workers=4)
    client = ZMQClient(process.endpoint, timeout=LONG)
    done = threading.Event()

    def work(number):
        replies = []
        while not done.is_set():
            replies.append(client.call('echo', number))
        return replies

    results = [in_thread(work, number) for number in range(4)]
    for _ in range(200):
        client.close()
    done.set()
    for number, result in enumerate(results):
        assert set(result()) == {(200, number)}
    client.close()


def test_an_interrupted_call(start, gated):
    """Control-C during a call, which the script survives."""
    process = start(handler=gated, workers=2)
    script = """
import sys
from pyams_zmq.client import ZMQClient
client = ZMQClient(sys.argv[1], timeout=60)
print(client.call('echo', 'before').body, flush=True)
try:
    client.call('wait', 'interrupted')
except KeyboardInterrupt:
    print('interrupted', flush=True)
print(client.call('echo', 'after').body)
"""
    command = [*STRICT_PYTHON, '-c', script, process.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert gated.handler.entered.wait(20)
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate(timeout=20)
    gated.handler.gate.set()
    assert (output.split(), errors) == (['before', 'interrupted', 'after'], '')


def test_forks_while_threads_call(start):
    process = start()
    done = threading.Event()
    with ZMQClient(process.endpoint, timeout=LONG) as client:

        def work():
            while not done.is_set():
                assert client.call('echo', 'thread') == (200, 'thread')
            return True

        results = [in_thread(work) for _ in range(8)]
        try:
            for number in range(30):
                assert in_fork(lambda n=number: client.call('echo', n)) == [200, number]
        finally:
            done.set()
        assert [result() for result in results] == [True] * 8
        assert client.call('echo', 'parent') == (200, 'parent')


def test_a_fork_while_a_thread_takes_a_connection(start):
    process = start()
    taking, taken = threading.Event(), threading.Event()

    class Slow(list):
        def pop(self):
            taking.set()
            taken.wait(30)
            return super().pop()

    with ZMQClient(process.endpoint) as client:
        assert client.call('echo', 1).ok
        client._idle = Slow(client._idle)
        thread = threading.Thread(target=client.call, args=('echo', 2))
        thread.start()
        try:
            assert taking.wait(30)
            assert in_fork(lambda: client.call('echo', 3)) == [200, 3]
        finally:
            taken.set()
            thread.join()


def test_close_in_a_forked_child_closes_nothing_of_the_parent(start):
    process = start()
    with ZMQClient(process.endpoint) as client:
        assert client.call('echo', 1).ok
        peers = connections(process)

        def child():
            client.close()
            gc.collect()
            with client:
                return client.call('echo', 'child')

        assert in_fork(child) == [200, 'child']
        assert client.call('echo', 2) == (200, 2)
        assert connections(process) == peers


# Peers of other kinds


@pytest.fixture
def answering():
    """A plain REP that answers its requests with the frames given, one list after the other."""
    context = zmq.Context()
    threads = []

    def answering(*replies):
        rep = context.socket(zmq.REP)
        rep.rcvtimeo = rep.linger = 10_000
        port = rep.bind_to_random_port('tcp://127.0.0.1')

        def answer():
            with rep, contextlib.suppress(zmq.Again):
                for frames in replies:
                    rep.recv_multipart()
                    rep.send_multipart(frames)

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return f'127.0.0.1:{port}'

    yield answering
    for thread in threads:
        thread.join()
    context.term()


def test_a_reply_of_several_frames_does_not_spoil_the_next_call(answering):
    address = answering([b'[200, 1]', b'more'], [b'[200, 2]'])
    with ZMQClient(address) as client:
        with contextlib.suppress(ValueError):  # it may be refused, but its rest may not stay behind
            assert client.call('echo') == (200, 1)
        assert client.call('echo') == (200, 2)


def test_a_reply_that_is_no_json_does_not_spoil_the_next_call(answering):
    address = answering([b'\xff'], [b'[200'], [b''], [b'[200, 2]'])
    with ZMQClient(address) as client:
        for _ in range(3):
            with pytest.raises(ValueError):
                client.call('echo')
        assert client.call('echo') == (200, 2)


def test_an_ipv6_endpoint(start):
    process = start('[::1]')
    port = process.endpoint.rpartition(':')[2]
    for address in (process.endpoint, f'[::1]:{port}', ('::1', int(port))):
        with ZMQClient(address) as client:
            assert client.call('echo', 1) == (200, 1)


def test_nobody_there_by_ipc(tmp_path):
    reply = ZMQClient(f'ipc://{tmp_path}/s', timeout=0.1).call('echo')
    assert (reply.status, reply.delivered) == (503, False)


def test_a_name_that_cannot_be_resolved():
    reply = ZMQClient('no-such-host.invalid:5555', timeout=0.2).call('echo')
    assert (reply.status, reply.delivered) == (503, False)
