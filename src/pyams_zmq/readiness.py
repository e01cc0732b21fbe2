"""How a process tells its parent that it is ready, or why it will never be."""

import json
import multiprocessing
import threading
import time
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from .exceptions import ProcessStartError

#: Seconds between two looks at a process whose pipes another process may hold open.
_CHECK = 0.5
_TURN = 0.1
#: Seconds that a process which reported a failure has to end.
_LAST_WORDS = 5.0
#: Characters of a reason that are told: the pipe has to hold it, since a parent may never read it.
_LONGEST = 2000


class Readiness:
    """A one-way pipe with one message: the endpoint, or the reason why there is none."""

    def __init__(self) -> None:
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()
        self._endpoint: str | None = None
        self._error: ProcessStartError | None = None

    # A process started by spawn or forkserver gets the end to write to, and nothing else.

    def __getstate__(self) -> connection.Connection:
        return self._writer

    def __setstate__(self, writer: connection.Connection) -> None:
        self._writer = writer

    def started(self) -> None:
        """In the parent: the child has its copy of the end to write to."""
        self._writer.close()

    def report(self, endpoint: str | None, reason: str = '') -> None:
        """In the child: tell that it is ready at an endpoint, or for what reason it is not."""
        try:
            self._writer.send_bytes(json.dumps([endpoint, reason[:_LONGEST]]).encode())
        except OSError:
            return  # the parent is gone, or does not care
        finally:
            self._writer.close()

    def wait(self, process: BaseProcess, timeout: float) -> str:
        """In the parent: wait for the child's message.

        :param timeout: seconds
        :returns: the endpoint
        :raises ProcessStartError: where the child has ended, or is about to
        :raises TimeoutError: where neither happened in time
        """
        deadline = time.monotonic() + timeout
        while self._endpoint is None and self._error is None:
            # One thread at a time waits at the pipe, in short turns, since others may be more in a hurry.
            if self._lock.acquire(timeout=max(0.0, min(_CHECK, deadline - time.monotonic()))):
                try:
                    self._receive(process, min(deadline, time.monotonic() + _CHECK))
                finally:
                    self._lock.release()
            if self._endpoint is None and self._error is None and time.monotonic() >= deadline:
                raise TimeoutError(f'{process.name} was not ready within {timeout} s')
        if self._error is not None:
            raise self._error
        return self._endpoint  # type: ignore[return-value]

    def _receive(self, process: BaseProcess, deadline: float) -> None:
        if self._endpoint is not None or self._error is not None:
            return  # another thread was faster
        connection.wait([self._reader, process.sentinel], max(0.0, deadline - time.monotonic()))
        ended = process.exitcode is not None
        endpoint, reason = None, 'the process ended before it was ready; its log tells more'
        if self._reader.poll():
            with suppress(EOFError):
                endpoint, reason = json.loads(self._reader.recv_bytes())
        elif not ended:
            return
        self._reader.close()
        if endpoint is None:
            join(process, _LAST_WORDS)
            self._error = ProcessStartError(reason, process.exitcode)
        self._endpoint = endpoint


def join(process: BaseProcess, timeout: float) -> None:
    """Wait for the end of a process.

    As its own ``join``, which however waits the whole time where a process forked by that one lives on.

    :param timeout: seconds
    """
    deadline = time.monotonic() + timeout
    while process.exitcode is None and (remaining := deadline - time.monotonic()) > 0:
        process.join(min(_TURN, remaining))
