"""The greeting of a peer, which tells its mechanism: NULL, PLAIN or CURVE."""

import socket as sockets
import time
from contextlib import suppress

from .address import Address

# RFC 23/ZMTP: a greeting begins with a signature of 10 octets and the version. Whoever has got these sends
# the rest of its own, its mechanism among it, and waits for the rest of ours.
_BEGINNING = b'\xff' + bytes(8) + b'\x7f\x03'
_MECHANISM = slice(12, 32)


def read_mechanism(address: Address, timeout: float) -> str | None:
    """Ask whoever listens at an address for its mechanism.

    0MQ does not tell a client reliably that a process has another mechanism than its own: the side that
    notices it first hangs up, often before it has sent its own.

    :param address: of a tcp or ipc socket
    :param timeout: seconds
    :returns: ``'NULL'``, ``'PLAIN'``, ``'CURVE'``; None where nobody tells
    """
    with suppress(OSError, EOFError, UnicodeDecodeError), _socket(address) as socket:
        deadline = time.monotonic() + timeout
        socket.settimeout(timeout)
        socket.connect(_target(address))
        socket.sendall(_BEGINNING)
        greeting = _read(socket, _MECHANISM.stop, deadline)
        if greeting[0] == _BEGINNING[0]:
            return greeting[_MECHANISM].rstrip(b'\0').decode('ascii')
    return None


def _socket(address: Address) -> sockets.socket:
    if address.transport == 'ipc':
        return sockets.socket(sockets.AF_UNIX)
    return sockets.socket(sockets.AF_INET6 if address.ipv6 else sockets.AF_INET)


def _target(address: Address) -> str | tuple[str, int | None]:
    if address.transport == 'ipc':
        # As 0MQ writes the name of an abstract one.
        return address.host.replace('@', '\0', 1) if address.host.startswith('@') else address.host
    return address.host, address.port


def _read(socket: sockets.socket, size: int, deadline: float) -> bytes:
    data = b''
    while len(data) < size:
        socket.settimeout(max(0.001, deadline - time.monotonic()))
        part = socket.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
