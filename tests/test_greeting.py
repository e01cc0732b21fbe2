"""Which mechanism a peer has, and how soon a client with another one is told."""

import socket as sockets
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import zmq

from pyams_zmq import client as client_module
from pyams_zmq.address import parse_address
from pyams_zmq.client import ZMQClient
from pyams_zmq.greeting import read_mechanism
from pyams_zmq.socket import prepare_socket

LONG = 30
GREETING = b'\xff' + bytes(8) + b'\x7f\x03\x01' + b'PLAIN'.ljust(20, b'\0')


def secure(socket, mechanism):
    """Give a socket a mechanism, with keys or passwords that nobody has."""
    if mechanism == 'PLAIN':
        socket.plain_server = True
    elif mechanism == 'CURVE':
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()


@pytest.fixture
def bound():
    """Bind a ROUTER with a mechanism; returns its endpoint."""
    context, sockets = zmq.Context(), []

    def bound(mechanism='NULL', address='tcp://127.0.0.1:*'):
        sockets.append(socket := context.socket(zmq.ROUTER))
        socket.ipv6 = '[' in address
        secure(socket, mechanism)
        socket.bind(address)
        return socket.last_endpoint.decode().rstrip('\0')

    yield bound
    for socket in sockets:
        socket.close(0)
    context.term()


@contextmanager
def peer(answer):
    """Listen; whoever connects is given to a function, in a thread."""
    with sockets.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(LONG)

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield parse_address(server.getsockname())
        finally:
            server.shutdown(sockets.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize('mechanism', ['NULL', 'PLAIN', 'CURVE'])
@pytest.mark.parametrize('address', ['tcp://127.0.0.1:*', 'tcp://[::1]:*', 'ipc://', 'ipc://@'])
def test_mechanisms(bound, tmp_path, mechanism, address):
    if address.startswith('ipc'):
        address += f'{tmp_path}/s'
    assert read_mechanism(parse_address(bound(mechanism, address)), LONG) == mechanism


def dribble(connection):
    for byte in GREETING:
        time.sleep(0.1)
        connection.sendall(bytes([byte]))


def hang_up_when_asked(connection):
    connection.recv(100)


@pytest.mark.parametrize(
    'answer',
    [
        lambda connection: None,
        hang_up_when_asked,
        lambda connection: connection.sendall(GREETING[:20]),
        lambda connection: connection.sendall(b'HTTP/1.1 400 Bad Request\r\nServer: what I like\r\n\r\n'),
        lambda connection: connection.sendall(GREETING.replace(b'PLAIN', b'\xff\xff\xff\xff\xff')),
        lambda connection: connection.recv(100) and connection.recv(100),  # says nothing, and waits
        dribble,
    ],
    ids=['hangs up', 'later', 'half', 'HTTP', 'no ASCII', 'nothing', 'dribbles'],
)
def test_peers_that_do_not_tell(answer):
    with peer(answer) as address:
        began = time.monotonic()
        assert read_mechanism(address, 0.3) is None
        assert time.monotonic() - began < LONG


def test_nobody_there(tmp_path):
    assert read_mechanism(parse_address('127.0.0.1:9'), LONG) is None
    assert read_mechanism(parse_address(f'ipc://{tmp_path}/s'), LONG) is None
    assert read_mechanism(parse_address(f'ipc://{tmp_path}/{"s" * 200}'), LONG) is None
    assert read_mechanism(parse_address('no-such-host.invalid:9'), LONG) is None


def test_a_greeting_in_parts():
    def answer(connection):
        for part in GREETING[:10], GREETING[10:]:
            connection.sendall(part)
            connection.recv(100)

    with peer(answer) as address:
        assert read_mechanism(address, LONG) == 'PLAIN'


# What a client makes of it


@pytest.mark.parametrize(
    ('theirs', 'ours', 'wanted'),
    [
        ('NULL', 'PLAIN', 'no credentials'),
        ('NULL', 'CURVE', 'no credentials'),
        ('PLAIN', 'NULL', 'a user name and a password (auth)'),
        ('PLAIN', 'CURVE', 'a user name and a password (auth)'),
        ('CURVE', 'NULL', 'a key (curve)'),
        ('CURVE', 'PLAIN', 'a key (curve)'),
    ],
)
def test_another_mechanism_is_told_with_the_first_connection(bound, monkeypatch, theirs, ours, wanted):
    monkeypatch.setattr(client_module, 'prepare_socket', preparing(ours))
    monkeypatch.setattr(time, 'sleep', lambda seconds: pytest.fail('it tried again'))
    client = ZMQClient(bound(theirs), timeout=LONG)
    for _ in range(20):  # either side may be the first to notice
        assert client.call('echo') == (401, f'The process wants {wanted}')


def preparing(mechanism):
    def prepare(*args, **options):
        socket, url = prepare_socket(*args, **options)
        if mechanism == 'PLAIN':
            socket.plain_username, socket.plain_password = b'user', b'password'
        elif mechanism == 'CURVE':
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey, _ = zmq.curve_keypair()
        return socket, url

    return prepare


def test_another_key_of_the_process(bound, monkeypatch):
    monkeypatch.setattr(client_module, 'prepare_socket', preparing('CURVE'))
    reply = ZMQClient(bound('CURVE'), timeout=LONG).call('echo')
    assert (reply.status, reply.delivered) == (401, False)
    assert reply.body == 'The process has another key than its public one given here'


@pytest.mark.parametrize('answer', [hang_up_when_asked, lambda connection: connection.sendall(GREETING[:20])])
def test_whoever_hangs_up_is_no_process(answer):
    with peer(answer) as address:
        reply = ZMQClient(address.url, timeout=0.5).call('echo')
    assert (reply.status, reply.delivered) == (503, False)
    assert reply.body == 'Whoever is there hangs up: no connection within 0.5 s'
