"""Streams: how the sockets of a process meet its loop.

A :class:`Stream` cannot be broken by its callback, takes several messages per wake-up, and stops reading
where too many are under way.
"""

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

from .fork import end_copy
from .limits import Limits
from .listener import Listener
from .logs import Log
from .metrics import Failures, Latencies
from .request import Request, current
from .wire import encode, error_text

logger = Log(__name__)

#: Messages taken per wake-up, before timers and other sockets have their turn.
BATCH = 32

#: Socket types that can send a reply.
REPLYING = frozenset({zmq.ROUTER, zmq.DEALER, zmq.PAIR})

# As plain numbers: those of pyzmq are enumerations, which take longer to combine than a frame to send.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)


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


def _runs_elsewhere(loop: IOLoop) -> bool:
    """Whether a loop runs in another thread than the calling one."""
    asyncio_loop: asyncio.AbstractEventLoop = loop.asyncio_loop  # type: ignore[attr-defined]
    try:
        return asyncio.get_running_loop() is not asyncio_loop and asyncio_loop.is_running()
    except RuntimeError:  # here runs none
        return asyncio_loop.is_running()


class Stream(ZMQStream):
    """A stream whose callback gets one message at a time and cannot break it.

    :param limits: ``max_in_flight`` messages may be handled at once before the next has to wait, and each may
        have ``max_frames`` frames
    """

    def __init__(self, socket: 'zmq.Socket[Any]', loop: IOLoop, limits: Limits) -> None:
        self._registered = False
        self._thread = None if _runs_elsewhere(loop) else threading.get_ident()
        super().__init__(socket, loop)
        if self._thread is None:
            loop.add_callback(self.moved)
        self.counters = Counters()
        self.latencies = Latencies()
        self.failures = Failures()
        #: What the socket listens on, if it is bound.
        self.listener: Listener | None = None
        #: Whether peers had to present a password or a key.
        self.authenticated = False
        self.in_flight = 0
        self._max_in_flight = limits.max_in_flight
        self._max_frames = limits.max_frames
        self._type = socket.type
        # What zmq.Socket's own methods call: they add what only draft sockets have.
        bare: Any = super(zmq.Socket, socket)
        self._recv_frame, self._send_frame = bare.recv, bare.send
        self._callback: Callable[[list[Any]], Any] | None = None
        self._copy = True
        self._pid = os.getpid()
        self._taking = False
        self._delivering: Request | None = None
        self._scheduled = False
        self._draining = False
        self._idle: asyncio.Event | None = None
        self._tasks: set[asyncio.Future[Any]] = set()

    # Receiving

    def on_recv(self, callback: Callable[[list[Any]], Any] | None, copy: bool = True) -> None:
        """As :meth:`zmq.eventloop.zmqstream.ZMQStream.on_recv`."""
        self._callback = callback
        self._copy = copy
        if self.on_loop():
            self._watch()
        else:
            self.io_loop.add_callback(self._watch)

    def current_request(self, frames: list[Any], index: int) -> Request:
        """Find the request that a handler has been called for.

        :param frames: what the handler was called with
        :param index: which of them is the message; those before it lead the reply back
        """
        # Without one the handler was called by something else than this stream: nobody waits for a reply.
        request = self.find_request() or self._guess() or Request(self, [])
        self._address(request, frames, index)
        return request

    def find_request(self) -> Request | None:
        """Find the message that the calling code was called for.

        :returns: None where it cannot be told
        """
        request = current.get()
        return request if request is not None and request.stream is self else None

    def receiving(self) -> bool:
        """Whether messages are read: somebody wants them, and there is room for one more."""
        return self._callback is not None and self.in_flight < self._max_in_flight and not self._draining

    def _watch(self) -> None:
        """Look for messages whose wake-up was used up by a reply."""
        if not self._taking and not self.closed():
            self._rebuild_io_state()  # type: ignore[no-untyped-call]

    def _init_io_state(self) -> None:
        # A worker thread that makes a stream has yet to set up its socket: the loop comes later.
        if self.on_loop():
            self._registered = True
            super()._init_io_state()  # type: ignore[no-untyped-call]

    def _update_handler(self, state: int) -> None:
        if not self._registered and self.socket is not None:
            self._init_io_state()
        # 0MQ's descriptor tells of changes only, so what is pending has to be asked for after each action. At
        # most one such look is scheduled: each would schedule its successor, and they would pile up.
        if self.socket is not None and not self._scheduled and state & int(self.socket.get(zmq.EVENTS)):
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self.io_loop.add_callback(self._look)

    def _look(self) -> None:
        self._scheduled = False
        if self.socket is not None:
            self._handle_events(self.socket, 0)

    def _handle_events(self, fd: Any, events: int) -> None:
        if self._scheduled:
            return  # a batch is due in this turn of the loop already
        if self.receiving() and not self.sending():
            self._handle_recv()
        else:
            super()._handle_events(fd, events)  # type: ignore[no-untyped-call]

    def _handle_recv(self) -> None:
        """Take what has come, some messages at a time."""
        self._taking = True
        try:
            for _ in range(BATCH):
                try:
                    frames, origin = self._receive()
                except zmq.Again:
                    return  # 0MQ's descriptor will tell of the next
                self._deliver(frames, origin)
                if self.closed() or not self.receiving():
                    return  # _watch() goes on when there is room
        finally:
            self._taking = False
        self._schedule()

    def _receive(self) -> tuple[list[Any], Any]:
        """Return the frames of the next message, and the first as 0MQ gave it, which knows the peer."""
        # As recv_multipart(), which takes longer to ask whether there are more frames than to read them.
        frame = origin = self._recv_frame(_NOBLOCK, False)
        frames: list[Any] = [frame.bytes if self._copy else frame]
        while frame.more:
            frame = self._recv_frame(_NOBLOCK, False)
            if len(frames) <= self._max_frames:  # one too many is enough to tell that there are
                frames.append(frame.bytes if self._copy else frame)
        return frames, origin

    def _deliver(self, frames: list[Any], origin: Any) -> None:
        request, body = self._open(frames)
        if request is None:
            self.counters.dropped += 1
            return
        request.origin = origin
        self.counters.received += 1
        if len(frames) > self._max_frames:
            error = f'The message has too many frames: {self._max_frames} are taken at most (max_frames)'
            request.reply([encode([413, error])])
            return
        token = current.set(request)
        self._delivering = request
        try:
            outcome = self._callback(body)  # type: ignore[misc]
            if outcome is not None and inspect.isawaitable(outcome):
                self.in_flight += 1
                task = asyncio.ensure_future(self._finish(request, outcome))
                self.keep(task)
                task.add_done_callback(partial(self._finished, request))
        except BaseException as error:
            end_copy(self._pid, error)
            self._failed(request, error)
        finally:
            end_copy(self._pid)
            current.reset(token)
            self._delivering = None
        self._delivered(request)

    async def _finish(self, request: Request, outcome: Awaitable[Any]) -> None:
        """Run what a callback that is a coroutine function returned."""
        try:
            await outcome
        except BaseException as error:
            end_copy(self._pid, error)
            self._failed(request, error)
        finally:
            end_copy(self._pid)

    def _finished(self, request: Request, task: 'asyncio.Future[None]') -> None:
        if task.cancelled():  # before it began
            self._failed(request, asyncio.CancelledError())
        self.in_flight -= 1
        self._went_on()

    def keep(self, task: 'asyncio.Future[Any]') -> None:
        """Hold a reference to a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _failed(self, request: Request, error: BaseException) -> None:
        logger.error('The handler of a message raised', exc_info=error)
        self.count_failure(request.message_type, error)
        if not (request.answered or request.handled):
            request.parts = ()
            request.reply([encode([500, error_text(error)])])

    def count_failure(self, message_type: str, error: BaseException) -> None:
        """Count a message that failed, and keep why."""
        self.counters.failed += 1
        self.failures.add(message_type, error_text(error))

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

    def _guess(self) -> Request | None:
        """Return the message that code of unknown origin is meant for; None where it cannot be told."""
        return None

    def _delivered(self, request: Request) -> None:
        """Called when the callback has returned."""

    # Sending

    def flush(self, flag: int = zmq.POLLIN | zmq.POLLOUT, limit: int | None = None) -> int:
        """Send what waits to be sent.

        Nothing is received meanwhile: messages come one at a time, and one that nobody takes would be lost.
        """
        return super().flush(flag & zmq.POLLOUT, limit)

    def send_multipart(self, msg: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        """As :meth:`zmq.eventloop.zmqstream.ZMQStream.send_multipart`."""
        request = self.find_request()
        if request is not None and list(msg[: len(request.envelope)]) == request.envelope:
            request.handled = True
        super().send_multipart(msg, *args, **kwargs)

    def send_reply(self, frames: list[Any], copy: bool, track: bool) -> Any:
        """Send a reply, its envelope included, at once."""
        if self._type not in REPLYING or self.closed():
            return None
        try:
            for frame in frames[:-1]:
                self._send_frame(frame, _MORE, copy, track)
            status = self._send_frame(frames[-1], _NOBLOCK, copy, track)
        except zmq.Again:
            # The peers do not read: 0MQ's high-water mark is reached.
            logger.warning('A reply was dropped, since its client does not read')
            return None
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return None  # the client has gone
        self.counters.replied += 1
        return status

    def finished(self, request: Request) -> None:
        """Called when a request has been answered."""
        if request.detached:
            self.in_flight -= 1
        if not request.message_type.startswith('_'):  # the library's own, which monitors ask for all the time
            self.latencies.record(request.began)
        self._went_on()

    def _went_on(self) -> None:
        if self._idle is not None and not self.busy:
            self._idle.set()
        self._watch()

    def moved(self) -> None:
        """The loop runs in the calling thread from now on."""
        self._thread = threading.get_ident()

    def on_loop(self) -> bool:
        """Whether the caller is in the thread of the loop."""
        return threading.get_ident() == self._thread

    def status(self) -> dict[str, Any]:
        """What ``_status`` tells of the stream: its counters, what is under way, how the others fared."""
        return {
            **asdict(self.counters),
            'in_flight': self.in_flight,
            'max_in_flight': self._max_in_flight,
            **self.latencies.status(),
            'failures': self.failures.status(),
        }

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
