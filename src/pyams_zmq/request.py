"""One message that is being handled, and its reply; and which message a reply is meant for."""

import logging
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import zmq

from .pools import pooled_threads

logger = logging.getLogger(__name__)

_SNDMORE = int(zmq.SNDMORE)


class Request:
    """One message that is being handled, and its reply.

    :param stream: the :class:`pyams_zmq.stream.Stream` that it came from
    :param envelope: the frames that lead the reply back to its client
    """

    #: Frames of the reply that were sent with SNDMORE.
    parts: Sequence[Any] = ()
    answered = False
    detached = False
    expired = False
    #: Whether the handler of a raw socket has sent its client something by itself.
    handled = False
    #: The frame that knows whom the message came from; see :mod:`pyams_zmq.caller`.
    origin: Any = None
    #: Empty until the handler has read it.
    message_type = ''

    def __init__(self, stream: Any, envelope: list[Any]) -> None:
        self.stream = stream
        self.envelope = envelope
        #: When it arrived, as :func:`time.perf_counter` tells the time.
        self.began = time.perf_counter()

    def detach(self) -> None:
        """Let the next messages come while this one is being handled."""
        self.detached = True
        self.stream.in_flight += 1

    def reply(self, frames: Sequence[Any], flags: int = 0, copy: bool = True, track: bool = False) -> Any:
        """Send the reply, unless there was one already; from any thread.

        :returns: as :meth:`zmq.Socket.send_multipart`; None from another thread than the loop's
        """
        stream = self.stream
        if not stream.on_loop():
            stream.io_loop.add_callback(self.reply, frames, flags, copy, track)
            return None
        if self.answered:
            stream.counters.unwanted += 1
            if not self.expired:
                logger.warning('A second reply to the same message was dropped')
            return None
        if not (frames or self.parts):
            raise ValueError('a reply has at least one frame')
        for frame in frames:
            memoryview(frame)  # a reply that breaks off at one that cannot be sent would spoil the next
        if flags & _SNDMORE:
            self.parts = [*self.parts, *frames]
            return None
        status = stream.send_reply([*self.envelope, *self.parts, *frames], copy, track)
        self.answered = True
        stream.finished(self)
        return status


#: The message that the running code was called for. Callbacks and tasks carry it along.
current: ContextVar[Request | None] = ContextVar('pyams_zmq_request', default=None)


class Threads:
    """Which message a thread was started for, since new threads do not carry :data:`current` along."""

    def __init__(self) -> None:
        self._seen: set[threading.Thread] = set()
        self._last: list[threading.Thread] = []
        self._started_for: WeakKeyDictionary[threading.Thread, Request] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Know the threads that are there: they were not started for any message."""
        with self._lock:
            self._seen = set(threading.enumerate())

    def look(self, request: Request) -> None:
        """Notice which threads are new: they were started for that message."""
        running = threading.enumerate()
        if running != self._last:
            self._last = running
            threads = set(running)
            with self._lock:
                # A thread of a pool may be started for one message and work for another.
                for thread in threads - self._seen - pooled_threads():
                    self._started_for.setdefault(thread, request)
                self._seen = threads

    def claim(self, request: Request | None) -> Request | None:
        """Return the message that the calling thread was started for, the first time it asks.

        Later times it may well be a worker of the user's own, with another message in hand.

        :param request: the message that is being handled; a thread that nobody has seen yet is its own
        :returns: None where it cannot be known
        """
        thread = threading.current_thread()
        with self._lock:
            if thread not in self._seen:
                self._seen.add(thread)
                return self._started_for.pop(thread, request)
            return self._started_for.pop(thread, None)

    def has(self, request: Request) -> bool:
        """Whether a living thread was started for that message, and has not replied yet."""
        with self._lock:
            return any(found is request and thread.is_alive() for thread, found in self._started_for.items())
