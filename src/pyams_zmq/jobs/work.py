"""One job at work, in whichever thread, process or machine that is."""

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..exceptions import ReplyError
from ..fork import end_copy
from ..wire import decode_message, encode, error_text, split_reply
from .decorator import job_options
from .progress import JobCancelled, Progress

logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """What it takes to run a job once; pickles where the delegate does."""

    id: str
    type: str
    #: Number of the attempt, from 1.
    attempt: int
    #: The frames of the message.
    frames: list[bytes]
    #: Which of them is the JSON.
    json_load: int
    #: Called for the delegate: outside the process its class, so that each job has a fresh one.
    delegate: Callable[[], Any]


class Outcome(NamedTuple):
    """How an attempt ended."""

    #: As in a reply; None where the job was cancelled.
    status: int | None
    #: JSON.
    body: str | None


class JobEnded(SystemExit):
    """Raised in a job that is ended by force, so that it cleans up after itself."""


CANCELLED = Outcome(None, None)


def perform(task: Task, progress: Progress) -> Outcome:
    """Run a job; what it raises is its outcome."""
    pid = os.getpid()
    try:
        delegate = task.delegate()
        method = getattr(delegate, task.type)
        arguments: list[Any] = list(task.frames)
        _, arguments[task.json_load] = decode_message(task.frames[task.json_load])
        options = job_options(method)
        takes_progress = options is not None and options.takes_progress
        result = method(*arguments, **({'progress': progress} if takes_progress else {}))
        if inspect.isawaitable(result):
            result = asyncio.run(_await(result))
        status, body = split_reply(result)
        if not 100 <= status <= 599:
            status, body = 200, result
        return Outcome(status, encode(body).decode())
    except JobEnded:
        raise
    except BaseException as error:
        end_copy(pid, error)
        return _failure(task, error)
    finally:
        end_copy(pid)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _failure(task: Task, error: BaseException) -> Outcome:
    if isinstance(error, JobCancelled):
        return CANCELLED
    if isinstance(error, ReplyError):
        try:
            return Outcome(error.status, encode(error.body).decode())
        except Exception as unfit:
            error = unfit
    logger.error('The job %s (%s) raised', task.id, task.type, exc_info=error)
    return Outcome(500, encode(error_text(error)).decode())
