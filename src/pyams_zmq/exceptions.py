"""The exceptions of the package, and the exit codes of its processes."""

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What the exit code of a process tells."""

    #: It ended because it was asked to (``stop()``, SIGTERM, SIGINT), with all its work done.
    OK = 0
    #: An exception that nobody caught; its traceback is on the standard error.
    ERROR = 1
    #: The command line or a setting makes no sense, of ``pyams_zmq run``.
    USAGE = 2
    #: The address could not be bound.
    ADDRESS = 3
    #: The application could not be built, or the delegate's constructor, ``setup()``, ``init_stream()`` or a
    #: subscriber of the started event raised.
    SETUP = 4
    #: It was asked to end, and what was under way took longer than ``stop_timeout``.
    STOP_TIMEOUT = 5
    #: Another process of this name runs already.
    RUNNING = 6


class ReplyError(Exception):
    """A reply that is no success.

    A delegate raises it to choose what the client gets; :meth:`pyams_zmq.client.Reply.raise_for_status`
    raises it on the client's side.

    :param status: a number with the meaning that HTTP gives it
    :param body: anything that JSON can hold
    """

    def __init__(self, status: int, body: Any = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body

    def __str__(self) -> str:
        return f'{self.status} {self.body}'


class AddressError(OSError):
    """An address that cannot be bound; the text tells which one and why."""


class SettingError(ValueError):
    """A setting that makes no sense; the text tells which one, why, and what does."""


class NoTransactionError(RuntimeError):
    """Something was to be done when the transaction commits, and there is none; the text tells what to do."""


class ProcessStartError(RuntimeError):
    """A process that ended before it was ready.

    :param reason: why, in the child's own words where it could still tell
    :param exitcode: as :attr:`multiprocessing.Process.exitcode`; None where the process has not ended yet
    """

    def __init__(self, reason: str, exitcode: int | None = None) -> None:
        super().__init__(reason, exitcode)
        self.reason = reason
        self.exitcode = exitcode

    def __str__(self) -> str:
        return f'{self.reason} (exit code {self.exitcode})'
