"""The caller's side in comfort: a client which keeps its connections, and tells why no reply came."""

import math
import os
import threading
import time
from types import TracebackType
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from .address import AnyAddress
from .socket import prepare_socket
from .wire import Reply, encode

__all__ = ['Reply', 'ZMQClient']

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)

#: Connections that are kept open between calls.
_MAX_IDLE = 16


class ZMQClient:
    """Calls a process.

    It may be shared between threads and kept for ever: connections are made when they are needed, used again,
    and not taken along into a forked process. A context manager, which closes it at the end.

    :param address: ``'host:port'``, ``(host, port)``, ``'tcp://host:port'`` or ``'ipc:///path'``
    :param auth: ``'user:password'``; None or empty to present none
    :param timeout: seconds that a call may take
    :raises ValueError: where an argument makes no sense
    """

    def __init__(self, address: AnyAddress, auth: str | None = None, timeout: float = 10) -> None:
        if not timeout > 0:
            raise ValueError(f'timeout is a number of seconds above 0, not {timeout!r}')
        self.address = address
        self.timeout = timeout
        self._auth = auth
        self._lock = threading.Lock()
        self._pid = os.getpid()
        # The first connection finds the mistakes in the arguments.
        self._idle: list[_Connection] = [_Connection(address, auth)]

    def call(self, message_type: str, data: Any = None, *, timeout: float | None = None) -> Reply:
        """Send a message and wait for the reply.

        :param message_type: name of the delegate's method
        :param data: anything that JSON can hold
        :param timeout: seconds; None: the client's own
        :returns: the process's reply, or one with ``delivered`` False where none came: 503, nobody is there;
            504, no answer in time, or the connection was lost during the call, so it may or may not have been
            handled; 403, the process refuses this caller; 401, it wants other credentials, or none
        :raises TypeError, ValueError: where JSON cannot hold the data, or the reply is no JSON
        """
        payload = encode([message_type, data])
        seconds = self.timeout if timeout is None else timeout
        connection = self._take()
        try:
            reply = connection.exchange(payload, seconds)
        except BaseException:
            connection.close()
            raise
        if reply.delivered:
            self._give_back(connection)
        else:
            connection.close()
        return reply

    def _take(self) -> '_Connection':
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()  # the idle connections are those of the parent
                self._idle = []
            if self._idle:
                return self._idle.pop()
        return _Connection(self.address, self._auth)

    def _give_back(self, connection: '_Connection') -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections that are not in use; the client may be used again afterwards."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> 'ZMQClient':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'<ZMQClient {self.address!r}>'


class _Connection:
    """A socket for one call at a time, and the monitor which tells how its connection fares."""

    def __init__(self, address: AnyAddress, auth: str | None) -> None:
        self._pid = os.getpid()
        self._socket, url = prepare_socket(address, zmq.REQ, 0, 'tcp', auth)
        # Before it connects, so that no event is missed.
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._connected = False
        self._handshakes_failed = 0
        self._socket.connect(url)

    def exchange(self, payload: bytes, seconds: float) -> Reply:
        """Send a message and wait for the reply, or for what tells that there will be none."""
        deadline = time.monotonic() + seconds
        while (refusal := self._read_events()) is not None:
            if refusal.status != 504:  # else it was lost while it was idle, and 0MQ connects again
                return refusal
        sent = False
        while True:
            sent = sent or self._send(payload)
            remaining = deadline - time.monotonic()
            ready = dict(self._poller.poll(max(0, math.ceil(remaining * 1000))))
            refusal = self._read_events() if self._monitor in ready else None
            # Asked for after the events: a reply may have come just before the connection was lost.
            if self._socket.poll(0):
                return Reply.received(self._socket.recv())
            if refusal is not None:
                return refusal
            if not ready and remaining <= 0:
                return self._too_late(seconds)

    def _send(self, payload: bytes) -> bool:
        try:
            self._socket.send(payload, zmq.NOBLOCK)
        except zmq.Again:
            return False  # 0MQ has given the connection up, and an event is about to tell why
        return True

    def _read_events(self) -> Reply | None:
        """Take in what happened to the connection; return a reply where no other will come."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            kind = event['event']
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return Reply.undelivered(
                    403, 'Refused: wrong user name, password or key, or not among the clients'
                )
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return Reply.undelivered(401, 'The process wants other credentials, or none')
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._handshakes_failed += 1
            elif self._connected:
                self._connected = False
                return Reply.undelivered(504, 'Connection lost: the message may or may not have been handled')
        return None

    def _too_late(self, seconds: float) -> Reply:
        if self._connected:
            return Reply.undelivered(504, f'No answer within {seconds} s')
        if self._handshakes_failed:
            return Reply.undelivered(401, 'The process wants other credentials, or none')
        return Reply.undelivered(503, f'Nobody there: no connection within {seconds} s')

    def close(self) -> None:
        """Close the socket, in an order that lets the context end; nothing happens in a forked process."""
        if self._pid == os.getpid() and not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, '_monitor'):  # else it could not be made
            self.close()
