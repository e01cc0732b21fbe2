"""A client that has its process with it."""

import weakref
from contextlib import suppress
from typing import Any, NamedTuple

from ..client import ZMQClient
from ..exceptions import ReplyError
from ..process import ZMQProcess
from ..wire import Reply, decode_message
from .service import Service


class Call(NamedTuple):
    """A message that a stub was sent, and the reply."""

    type: str
    data: Any
    reply: Reply


class ZMQStub(ZMQClient):
    """Takes the place of a :class:`~pyams_zmq.client.ZMQClient` and of its process.

    The delegate is called in the thread of the caller, by the real message handler, and what it gets and
    returns is encoded and decoded as ever. A job has ended when the call that submitted it returns; its
    retries do not wait, and its journal is in memory.

    :param process: a process that is not started, and will not be
    :param timeout: seconds that a call may take
    :raises ValueError: where the process is none that replies to requests
    """

    def __init__(self, process: ZMQProcess, timeout: float = 10) -> None:
        self.address = 'inproc://stub'
        self.timeout = timeout
        self.max_message_size = process.max_message_size
        #: What was sent so far.
        self.calls: list[Call] = []
        #: What messages get instead of being delivered, as ``Reply.undelivered(503, 'Nobody there')``; None:
        #: they are delivered.
        self.undelivered: Reply | None = None
        self._service = Service(process)
        self._finalizer = weakref.finalize(self, self._service.close)

    @property
    def delegate(self) -> Any:
        """The delegate, which the handler has made."""
        return self._service.handler.rep_handler

    def _exchange(self, payload: bytes | None, seconds: float) -> Reply:
        reply = self.undelivered or self._service.undelivered
        if payload is None:
            return reply or Reply(200, None)
        reply = reply or self._service.exchange(payload, seconds)
        with suppress(ReplyError):  # else it was no message, which the reply tells
            self.calls.append(Call(*decode_message(payload), reply))
        return reply

    def close(self) -> None:
        """End it; what is sent later is not delivered."""
        self._finalizer()

    def __repr__(self) -> str:
        return f'<ZMQStub of {self._service.name}>'
