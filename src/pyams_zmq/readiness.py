"""How a process tells its parent that it is ready, or why it will never be."""

import json
import multiprocessing
import threading
import time
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from .exceptions import ProcessStartError

#: Seconds between two looks at a process whose pipes another child of the same parent may hold open.
_CHECK = 1.0
#: Seconds that a process which reported a failure has to end.
_LAST_WORDS = 5.0


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
            self._writer.send_bytes(json.dumps([endpoint, reason]).encode())
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
        with self._lock:
            if self._endpoint is None and self._error is None:
                self._receive(process, time.monotonic() + timeout)
            if self._error is not None:
                raise self._error
            if self._endpoint is None:
                raise TimeoutError(f'{process.name} was not ready within {timeout} s')
            return self._endpoint

    def _receive(self, process: BaseProcess, deadline: float) -> None:
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            connection.wait([self._reader, process.sentinel], min(_CHECK, remaining))
            ended = process.exitcode is not None
            if self._reader.poll():
                break
            if ended:
                self._fail(process, 'the process ended before it was ready; its log tells more')
                return
            if time.monotonic() >= deadline:
                return
        try:
            self._endpoint, reason = json.loads(self._reader.recv_bytes())
        except EOFError:
            reason = 'the process ended before it was ready; its log tells more'
        if self._endpoint is None:
            self._fail(process, reason)
        self._reader.close()

    def _fail(self, process: BaseProcess, reason: str) -> None:
        process.join(_LAST_WORDS)
        self._error = ProcessStartError(reason, process.exitcode)
