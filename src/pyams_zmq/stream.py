"""Streams: how the sockets of a process meet its loop.

A :class:`Stream` cannot be broken by its callback, takes several messages per wake-up, and stops reading
where too many are under way. A :class:`ReplyStream` is the service's end of request and reply: what
:data:`zmq.REP` is meant to be, on a :data:`zmq.ROUTER`.
"""

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

import zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

from .fork import end_copy
from .listener import Listener
from .wire import encode, error_text

logger = logging.getLogger(__name__)

#: Messages taken per wake-up, before timers and other sockets have their turn.
BATCH = 32

#: Socket types that can send a reply.
REPLYING = frozenset({zmq.ROUTER, zmq.DEALER, zmq.PAIR})


@dataclass
class Counters:
    """What a stream has seen since it was made."""

    #: messages given to the callback
    received: int = 0
    #: replies sent
    replied: int = 0
    #: messages whose handling raised, or whose reply did not fit JSON
    failed: int = 0
    #: messages that were no request: no delimiter frame
    dropped: int = 0
    #: replies that came too late or twice
    unwanted: int = 0


class Request:
    """One message that is being handled, and its reply."""

    __slots__ = ('answered', 'detached', 'envelope', 'expired', 'parts', 'stream')

    def __init__(self, stream: 'Stream', envelope: list[Any]) -> None:
        self.stream = stream
        #: The frames that lead the reply back to its client.
        self.envelope = envelope
        #: Frames of the reply that were sent with SNDMORE.
        self.parts: list[Any] = []
        self.answered = False
        self.detached = False
        self.expired = False

    def detach(self) -> None:
        """Let the next messages come while this one is being handled."""
        self.detached = True
        self.stream.in_flight += 1

    def reply(self, frames: Sequence[Any], flags: int = 0, copy: bool = True, track: bool = False) -> Any:
        """Send the reply, unless there was one already.

        :returns: as :meth:`zmq.Socket.send_multipart`
        """
        stream = self.stream
        if self.answered:
            stream.counters.unwanted += 1
            if not self.expired:
                logger.warning('A second reply to the same message was dropped')
            return None
        if not (frames or self.parts):
            raise ValueError('a reply has at least one frame')
        if flags & zmq.SNDMORE:
            self.parts += frames
            return None
        status = stream.send_reply([*self.envelope, *self.parts, *frames], copy, track)
        self.answered = True
        stream.finished(self)
        return status


_current: ContextVar[Request | None] = ContextVar('pyams_zmq_request', default=None)


