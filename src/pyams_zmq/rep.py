"""The service's end of request and reply: what :data:`zmq.REP` is meant to be, on a :data:`zmq.ROUTER`."""

from collections.abc import Callable, Sequence
from typing import Any

import zmq
from tornado.ioloop import IOLoop

from .limits import Limits
from .logs import Log
from .request import Request, claim, follow_threads
from .stream import Stream
from .wire import encode, error_text

logger = Log(__name__)


class ReplyStream(Stream):
    """The service's end of request and reply.

    Every request gets one reply: what is sent in answer to a message goes to the client that it came from,
    whenever that is, and a second one goes nowhere. A handler that returns without a reply may send it later;
    until then the next message waits.

    :param limits: ``reply_timeout`` is what such a reply may take, before the client gets a 500
    """

    def __init__(self, socket: 'zmq.Socket[Any]', loop: IOLoop, limits: Limits) -> None:
        super().__init__(socket, loop, limits)
        # Without it a ROUTER drops what it cannot send, and says nothing.
        socket.router_mandatory = True
        self._reply_timeout = limits.reply_timeout
        self._waiting: Request | None = None
        self._timer: object | None = None
        # Messages that were given up, and until when their replies are reckoned with: they may come from
        # where it cannot be told which message they belong to, while another one waits for its own.
        self._owed: dict[Request, float] = {}
        follow_threads()

    def _open(self, frames: list[Any]) -> tuple[Request | None, list[Any]]:
        for index, frame in enumerate(frames[:-1], 1):
            if not len(frame):
                return Request(self, frames[:index]), frames[index:]
        return None, []

    def _address(self, request: Request, frames: list[Any], index: int) -> None:
        """Nothing to do: the delimiter frame told what leads the reply back."""

    def receiving(self) -> bool:
        """Whether messages are read: not while one waits for its reply."""
        return self._waiting is None and super().receiving()

    @property
    def busy(self) -> bool:
        """Whether a message is being handled or waits for its reply."""
        return self._waiting is not None or super().busy

    def _delivered(self, request: Request) -> None:
        if not request.answered and not request.detached:
            self._waiting = request
            if self._reply_timeout is not None:
                self._timer = self.io_loop.call_later(self._reply_timeout, self._expire, request)

    def _expire(self, request: Request) -> None:
        logger.error('No reply within %s s: the client got a 500 instead', self._reply_timeout)
        error = TimeoutError(f'no reply within {self._reply_timeout} s')
        self.count_failure(request.message_type, error)
        if not request.mistaken:  # else it is its reply that is missing or an older one's: once is enough
            self._owed[request] = self.io_loop.time() + (self._reply_timeout or 0)
        request.parts = ()
        request.reply([encode([500, error_text(error)])])
        request.expired = True

    def finished(self, request: Request) -> None:
        """Called when a request has been answered."""
        if request is self._waiting:
            self._waiting = None
            if self._timer is not None:
                self.io_loop.remove_timeout(self._timer)
                self._timer = None
        super().finished(request)

    def find_request(self) -> Request | None:
        """Find the message that the calling code was called for.

        :returns: None where it cannot be told
        """
        request = super().find_request()
        if request is None and not self.on_loop():
            request = claim(self)
        return request

    def send_multipart(
        self,
        msg: Sequence[Any],
        flags: int = 0,
        copy: bool = True,
        track: bool = False,
        callback: Callable[..., Any] | None = None,
        **_kwargs: Any,
    ) -> None:
        """Reply to the message that is being handled; all the other ``send`` methods come here.

        May be called from any thread, and later than the handler returns. Which message is meant is told by
        :mod:`contextvars`: callbacks and tasks that the handler starts carry it along. A thread means the
        message that it was started for, or if it has replied already, or belongs to none, the one that waits.
        """
        request = self.find_request()
        if self.on_loop():
            self._reply(request, msg, (flags, copy, track), callback)
        else:
            self.io_loop.add_callback(self._reply, request, msg, (flags, copy, track), callback)

    def _reply(
        self,
        request: Request | None,
        msg: Sequence[Any],
        options: tuple[int, bool, bool],
        callback: Callable[..., Any] | None,
    ) -> None:
        if request is None:
            request = self._guess()
        if request is None or request.expired:
            if request is not None:
                self._owed.pop(request, None)
            self.counters.unwanted += 1
            logger.warning('A reply was dropped: it came too late, or no message asked for it')
            return
        status = request.reply(msg, *options)
        if callback is not None:
            self.on_send(callback)
        if self._send_callback is not None:
            self._run_callback(self._send_callback, msg, status)

    def _guess(self) -> Request | None:
        """Return the message that waits, unless an older one's reply may have come instead."""
        now = self.io_loop.time()
        for request, lapse in list(self._owed.items()):
            if lapse < now:
                self._owed.pop(request, None)
        waiting = self._waiting or self._delivering
        if waiting is not None and not waiting.mistaken:
            if not self._owed:
                return waiting
            waiting.mistaken = True
        elif self._owed:
            self._owed.pop(next(iter(self._owed)), None)
        return None
