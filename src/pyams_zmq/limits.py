"""What a process takes: how much, how long, from how many."""

import resource
import threading
from contextlib import suppress
from typing import Any

import zmq

#: Bytes that a frame may have where nothing else is said, on both sides.
MAX_MESSAGE_SIZE = 128 * 1024 * 1024

# Descriptors that a process asks the system for: each connection takes one, and where none is left 0MQ spends
# all of a processor's time.
_DESCRIPTORS = 65536

# What macOS grants at least, whatever the hard limit is (OPEN_MAX).
_FEWER_DESCRIPTORS = 10240

# Questions for a sign of life in whose time a peer has to give one. 0MQ counts whole messages, and the answer
# waits behind the frame that the peer is sending: one of 128 MiB takes 270 s at 0.5 MB/s. A peer that has
# vanished keeps its descriptor as long.
_SILENT_INTERVALS = 10


class Limits:
    """The limits of a :class:`pyams_zmq.process.ZMQProcess`: class attributes, for :meth:`configure` too."""

    #: Number of threads for the delegate's plain methods; 0 runs them on the loop, one at a time.
    workers: int = 0

    #: Messages that may be handled at once, in threads or by coroutines, before the next has to wait.
    max_in_flight: int = 128

    #: Bytes that a frame may have; a peer that sends a larger one is disconnected. None: any number.
    max_message_size: int | None = MAX_MESSAGE_SIZE

    #: Frames that a message may have, those included that lead its reply back; more are answered with a 413.
    max_frames: int = 256

    #: Messages that may wait in each direction, for each peer: 0MQ's RCVHWM and SNDHWM, and its default.
    high_water_mark: int = 1000

    #: Connections that may wait to be accepted; the system may have a lower limit (net.core.somaxconn).
    backlog: int = 1024

    #: Seconds that a peer has to introduce itself (0MQ's default is 30). None: for ever. Half of what a call
    #: may take, so that callers are served in time where silent peers have used up the descriptors.
    handshake_timeout: float | None = 5.0

    #: Seconds between two signs of life asked of a peer (0MQ asks for none by default), which is disconnected
    #: where it gives none in ten times as many after the first: a sign is a whole message, so this bounds how
    #: long a frame may take. None: TCP alone notices that a peer is gone.
    heartbeat_interval: float | None = 30.0

    #: Seconds after which a handler that returned without a reply has failed; None: never.
    reply_timeout: float | None = 60.0

    #: Seconds that what is under way may take when the process is asked to end.
    stop_timeout: float = 30.0

    def configure(self, **options: Any) -> None:
        """Set attributes before the process is started: ``process.configure(workers=4, max_frames=8)``.

        :param options: public class attributes, by their names
        :raises ValueError: where there is no such attribute, or its value makes no sense; nothing is set then
        """
        for name in options:
            default = getattr(type(self), name, print)
            if name.startswith('_') or callable(default) or isinstance(default, property):
                raise ValueError(f'{name!r} is no option of a process')
        before = dict(vars(self))
        vars(self).update(options)
        try:
            self.check_options()
        except ValueError:
            vars(self).clear()
            vars(self).update(before)
            raise

    def check_options(self) -> None:
        """Refuse what makes no sense.

        :raises ValueError: with the name of the attribute
        """
        self._check_number('workers', 'of threads, 0 for none', least=0)
        self._check_number('max_in_flight', 'of messages above 0')
        self._check_number('max_message_size', 'of bytes above 0, or None', optional=True)
        self._check_number('max_frames', 'of frames above 0')
        self._check_number('high_water_mark', 'of messages above 0')
        self._check_number('backlog', 'of connections above 0')
        self._check_seconds('handshake_timeout', optional=True)
        self._check_seconds('heartbeat_interval', optional=True)
        self._check_seconds('reply_timeout', optional=True)
        self._check_seconds('stop_timeout')

    def _check_number(self, name: str, what: str, *, least: int = 1, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        # 0MQ takes most of them as an int of C, sizes as an int64_t.
        most = 2**63 - 1 if name == 'max_message_size' else 2**31 - 1
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f'{name} is a number {what}, not {value!r}')

    def _check_seconds(self, name: str, *, optional: bool = False) -> None:
        seconds = getattr(self, name)
        if seconds is None and optional:
            return
        if type(seconds) not in (int, float) or not 0 < seconds < threading.TIMEOUT_MAX:
            raise ValueError(f'{name} is a number of seconds above 0, not {seconds!r}')

    def limit_socket(self, socket: 'zmq.Socket[Any]') -> None:
        """Set the limits that 0MQ keeps; to be called before the socket is bound or connected."""
        socket.set_hwm(self.high_water_mark)
        socket.backlog = self.backlog
        socket.maxmsgsize = -1 if self.max_message_size is None else self.max_message_size
        socket.handshake_ivl = _milliseconds(self.handshake_timeout)
        socket.heartbeat_ivl = _milliseconds(self.heartbeat_interval)
        # By default as long as the interval.
        socket.heartbeat_timeout = min(_SILENT_INTERVALS * socket.heartbeat_ivl, 2**31 - 1)


def _milliseconds(seconds: float | None) -> int:
    # 0 switches either off. Heartbeats travel as tenths of seconds in 16 bits (RFC 37/ZMTP), the other is an
    # int of C; both are at least what was asked for.
    return 0 if seconds is None else max(1, min(int(seconds * 1000), 2**31 - 1))


def raise_descriptor_limit() -> None:
    """Let the calling process have more descriptors, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in _DESCRIPTORS, _FEWER_DESCRIPTORS:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        # A system that refuses even so keeps its own: a process with fewer connections is better than none.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
