"""The helpers of a caller: a connected socket, and the reply that comes back on it."""

import os
import time
from typing import Any

import zmq

from .address import AnyAddress, parse_address
from .credentials import Auth, parse_auth
from .curve import Curve, read_client_keys
from .exceptions import SettingError
from .wire import decode

_MAX_SOCKETS = 16384

_contexts: dict[int, 'zmq.Context[Any]'] = {}


class ClientSocket(zmq.Socket[bytes]):
    """A socket that may be left to the garbage collector, as the callers of :func:`zmq_socket` do."""

    def __del__(self) -> None:
        self.close()

    def send(  # type: ignore[override]
        self, data: Any, flags: int = 0, copy: bool = True, track: bool = False, **kwargs: Any
    ) -> Any:
        """As :meth:`zmq.Socket.send`.

        A REQ that was refused has nobody to send to, and would wait for ever. Its message is lost, as one
        that was sent a moment before the refusal came: :func:`zmq_response` tells.
        """
        try:
            return super().send(data, flags | zmq.NOBLOCK, copy, track, **kwargs)
        except zmq.Again:
            if self.type == zmq.REQ and not flags & zmq.NOBLOCK:
                return None
            return super().send(data, flags, copy, track, **kwargs)


def shared_context() -> 'zmq.Context[Any]':
    """Return the 0MQ context of this process, which all its callers share.

    The context of a process that was forked stays its parent's; the child gets its own.
    """
    pid = os.getpid()
    context = _contexts.get(pid)
    if context is None:
        # Two threads may come here at once; a lock might be held for ever in a forked process.
        context = _contexts.setdefault(pid, _new_context())
    return context


def _new_context() -> 'zmq.Context[Any]':
    context = zmq.Context()
    # Before the first socket; 0MQ's own 1,023 are soon used up in a server with many threads.
    context.set(zmq.MAX_SOCKETS, min(_MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT)))
    return context


def zmq_socket(
    address: AnyAddress,
    socket_type: int = zmq.REQ,
    linger: int = 0,
    protocol: str = 'tcp',
    auth: Auth | None = None,
    *,
    curve: Curve | None = None,
) -> 'zmq.Socket[bytes]':
    """Connect a socket to a process.

    The socket may be closed or simply left to the garbage collector. All of them share one 0MQ context.

    :param address: ``'host:port'``, ``(host, port)``, ``'tcp://host:port'`` or ``'ipc:///path'``
    :param socket_type: 0MQ type of the socket
    :param linger: milliseconds that unsent messages may take to leave after the socket is closed
    :param protocol: transport of an address that names none
    :param auth: ``'user:password'`` or ``{'user': 'password'}``; None or empty to present none
    :param curve: for an encrypted connection, two files: the public key of the process, and the secret key of
        one's own: ``('medias.key', 'web.key_secret')``
    :raises ValueError: where the address, ``auth`` or ``curve`` makes no sense
    """
    socket, url = prepare_socket(address, socket_type, linger, protocol, auth, curve=curve)
    connect(socket, url)
    return socket


def connect(socket: 'zmq.Socket[bytes]', url: str) -> None:
    """Connect a socket.

    :raises ValueError: where 0MQ cannot make sense of the address
    """
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        raise ValueError(f'{url!r} is no address to connect to: {error}') from None


def prepare_socket(
    address: AnyAddress,
    socket_type: int,
    linger: int,
    protocol: str,
    auth: Auth | None,
    *,
    curve: Curve | None,
) -> tuple['zmq.Socket[bytes]', str]:
    """Make a socket, and what it is to connect to; parameters and errors as for :func:`zmq_socket`."""
    target = parse_address(address, protocol)
    if target.transport == 'tcp' and target.port is None:
        raise ValueError(f"{address!r} has no port: give 'host:port' or (host, port)")
    users, keys = parse_auth(auth), read_client_keys(curve)
    if users and keys:
        raise SettingError('give auth or curve, not both: a socket has one mechanism')
    socket = shared_context().socket(socket_type, socket_class=ClientSocket)
    socket.linger = linger
    socket.ipv6 = target.ipv6
    if users:
        socket.plain_username, socket.plain_password = (text.encode() for text in users.first)
    if keys:
        socket.curve_serverkey = keys.server
        socket.curve_publickey, socket.curve_secretkey = keys.pair
    return socket, target.url


def zmq_response(socket: 'zmq.Socket[bytes]', flags: int = zmq.POLLIN, timeout: float = 10) -> Any:
    """Wait for the reply.

    :param socket: what :func:`zmq_socket` returned
    :param flags: the events to wait for
    :param timeout: seconds
    :returns: the decoded reply, ``[503, "Connection timeout"]`` where none came
    """
    deadline = time.monotonic() + timeout
    events = socket.poll(int(timeout * 1000), flags)
    if events and not events & zmq.POLLIN:
        # It can be written to, say; that is no reply.
        events = socket.poll(max(0, int((deadline - time.monotonic()) * 1000)))
    if events:
        return decode(socket.recv())
    return [503, 'Connection timeout']
