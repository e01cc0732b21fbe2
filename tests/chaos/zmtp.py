"""What 0MQ writes on a connection (https://rfc.zeromq.org/spec/23/), for peers that do not keep to it."""

import socket as sockets
import struct
from contextlib import suppress


def greeting(mechanism):
    """Signature, version, mechanism, no server, filler."""
    return b'\xff\0\0\0\0\0\0\0\1\x7f' + b'\3\0' + mechanism.ljust(20, b'\0') + bytes(32)


GREETING = greeting(b'NULL')

_MORE, _LONG, COMMAND = 1, 2, 4


def header(size, more=False, flags=0):
    """What comes before a frame of that size."""
    if size < 256:
        return bytes([flags | _MORE * more, size])
    return struct.pack('>BQ', flags | _LONG | _MORE * more, size)


def _command(name, body):
    body = _short(name) + body
    return header(len(body), flags=COMMAND) + body


def hello(auth):
    """What presents ``'user:password'``."""
    return _command(b'HELLO', b''.join(_short(part.encode()) for part in auth.split(':', 1)))


def _short(text):
    return bytes([len(text)]) + text


def introduction(auth=None, **properties):
    """What the peer tells of itself; ``_`` in the names stands for ``-``."""
    properties = {'Socket_Type': b'DEALER', 'Identity': b'', **properties}
    body = b''.join(
        _short(name.replace('_', '-').encode()) + struct.pack('>I', len(value)) + value
        for name, value in properties.items()
    )
    return _command(b'INITIATE' if auth else b'READY', body)


READY, INITIATE = introduction(), introduction('user:password')


def dial(service, timeout=30):
    """Connect to a service, and say nothing yet."""
    return sockets.create_connection(('127.0.0.1', int(service.endpoint.rpartition(':')[2])), timeout)


def shake_hands(service, **properties):
    """Connect to a service as a DEALER that never answers heartbeats.

    It presents the service's ``auth``, if that has any.

    :param properties: what it tells of itself, beside what it has to
    """
    connection = dial(service)
    try:
        connection.sendall(greeting(b'PLAIN' if service.auth else b'NULL'))
        receive(connection, len(GREETING))
        if service.auth:
            connection.sendall(hello(service.auth))
            receive(connection, receive(connection, 2)[1])
        connection.sendall(introduction(service.auth, **properties))
        receive(connection, receive(connection, 2)[1])
    except BaseException:
        connection.close()
        raise
    return connection


def receive(connection, size):
    """Return as many bytes.

    :raises ConnectionError: where the other side hangs up before
    """
    data = b''
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError('hung up')
        data += part
    return data


def pour(connection, data, times=1):
    """Write the same again and again; returns how often, if the other side hangs up before the end."""
    for number in range(times):
        try:
            connection.sendall(data)
        except OSError:
            return number
    return times


def hang_up(connection):
    """Say that there is no more to come, and read until the other side closes."""
    with connection, suppress(OSError):
        connection.shutdown(sockets.SHUT_WR)
        while connection.recv(65536):
            pass
