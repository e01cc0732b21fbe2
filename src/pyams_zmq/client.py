"""The caller's side in comfort: a client which keeps its connections, and tells why no reply came."""

import math
import os
import struct
import time
from types import TracebackType
from typing import Any

import zmq

from .address import AnyAddress, parse_address
from .credentials import Auth
from .curve import ClientKeys, Curve, read_client_keys
from .greeting import read_mechanism
from .jobs.client import JobCalls
from .limits import MAX_MESSAGE_SIZE
from .socket import connect, prepare_socket
from .wire import Reply, encode

__all__ = ['Reply', 'ZMQClient']

# As zmq.utils.monitor does, which takes as long to import as all else that a client needs.
_EVENT = struct.Struct('=H')

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
)

_HUNG_UP = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)

#: Connections that are kept open between calls.
_MAX_IDLE = 16

#: Seconds between two attempts to connect: 0MQ's own default.
_PAUSE = 0.1

#: Handshakes with CURVE that a process ends without a reason, before they count as a refusal: it gives none
#: where what it is sent was meant for another key.
_HANG_UPS = 5

#: Seconds between two of them.
_SHORT_PAUSE = 0.02

#: Seconds that whoever hangs up has to tell its mechanism.
_GREETING_TIMEOUT = 1.0

_WANTED = {
    'NULL': 'no credentials',
    'PLAIN': 'a user name and a password (auth)',
    'CURVE': 'a key (curve)',
}

#: Milliseconds that 0MQ waits before it would connect again by itself. Never in practice: that is done here,
#: since the events of a connection which nobody uses would pile up until they stop 0MQ's thread.
_RECONNECT_IVL = 3_600_000

#: Seconds that 0MQ can be told to wait at most at once, and some less.
_LONGEST_WAIT = 3600.0


def _seconds(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f'timeout is a number of seconds above 0, not {timeout!r}')
    return timeout


