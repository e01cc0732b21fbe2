"""The helpers of a caller, as the views of 2.0.0's users have them."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

import psutil
import pytest
import zmq

from pyams_zmq.socket import shared_context, zmq_response, zmq_socket


@pytest.fixture
def process(start):
    return start(auth='user:pass:word')


def ask(address, **kwargs):
    socket = zmq_socket(address, auth='user:pass:word', **kwargs)
    socket.send_json(['echo', 'hello'])
    return zmq_response(socket)


def test_addresses(process, start, tmp_path):
    endpoint = process.endpoint
    host, port = endpoint.removeprefix('tcp://').split(':')
    for address in endpoint, f'{host}:{port}', (host, port), [host, int(port)]:
        assert ask(address) == [200, 'hello']
    start(f'ipc://{tmp_path}/s', auth='user:pass:word')
    assert ask(f'ipc://{tmp_path}/s') == [200, 'hello']
    assert ask(f'{tmp_path}/s', protocol='ipc') == [200, 'hello']
    assert ask(start('[::1]', auth='user:pass:word').endpoint) == [200, 'hello']


@pytest.mark.parametrize(
    'address', ['', '127.0.0.1', '127.0.0.1:', ':5555', 'a b:1', '127.0.0.1:70000', 5555, None]
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError):
        zmq_socket(address)


@pytest.mark.parametrize('auth', ['secret', 'user:', ':secret', ('user', 'secret'), 'user:' + 'secret' * 50])
def test_what_is_no_auth(auth):
    with pytest.raises(ValueError) as caught:
        zmq_socket('127.0.0.1:5555', auth=auth)
    assert 'secret' not in str(caught.value)


def test_options(process):
    socket = zmq_socket(process.endpoint)
    assert (socket.type, socket.linger) == (zmq.REQ, 0)
    socket = zmq_socket(process.endpoint, zmq.DEALER, 100)
    assert (socket.type, socket.linger) == (zmq.DEALER, 100)
    assert socket.get(zmq.PLAIN_USERNAME) == b''


def test_no_reply():
    socket = zmq_socket('127.0.0.1:9')
    socket.send_json(['echo', 1])
    assert zmq_response(socket, timeout=0.05) == [503, 'Connection timeout']


def test_sockets_that_nobody_closes_cost_nothing(process):
    """Ten thousand calls as a view makes them."""
    this = psutil.Process()
    assert ask(process.endpoint) == [200, 'hello']
    before = this.num_fds(), this.num_threads()
    gc.disable()  # the last reference is enough
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            for _ in range(10_000):
                assert ask(process.endpoint) == [200, 'hello']
    finally:
        gc.enable()
    assert this.num_threads() == before[1]
    assert this.num_fds() <= before[0] + 10


def test_more_sockets_than_0mq_allows_by_default(process):
    sockets = [shared_context().socket(zmq.REQ) for _ in range(1100)]
    try:
        assert ask(process.endpoint) == [200, 'hello']
    finally:
        for socket in sockets:
            socket.close()


def test_threads_share_one_context(process):
    results, contexts = [], set()

    def work():
        contexts.add(id(shared_context()))
        results.extend(ask(process.endpoint) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[200, 'hello']] * 320
    assert len(contexts) == 1


def test_a_forked_child_has_a_context_of_its_own(process):
    inherited = zmq_socket(process.endpoint)
    fork = multiprocessing.get_context('fork')
    reader, writer = fork.Pipe(duplex=False)
    before = id(shared_context())

    def work():
        nonlocal inherited
        del inherited
        writer.send((id(shared_context()) == before, ask(process.endpoint)))

    child = fork.Process(target=work)
    child.start()
    assert reader.poll(10)
    assert reader.recv() == (False, [200, 'hello'])
    child.join(10)
    assert child.exitcode == 0
    assert ask(process.endpoint) == [200, 'hello']
    reader.close()
    writer.close()


def test_the_interpreter_ends_with_sockets_open():
    script = (
        'from pyams_zmq.socket import zmq_socket\n'
        'sockets = [zmq_socket("127.0.0.1:9") for _ in range(10)]\n'
        'sockets[0].send_json(["echo", 1])\n'
    )
    done = subprocess.run([sys.executable, '-c', script], timeout=30, check=False, env=os.environ)
    assert done.returncode == 0