class Stream(ZMQStream):
    """A stream whose callback gets one message at a time and cannot break it.

    :param max_in_flight: how many messages may be handled at once before the next has to wait
    """

    def __init__(self, socket: 'zmq.Socket[Any]', loop: IOLoop, max_in_flight: int) -> None:
        super().__init__(socket, loop)
        self.counters = Counters()
        #: What the socket listens on, if it is bound.
        self.listener: Listener | None = None
        self.in_flight = 0
        self._max_in_flight = max_in_flight
        self._type = socket.type
        self._thread = threading.get_ident()
        self._callback: Callable[[list[Any]], Any] | None = None
        self._copy = True
        self._pid = os.getpid()
        self._taking = False
        self._scheduled = False
        self._draining = False
        self._idle: asyncio.Event | None = None
        self._tasks: set[asyncio.Future[Any]] = set()

    # Receiving

    def on_recv(self, callback: Callable[[list[Any]], Any] | None, copy: bool = True) -> None:
        """As :meth:`zmq.eventloop.zmqstream.ZMQStream.on_recv`."""
        self._callback = callback
        self._copy = copy
        self._watch()

    def current_request(self, frames: list[Any], index: int) -> Request:
        """Find the request that a handler has been called for.

        :param frames: what the handler was called with
        :param index: which of them is the message; those before it lead the reply back
        """
        request = _current.get()
        if request is None or request.stream is not self:
            # The handler was called by something else than this stream: there is nobody to reply to.
            request = Request(self, [])
        self._address(request, frames, index)
        return request

    @property
    def _held(self) -> bool:
        return self.in_flight >= self._max_in_flight

    def _watch(self) -> None:
        """Read on, or stop reading; also look for messages whose wake-up was used up by a reply."""
        if self.closed() or self._taking:
            return
        wanted = self._callback is not None and not self._held and not self._draining
        super().on_recv(self._take if wanted else None, copy=self._copy)

    def _update_handler(self, state: int) -> None:
        # 0MQ's descriptor tells of changes only, so what is pending has to be asked for after each action. At
        # most one such look is scheduled: each would schedule its successor, and they would pile up.
        if self.socket is not None and not self._scheduled and state & int(self.socket.events):
            self._scheduled = True
            self.io_loop.add_callback(self._look)

    def _look(self) -> None:
        self._scheduled = False
        if self.socket is not None:
            self._handle_events(self.socket, 0)  # type: ignore[no-untyped-call]

    def _take(self, frames: list[Any]) -> None:
        self._taking = True
        try:
            self._deliver(frames)
            for _ in range(BATCH - 1):
                if self._callback is None or self._held or self._draining or self.closed():
                    break
                try:
                    frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=self._copy)
                except zmq.Again:
                    break
                self._deliver(frames)
        finally:
            self._taking = False
            self._watch()

    def _deliver(self, frames: list[Any]) -> None:
        request, body = self._open(frames)
        if request is None:
            self.counters.dropped += 1
            return
        self.counters.received += 1
        token = _current.set(request)
        try:
            outcome = self._callback(body)  # type: ignore[misc]
            if inspect.isawaitable(outcome):
                self.in_flight += 1
                self.keep(asyncio.ensure_future(self._finish(request, outcome)))
        except BaseException as error:
            end_copy(self._pid, error)
            self._failed(request, error)
        finally:
            end_copy(self._pid)
            _current.reset(token)
        self._delivered(request)

    async def _finish(self, request: Request, outcome: Awaitable[Any]) -> None:
        """Run what a callback that is a coroutine function returned."""
        try:
            await outcome
        except BaseException as error:
            self._failed(request, error)
        finally:
            self.in_flight -= 1
            self._went_on()

    def keep(self, task: 'asyncio.Future[Any]') -> None:
        """Hold a reference to a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _failed(self, request: Request, error: BaseException) -> None:
        logger.error('The handler of a message raised', exc_info=error)
        self.counters.failed += 1
        if not request.answered:
            request.parts.clear()
            request.reply([encode([500, error_text(error)])])

    # What the kinds of sockets differ in

    def _open(self, frames: list[Any]) -> tuple[Request | None, list[Any]]:
        """Return the request of a message, None where it is none, and what the callback gets."""
        return Request(self, self._guess_envelope(frames)), frames

    def _guess_envelope(self, frames: list[Any]) -> list[Any]:
        if self._type not in REPLYING:
            return []
        delimiter = next((i + 1 for i, frame in enumerate(frames) if not len(frame)), 0)
        return frames[: delimiter or int(self._type == zmq.ROUTER)]

    def _address(self, request: Request, frames: list[Any], index: int) -> None:
        if self._type in REPLYING and -len(frames) <= index < len(frames):
            envelope = frames[: index % len(frames)]
            if envelope or self._type != zmq.ROUTER:
                request.envelope = envelope

    def _delivered(self, request: Request) -> None:
        """Called when the callback has returned."""

    # Sending

    def send_reply(self, frames: list[Any], copy: bool, track: bool) -> Any:
        """Send a reply, its envelope included, at once."""
        if self._type not in REPLYING or self.closed():
            return None
        try:
            status = self.socket.send_multipart(frames, zmq.NOBLOCK, copy=copy, track=track)
        except zmq.Again:
            # The peers do not read: 0MQ's high-water mark is reached.
            logger.warning('A reply was dropped, since its client does not read')
            return None
        self.counters.replied += 1
        return status

    def finished(self, request: Request) -> None:
        """Called when a request has been answered."""
        if request.detached:
            self.in_flight -= 1
        self._went_on()

    def _went_on(self) -> None:
        if self._idle is not None and not self.busy:
            self._idle.set()
        self._watch()

    def on_loop(self) -> bool:
        """Whether the caller is in the thread of the loop."""
        return threading.get_ident() == self._thread

    def status(self) -> dict[str, int]:
        """What ``_status`` tells of the stream: its counters, and the messages under way."""
        return {**asdict(self.counters), 'in_flight': self.in_flight}

    # Ending

    @property
    def busy(self) -> bool:
        """Whether a message is being handled."""
        return self.in_flight > 0

    async def drain(self) -> None:
        """Take no more messages, and wait until those under way are answered."""
        self._draining = True
        self._watch()
        self._idle = asyncio.Event()
        if self.busy:
            await self._idle.wait()


class ReplyStream(Stream):
    """The service's end of request and reply.

    Every request gets one reply: what is sent in answer to a message goes to the client that it came from,
    whenever that is, and a second one goes nowhere. A handler that returns without a reply may send it later;
    until then the next message waits.

    :param reply_timeout: seconds such a reply may take, before the client gets a 500; None: for ever
    """

    def __init__(
        self, socket: 'zmq.Socket[Any]', loop: IOLoop, max_in_flight: int, reply_timeout: float | None
    ) -> None:
        super().__init__(socket, loop, max_in_flight)
        self._reply_timeout = reply_timeout
        self._waiting: Request | None = None
        self._timer: object | None = None
        # Replies still to come for requests that were given up.
        self._owed = 0

    def _open(self, frames: list[Any]) -> tuple[Request | None, list[Any]]:
        for index, frame in enumerate(frames[:-1], 1):
            if not len(frame):
                return Request(self, frames[:index]), frames[index:]
        return None, []

    def _address(self, request: Request, frames: list[Any], index: int) -> None:
        """Nothing to do: the delimiter frame told what leads the reply back."""

    @property
    def _held(self) -> bool:
        return self._waiting is not None or super()._held

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
        self.counters.failed += 1
        self._owed += 1
        request.parts.clear()
        request.reply([encode([500, f'TimeoutError: no reply within {self._reply_timeout} s'])])
        request.expired = True

    def finished(self, request: Request) -> None:
        """Called when a request has been answered."""
        if request is self._waiting:
            self._waiting = None
            if self._timer is not None:
                self.io_loop.remove_timeout(self._timer)
                self._timer = None
        super().finished(request)

    def send_multipart(
        self,
        msg: Sequence[Any],
        flags: int = 0,
        copy: bool = True,
        track: bool = False,
        callback: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reply to the message that is being handled; all the other ``send`` methods come here.

        May be called from any thread, and later than the handler returns. Which message is meant is told by
        :mod:`contextvars`: callbacks and tasks that the handler starts carry it along, other threads mean the
        one that waits for its reply.
        """
        if not self.on_loop():
            self.io_loop.add_callback(self.send_multipart, msg, flags, copy, track, callback, **kwargs)
            return
        request = _current.get()
        if request is None or request.stream is not self:
            request = None if self._owed else self._waiting
        if request is None or request.expired:
            self._owed = max(0, self._owed - 1)
            self.counters.unwanted += 1
            logger.warning('A reply was dropped: it came too late, or no message asked for it')
            return
        status = request.reply(msg, flags, copy, track)
        if callback is not None:
            self.on_send(callback)
        if self._send_callback is not None:
            self._run_callback(self._send_callback, msg, status)