class ZMQClient(JobCalls):
    """Calls a process.

    It may be shared between threads and kept for ever: connections are made when they are needed, used again,
    and not taken along into a forked process. A context manager, which closes it at the end.

    :param address: ``'host:port'``, ``(host, port)``, ``'tcp://host:port'`` or ``'ipc:///path'``
    :param auth: ``'user:password'`` or ``{'user': 'password'}``; None or empty to present none
    :param timeout: seconds that a call may take
    :param max_message_size: bytes of a message that the process takes, see
        :attr:`pyams_zmq.limits.Limits.max_message_size`; None: any number
    :param curve: for encrypted connections, two files: the public key of the process, and the secret key of
        one's own: ``('medias.key', 'web.key_secret')``
    :raises ValueError: where an argument makes no sense
    """

    def __init__(
        self,
        address: AnyAddress,
        auth: Auth | None = None,
        timeout: float = 10,
        *,
        max_message_size: int | None = MAX_MESSAGE_SIZE,
        curve: Curve | None = None,
    ) -> None:
        self.address = address
        self.timeout = _seconds(timeout)
        self.max_message_size = max_message_size
        self._auth = auth
        self._keys = read_client_keys(curve)
        self._pid = os.getpid()
        # Without a lock, which a forked process would find held for ever where a thread had it: the methods
        # of a list are atomic. The first connection finds the mistakes in the arguments.
        self._idle: list[_Connection] = [_Connection(address, auth, self._keys)]

    def call(self, message_type: str, data: Any = None, *, timeout: float | None = None) -> Reply:
        """Send a message and wait for the reply.

        :param message_type: name of the delegate's method
        :param data: anything that JSON can hold
        :param timeout: seconds; None: the client's own
        :returns: the process's reply, or one with ``delivered`` False where none came: 503, nobody is there;
            504, no answer in time, or the connection was lost during the call, so it may or may not have been
            handled; 403, the process refuses this caller; 401, it wants other credentials, or none; 413, the
            message is too large to be sent
        :raises TypeError: where JSON cannot hold the data
        :raises ValueError: likewise, where the reply is not one frame of JSON, or for a senseless timeout
        """
        return self.send(encode([message_type, data]), timeout=timeout)

    def send(self, payload: bytes, *, timeout: float | None = None) -> Reply:
        """Send a message that is encoded already, and wait for the reply.

        :param payload: JSON ``[type, data]``, as :func:`pyams_zmq.wire.encode` makes it
        :param timeout: seconds; None: the client's own
        :returns: as :meth:`call`
        :raises ValueError: where the reply is not one frame of JSON, or for a senseless timeout
        """
        return self.too_large(payload) or self._exchange(payload, self._timeout(timeout))

    def too_large(self, payload: bytes) -> Reply | None:
        """Tell whether a message is too large to be sent.

        :returns: a 413, or None where it is not
        """
        if self.max_message_size is None or len(payload) <= self.max_message_size:
            return None
        most = f'{self.max_message_size} are taken at most (max_message_size)'
        return Reply.undelivered(413, f'The message has {len(payload)} bytes; {most}')

    def connect(self, *, timeout: float | None = None) -> Reply:
        """Make a new connection, and send nothing: is anybody there, who lets this client in?

        It takes the place of one that is kept, and is kept for the next call. A busy process is there.

        :param timeout: seconds; None: the client's own
        :returns: a 200, or what :meth:`call` would return where it was not delivered
        :raises ValueError: for a senseless timeout
        """
        return self._exchange(None, self._timeout(timeout))

    def _timeout(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else _seconds(timeout)

    def _exchange(self, payload: bytes | None, seconds: float) -> Reply:
        deadline = time.monotonic() + seconds
        who, hang_ups = 'Nobody there', 0
        while True:
            connection = self._take() if payload is not None else self._renew()
            try:
                reply = connection.exchange(payload, deadline)
            except BaseException:
                connection.close()
                raise
            if reply is not None and reply.delivered:
                self._give_back(connection)
                return reply
            connection.close()
            if reply is not None:
                return reply
            if connection.hung_up:
                who = 'Whoever is there hangs up'
                theirs = self._ask_for_mechanism(deadline)
                if theirs in _WANTED and theirs != connection.mechanism:
                    return Reply.undelivered(401, f'The process wants {_WANTED[theirs]}')
                hang_ups += theirs == 'CURVE'
                if hang_ups == _HANG_UPS:
                    return Reply.undelivered(
                        401, 'The process has another key than its public one given here'
                    )
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return Reply.undelivered(503, f'{who}: no connection within {seconds} s')
            time.sleep(min(_SHORT_PAUSE if hang_ups else _PAUSE, remaining))

    def _ask_for_mechanism(self, deadline: float) -> str | None:
        remaining = min(_GREETING_TIMEOUT, deadline - time.monotonic())
        return read_mechanism(parse_address(self.address), remaining) if remaining > 0 else None

    def _take(self) -> '_Connection':
        idle = self._take_idle()
        while idle is not None and idle.is_over():
            idle.close()
            idle = self._take_idle()
        return idle or _Connection(self.address, self._auth, self._keys)

    def _renew(self) -> '_Connection':
        idle = self._take_idle()
        if idle is not None:
            idle.close()
        return _Connection(self.address, self._auth, self._keys)

    def _take_idle(self) -> '_Connection | None':
        if self._pid != os.getpid():
            # In this order: the idle connections are those of the parent, and no other thread may take one.
            self._idle = []
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give_back(self, connection: '_Connection') -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the connections that are not in use; the client may be used again afterwards."""
        while (idle := self._take_idle()) is not None:
            idle.close()

    def __enter__(self) -> 'ZMQClient':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'<ZMQClient {self.address!r}>'


def _lost() -> Reply:
    return Reply.undelivered(504, 'Connection lost: the message may or may not have been handled')


class _Connection:
    """One connection, for one call at a time, and the monitor which tells how it fares."""

    def __init__(self, address: AnyAddress, auth: Auth | None, keys: ClientKeys | None) -> None:
        self._pid = os.getpid()
        self._socket, url = prepare_socket(address, zmq.REQ, 0, 'tcp', auth, curve=keys)
        self._socket.reconnect_ivl = _RECONNECT_IVL
        # Before it connects, so that no event is missed.
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._connected = False
        self._over = False
        self._refusal: Reply | None = None
        #: Whether one of the two sides has ended the handshake without a reason.
        self.hung_up = False
        self.mechanism = zmq.SecurityMechanism(int(self._socket.get(zmq.MECHANISM))).name
        connect(self._socket, url)

    def exchange(self, payload: bytes | None, deadline: float) -> Reply | None:
        """Send a message and wait for the reply, or for what tells that there will be none.

        :param payload: None: send nothing, a connection is enough
        :param deadline: as :func:`time.monotonic` tells the time
        :returns: None where there was no connection, and nothing was sent
        """
        began = time.monotonic()
        sent = False
        while True:
            if self._connected:
                if payload is None:
                    return Reply(200, None)
                if not sent:
                    self._socket.send(payload, zmq.NOBLOCK)
                    sent = True
            remaining = min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT)
            ready = self._poller.poll(math.ceil(remaining * 1000))
            self._read_events()
            # Asked for after the events: a reply may have come just before the connection was lost.
            if sent and self._socket.poll(0):
                return self._receive()
            if self._refusal is not None:
                return self._refusal
            if self._over:
                return _lost() if sent else None
            if not ready and remaining <= 0:
                return Reply.undelivered(504, f'No answer within {deadline - began:g} s') if sent else None

    def _receive(self) -> Reply:
        frames = self._socket.recv_multipart()
        if len(frames) != 1:
            raise ValueError(f'The reply has {len(frames)} frames, not one of JSON: use zmq_socket for those')
        return Reply.received(frames[0])

    def is_over(self) -> bool:
        """Whether the connection has been lost, or never came about."""
        self._read_events()
        return self._over or self._refusal is not None

    def _read_events(self) -> None:
        while self._monitor.poll(0):
            kind = _EVENT.unpack_from(self._monitor.recv_multipart()[0])[0]
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._refusal = Reply.undelivered(
                    403, 'Refused: wrong user name, password or key, or not among the clients'
                )
            else:
                self._over = True
                self.hung_up = self.hung_up or kind in _HUNG_UP

    def close(self) -> None:
        """Close the socket, in an order that lets the context end; nothing happens in a forked process."""
        if self._pid == os.getpid() and not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, '_monitor'):  # else it could not be made
            self.close()
