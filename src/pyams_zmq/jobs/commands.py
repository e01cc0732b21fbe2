"""The messages that jobs come with: ``_submit``, ``_job``, ``_jobs``, ``_cancel`` and ``_retry``."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..exceptions import ReplyError
from ..figures import STATES
from ..wire import encode
from .ids import check_id, new_id
from .runner import Runner

#: Jobs that a list has by default, and at most.
_LIMIT = 100
_MAX_LIMIT = 1000

Command = Callable[[Runner, list[Any], int], Awaitable[Any]]


def accept(jobs: Runner, job_type: str, frames: Sequence[Any], job: str) -> Awaitable[Any]:
    """Write a message down as a job.

    :param frames: those of the message
    :param job: the job's id
    :returns: the reply
    """
    return jobs.accept(job, job_type, [bytes(frame) for frame in frames], len(frames))


def _submit(jobs: Runner, arguments: list[Any], index: int) -> Awaitable[Any]:
    data = arguments[index]
    if not isinstance(data, dict) or not {'type'} <= data.keys() <= {'type', 'data', 'id'}:
        raise ReplyError(400, '_submit takes {"type": …, "data": …, "id": …}, the latter two as you like')
    job_type, job = data['type'], data.get('id')
    if not isinstance(job_type, str) or job_type not in jobs.types:
        raise ReplyError(404, f'No such job type: {job_type!r}')
    frames = list(arguments)
    frames[index] = encode([job_type, data.get('data')])
    return accept(jobs, job_type, frames, new_id() if job is None else check_id(job))


async def _job(jobs: Runner, arguments: list[Any], index: int) -> Any:
    job = check_id(arguments[index])
    return [200, jobs.with_progress(await jobs.journal.do(lambda store: store.read(job)))]


async def _jobs(jobs: Runner, arguments: list[Any], index: int) -> Any:
    wanted = {} if arguments[index] is None else arguments[index]
    if not isinstance(wanted, dict) or not wanted.keys() <= {'state', 'limit', 'before'}:
        raise ReplyError(400, '_jobs takes {"state": …, "limit": …, "before": …}, each as you like, or null')
    state, limit, before = wanted.get('state'), wanted.get('limit', _LIMIT), wanted.get('before')
    if state is not None and state not in STATES:
        raise ReplyError(400, f'state is one of {", ".join(STATES)}, not {state!r}')
    if type(limit) is not int or not 0 < limit <= _MAX_LIMIT:
        raise ReplyError(400, f'limit is a number from 1 to {_MAX_LIMIT}, not {limit!r}')
    if before is not None and (type(before) is not int or not 0 <= before < 2**63):
        raise ReplyError(400, f'before is what the last list told as its next, not {before!r}')
    found, following = await jobs.journal.do(
        lambda store: store.list(STATES if state is None else (state,), before, limit)
    )
    found = [jobs.with_progress(record) for record in found]
    return [200, {'jobs': found, 'next': following, 'counts': jobs.status()}]


async def _cancel(jobs: Runner, arguments: list[Any], index: int) -> Any:
    return await jobs.cancel(check_id(arguments[index]))


async def _retry(jobs: Runner, arguments: list[Any], index: int) -> Any:
    return await jobs.retry(check_id(arguments[index]))


#: The commands by their types.
COMMANDS: dict[str, Command] = {
    '_submit': _submit,
    '_job': _job,
    '_jobs': _jobs,
    '_cancel': _cancel,
    '_retry': _retry,
}
