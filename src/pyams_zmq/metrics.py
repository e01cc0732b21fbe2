"""What a process knows of its own work: how long messages took, what failed, what it uses of the machine.

Memory is bounded, and a message costs less than a microsecond.
"""

import os
import resource
import sys
import time
from bisect import bisect_left
from collections import deque
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

#: Upper bounds of the buckets, in seconds: ten in each decade from 10 microseconds on.
BOUNDS = tuple(
    float(f'{step}e{power}') for power in range(-5, 4) for step in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
)

#: Every how manieth of them is told to those who count themselves.
_COARSE = 5

#: Seconds between two states that are kept, and how many are: percentiles are those of the last minutes.
SLICE = 60.0
SLICES = 5

#: Failures that are kept, and how many characters of each.
FAILURES = 20
_TYPE_LENGTH = 100
_ERROR_LENGTH = 500


class Latencies:
    """A histogram of the time from a message's arrival to its reply, with a memory of the last minutes."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0
        self._longest = 0.0
        now = time.perf_counter()
        self._edge = now + SLICE
        # The state at the beginning of each of the last slices of time.
        self._past = deque([(now, tuple(self._counts))], maxlen=SLICES)

    def record(self, began: float) -> None:
        """Count a message that has just been answered.

        :param began: when it arrived, as :func:`time.perf_counter` tells the time
        """
        now = time.perf_counter()
        if now >= self._edge:
            self._roll(now)
        seconds = now - began
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds
        if seconds > self._longest:  # noqa: PLR1730 (max() takes three times as long)
            self._longest = seconds

    def _roll(self, now: float) -> None:
        """Begin a new slice of time, and those that have passed without a message."""
        missed = int((now - self._edge) // SLICE)
        self._edge += SLICE * (missed + 1)
        for ago in reversed(range(min(missed + 1, SLICES))):
            self._past.append((self._edge - SLICE * (ago + 1), tuple(self._counts)))

    def status(self) -> dict[str, Any]:
        """What ``_status`` tells: ``served``, the last minutes' ``latency``, the whole ``histogram``."""
        now = time.perf_counter()
        if now >= self._edge:
            self._roll(now)
        since, before = self._past[0]
        recent = [count - earlier for count, earlier in zip(self._counts, before, strict=True)]
        totals = list(accumulate(self._counts))
        return {
            'served': totals[-1],
            'latency': {
                'window': round(now - since, 3),
                'count': sum(recent),
                **{f'p{percent}': self._percentile(recent, percent) for percent in (50, 90, 99)},
            },
            'histogram': {
                'sum': round(self._sum, 6),
                'buckets': [[BOUNDS[i], totals[i]] for i in range(0, len(BOUNDS), _COARSE)],
            },
        }

    def _percentile(self, counts: list[int], percent: int) -> float | None:
        """Return the seconds that so many percent of the messages did not exceed, 27 % too long at most."""
        if not any(counts):
            return None
        rank = -(-sum(counts) * percent // 100)
        index = bisect_left(list(accumulate(counts)), rank)
        return min((round(self._longest, 6), *BOUNDS[index : index + 1]))


class Failures:
    """The last messages that failed: when, of which type, and why, without their data."""

    def __init__(self) -> None:
        self._last: deque[dict[str, Any]] = deque(maxlen=FAILURES)

    def add(self, message_type: str, error: str) -> None:
        """Keep a failure.

        :param message_type: from the client, so it may be anything
        :param error: as ``'ValueError: …'``
        """
        self._last.append(
            {
                'time': round(time.time(), 3),
                'type': message_type[:_TYPE_LENGTH],
                'error': error[:_ERROR_LENGTH],
            }
        )

    def status(self) -> list[dict[str, Any]]:
        """What ``_status`` tells: the newest first."""
        return list(reversed(self._last))


@cache
def version() -> str:
    """Return the version of pyams_zmq."""
    from importlib import metadata  # noqa: PLC0415 (it takes long to import, and is seldom needed)

    return metadata.version('pyams_zmq')


def resources() -> dict[str, Any]:
    """Return what the process uses: bytes of ``memory``, seconds of ``cpu`` since its start.

    Where the system does not tell how much memory it holds now, it is the most that it has ever held.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    try:
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
        memory = pages * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        memory = usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
    return {'memory': memory, 'cpu': round(usage.ru_utime + usage.ru_stime, 3)}
