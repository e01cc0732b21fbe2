"""The messages of one request."""

import time
from typing import Any, NamedTuple

from .declaration import Declaration
from .wire import Reply, encode


class Message(NamedTuple):
    """A message that a request sent, and how it went; without what it held."""

    #: Name of the process.
    process: str
    #: Type of the message.
    type: str
    #: Status of the reply.
    status: int
    #: Seconds from the call to the reply.
    duration: float
    #: Bytes of the message.
    sent: int
    #: Bytes of the reply.
    received: int


class RequestClient:
    """A process as one request sees it: calls it, and remembers the calls.

    :param declaration: the process
    :param messages: where the messages of this request are remembered
    """

    def __init__(self, declaration: Declaration, messages: list[Message]) -> None:
        self.name = declaration.name
        self._declaration = declaration
        self._messages = messages

    def call(self, message_type: str, data: Any = None, *, timeout: float | None = None) -> Reply:
        """Send a message and wait for the reply; as :meth:`pyams_zmq.client.ZMQClient.call`."""
        return self.send(message_type, encode([message_type, data]), timeout=timeout)

    def send(self, message_type: str, payload: bytes, *, timeout: float | None = None) -> Reply:
        """Send a message that is encoded already, and wait for the reply.

        :param message_type: what is remembered as its type
        :param payload: what :func:`pyams_zmq.wire.encode` made of ``[type, data]``
        :param timeout: seconds; None: the client's own
        """
        began = time.monotonic()
        problem = self._declaration.problem
        if problem is None:
            reply = self._declaration.client.send(payload, timeout=timeout)
        else:
            reply = Reply.undelivered(503, problem)
        duration = time.monotonic() - began
        self._messages.append(
            Message(self.name, message_type, reply.status, duration, len(payload), reply.size)
        )
        return reply

    def __repr__(self) -> str:
        return f'<RequestClient {self.name}>'
