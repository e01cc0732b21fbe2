"""One message that is being handled, and its reply; and which message a reply is meant for."""

import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

import zmq

from .logs import Log
from .pools import is_pooled

logger = Log(__name__)

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
    #: Whether a reply was dropped, while it waited, that may have been its own or an older message's.
    mistaken = False
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
            # A reply that breaks off at one that cannot be sent would spoil the next.
            if not memoryview(frame).contiguous:
                raise BufferError('a frame of the reply is not contiguous in memory')
        if flags & _SNDMORE:
            self.parts = [*self.parts, *frames]
            return None
        status = stream.send_reply([*self.envelope, *self.parts, *frames], copy, track)
        self.answered = True
        stream.finished(self)
        return status


#: The message that the running code was called for. Callbacks and tasks carry it along.
current: ContextVar[Request | None] = ContextVar('pyams_zmq_request', default=None)


#: Where a thread keeps the message that it was started for, until it has replied.
_STARTED_FOR = '_pyams_zmq_request'


@cache
def follow_threads() -> None:
    """Let threads that are started from now on know which message they are for.

    Python carries :data:`current` along into threads from 3.14 on, where the interpreter was told to. Nothing
    but their start tells whose they are: that they appeared while a message was handled does not, since what
    an earlier one has begun may go on meanwhile, and start threads too.
    """
    start = threading.Thread.start

    @wraps(start)
    def start_for(thread: threading.Thread) -> None:
        request = current.get() or _of_starter()
        if request is not None:
            vars(thread)[_STARTED_FOR] = request
        start(thread)

    threading.Thread.start = start_for  # type: ignore[assignment, method-assign]


def _of_starter() -> Request | None:
    thread = threading.current_thread()
    request: Request | None = vars(thread).get(_STARTED_FOR)
    # One whose message is answered may be a worker of the user's own, with another message in hand.
    return None if request is None or request.answered or is_pooled(thread) else request


def claim(stream: Any) -> Request | None:
    """Return the message of a stream that the calling thread was started for, the first time it asks.

    Later times it may well be a worker of the user's own, with another message in hand.

    :returns: None where it cannot be known
    """
    thread = threading.current_thread()
    request: Request | None = vars(thread).get(_STARTED_FOR)
    if request is None or request.stream is not stream:
        return None
    del vars(thread)[_STARTED_FOR]
    # A thread of a pool may be started for one message and work for another.
    return None if is_pooled(thread) else request
