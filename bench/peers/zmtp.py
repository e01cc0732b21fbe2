"""Clients that write 0MQ's protocol themselves: with pyzmq it would be them who are measured.

https://rfc.zeromq.org/spec/23/ tells of the protocol.
"""

import json
import selectors
import socket as sockets
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.work import Measured, content, in_sequence, summary

from .zeromq import connect

_GREETING = b'\xff' + bytes(8) + b'\x7f' + b'\3\0' + b'NULL'.ljust(20, b'\0') + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4


def _frame(body: bytes, flags: int = 0) -> bytes:
    size = len(body)
    return (bytes([flags, size]) if size < 256 else struct.pack('>BQ', flags | _LONG, size)) + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack('>I', len(value)) + value


_READY = b'\5READY' + _property(b'Socket-Type', b'REQ') + _property(b'Identity', b'')


def _message(method: str, amount: float) -> bytes:
    return _frame(b'', _MORE) + _frame(json.dumps([method, content(method, amount)]).encode())


@contextmanager
def _connections(port: int, number: int) -> Iterator[list[sockets.socket]]:
    """Connect so many clients, each of which has had a reply."""
    with ExitStack() as stack:
        connections = []
        for _ in range(number):
            connection = stack.enter_context(sockets.create_connection(('127.0.0.1', port), 60))
            connection.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            connection.sendall(_GREETING)
            connection.recv(len(_GREETING), sockets.MSG_WAITALL)
            connection.sendall(_frame(_READY, _COMMAND))
            _flags, size = connection.recv(2, sockets.MSG_WAITALL)
            connection.recv(size, sockets.MSG_WAITALL)
            connection.sendall(_message('echo', 0))
            connection.recv(4096)
            connections.append(connection)
        yield connections


def at_once(port: int, method: str, amount: float, seconds: float, clients: int) -> Measured:
    """As :func:`bench.work.at_once`, for messages that come in one piece: some kB at most."""
    message = _message(method, amount)
    clock = time.perf_counter
    durations: list[float] = []
    sent = {}
    with _connections(port, clients) as connections, selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        began = now = clock()
        for connection in connections:
            sent[connection] = clock()
            connection.send(message)
        while now < began + seconds:
            for key, _events in selector.select():
                connection = key.data
                reply = connection.recv(65536)
                now = clock()
                durations.append(now - sent[connection])
                sent[connection] = now
                connection.send(message)
        if b'[20' not in reply:
            raise RuntimeError(f'{reply!r} is no success')
        return summary(durations, now - began)


def beside_others(port: int, method: str, amount: float, seconds: float, others: int) -> Measured:
    """As :func:`bench.work.in_sequence`, while so many others are connected and silent."""
    with _connections(port, others):
        return in_sequence(lambda: connect(port), method, amount, seconds)
