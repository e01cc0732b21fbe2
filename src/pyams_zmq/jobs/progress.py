"""What a running job says, and is told."""

import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

#: Characters of a message that are kept.
_MESSAGE_LENGTH = 500


class JobCancelled(Exception):
    """The job is not wanted any more; raised by :meth:`Progress.check`."""


class Report(NamedTuple):
    """How far a job is."""

    done: float
    total: float | None
    message: str


class Progress:
    """What a job gets as its keyword ``progress``.

    Call it to tell how far the job is; each call replaces what the last one told.

    :param job: id of the job
    :param job_type: its type, which the logger is named after
    :param attempt: number of the attempt, from 1
    :param report: called with each ``Report``
    :param cancelled: tells whether the job is not wanted any more
    """

    def __init__(
        self,
        job: str,
        job_type: str,
        attempt: int,
        report: Callable[[Report], Any],
        cancelled: Callable[[], bool],
    ) -> None:
        #: The job's id.
        self.job = job
        #: The number of the attempt, from 1.
        self.attempt = attempt
        #: A logger which tells the job's id with each line.
        self.log = _Log(logging.getLogger(f'pyams_zmq.jobs.{job_type}'), {'job': job})
        self._report = report
        self._cancelled = cancelled

    def __call__(self, done: float, total: float | None = None, message: str = '') -> None:
        """Tell how far the job is.

        :param done: how much is done
        :param total: of how much; None: not known
        :param message: for people
        :raises ValueError: for what is no finite number
        """
        if not all(
            isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
            for value in (done, 0 if total is None else total)
        ):
            raise ValueError(f'progress is told in finite numbers, not {done!r} of {total!r}')
        self._report(Report(done, total, str(message)[:_MESSAGE_LENGTH]))

    @property
    def cancelled(self) -> bool:
        """Whether the job is not wanted any more."""
        return self._cancelled()

    def check(self) -> None:
        """Raise where the job is not wanted any more, which ends it as cancelled.

        :raises JobCancelled: where it is so
        """
        if self.cancelled:
            raise JobCancelled(self.job)


class _Log(logging.LoggerAdapter):  # type: ignore[type-arg]
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        extra = self.extra or {}
        return f'[{extra["job"]}] {msg}', {**kwargs, 'extra': {**extra, **kwargs.get('extra', {})}}
