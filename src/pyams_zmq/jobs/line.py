"""The line between the process and its jobs in other processes of the same machine, whoever made those.

A job calls the process on the loopback interface, and says its ticket, which nobody else knows. Then it
sends a line of JSON for each report; the process sends anything where the job is not wanted any more.
"""

import json
import logging
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from .progress import Report

logger = logging.getLogger(__name__)

#: Seconds that either side has to introduce itself.
_PATIENCE = 10.0

#: Bytes of a line: the longest message, each character of it escaped, and two numbers.
_LONGEST = 16 * 1024


class _Call:
    def __init__(self, report: Callable[[Report], Any]) -> None:
        self.report = report
        self.cancelled = False
        self.connection: socket.socket | None = None


class _Handler(socketserver.StreamRequestHandler):
    timeout = _PATIENCE

    def handle(self) -> None:
        with suppress(OSError):
            ticket = self.rfile.readline(_LONGEST)
            report = cast(Line, self.server).answer(
                ticket.strip().decode('ascii', 'replace'), self.connection
            )
            if report is None:
                return
            self.connection.settimeout(None)
            while line := self.rfile.readline(_LONGEST):
                report(Report(*json.loads(line)))


class Line(socketserver.ThreadingTCPServer):
    """The process's end."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self._lock = threading.Lock()
        self._calls: dict[str, _Call] = {}
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.1,), name='pyams_zmq-line', daemon=True
        )
        self._thread.start()

    def expect(self, report: Callable[[Report], Any]) -> str:
        """Let a job call.

        :param report: called with each report, in a thread of the line
        :returns: its ticket
        """
        ticket = secrets.token_hex(16)
        self._calls[ticket] = _Call(report)
        return ticket

    def answer(self, ticket: str, connection: socket.socket) -> Callable[[Report], Any] | None:
        """Accept a call; returns what is called with its reports, None for one that nobody expects."""
        with self._lock:
            call = self._calls.get(ticket)
            if call is None:
                return None
            call.connection = connection
            if call.cancelled:
                _tell(connection)
            return call.report

    def cancel(self, ticket: str) -> None:
        """Tell a job that it is not wanted any more, now or when it calls."""
        with self._lock:
            call = self._calls.get(ticket)
            if call is not None and not call.cancelled:
                call.cancelled = True
                if call.connection is not None:
                    _tell(call.connection)

    def forget(self, ticket: str) -> None:
        """Expect a job no more."""
        with self._lock:
            self._calls.pop(ticket, None)

    def close(self) -> None:
        """End."""
        self.shutdown()
        self.server_close()


def _tell(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.sendall(b'cancel\n')


@contextmanager
def calling(address: Any, ticket: str) -> Iterator[tuple[Callable[[Report], Any], Callable[[], bool]]]:
    """Be the job's end.

    :returns: what it calls with each report, and what tells whether it is not wanted any more: it was
        cancelled, or the process has ended
    """
    cancelled = threading.Event()
    try:
        connection = socket.create_connection(address, _PATIENCE)
    except OSError as error:
        # It runs nevertheless, since it was accepted.
        logger.warning('The process cannot be told of the progress of a job: %s', error)
        yield lambda _: None, cancelled.is_set
        return

    def listen() -> None:
        with suppress(OSError):
            connection.recv(1)
        cancelled.set()

    def report(told: Report) -> None:
        with suppress(OSError):
            connection.sendall(json.dumps(told).encode() + b'\n')

    with connection:
        connection.settimeout(None)
        connection.sendall(ticket.encode() + b'\n')
        threading.Thread(target=listen, daemon=True).start()
        try:
            yield report, cancelled.is_set
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # which ends the thread, too
