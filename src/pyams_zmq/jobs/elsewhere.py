"""A job on its way to where it runs, outside the process and by somebody else's means."""

import pickle
from collections.abc import Callable
from typing import Any

from ..metrics import version
from ..wire import encode, error_text
from .progress import Progress, Report
from .work import Outcome, Task, perform


def pack(task: Task) -> bytes:
    """Pack a job; bytes, since what carries them may end where it cannot import what a job needs."""
    return pickle.dumps((version(), pickle.dumps(task)))


def perform_packed(packed: bytes, report: Callable[[Report], Any], cancelled: Callable[[], bool]) -> Outcome:
    """Run a job that was packed.

    :param report: called with what it tells of its progress
    :param cancelled: tells whether it is not wanted any more
    """
    sender, content = pickle.loads(packed)  # noqa: S301 (the process's own)
    try:
        task: Task = pickle.loads(content)  # noqa: S301
    except Exception as error:
        reason = f'The job cannot be loaded where it is to run: {error_text(error)}'
        if version() != sender:
            reason += f' (pyams_zmq is {version()} there, and {sender} in the process)'
        return Outcome(500, encode(reason).decode())
    return perform(task, Progress(task.id, task.type, task.attempt, report, cancelled))
