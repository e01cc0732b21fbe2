"""The caller's side of jobs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ..wire import Reply
from .ids import new_id

#: Seconds between two looks at a job that is waited for: at first, and at most.
_FIRST_LOOK = 0.02
_LAST_LOOK = 0.5

#: Seconds between two attempts to reach a process that is away.
_PAUSE = 0.1

#: Seconds that one question of a wait may take; then it is asked again.
_PATIENCE = 5.0

#: Statuses that waiting does not change.
_REFUSALS = frozenset({400, 401, 403, 404})


class JobCalls(ABC):
    """What whoever can ``call`` a process can do with its jobs."""

    @abstractmethod
    def call(self, message_type: str, data: Any = None, *, timeout: float | None = None) -> Reply:
        """Send a message and wait for the reply."""

    def submit(
        self,
        job_type: str,
        data: Any = None,
        id: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Reply:
        """Submit a job.

        :param job_type: name of the delegate's method
        :param data: anything that JSON can hold
        :param id: 1 to 128 visible ASCII characters; a job that is known by it already is not made again.
            None: the job gets one
        :param timeout: seconds; None: the client's own
        :returns: 202 and ``{'job': id, 'state': …}`` once the job is written down, and will run; 200 where
            a job with that id and content has ended already; 409 where the id belongs to something else;
            429 where too many are waiting; 503 and 507 where it cannot be written down; and as ``call``
        """
        job = new_id() if id is None else id
        return self.call('_submit', {'type': job_type, 'data': data, 'id': job}, timeout=timeout)

    def job(self, id: str, *, timeout: float | None = None) -> Reply:
        """Ask for a job.

        :returns: 200 and what is known of it, 404 where nothing is
        """
        return self.call('_job', id, timeout=timeout)

    def jobs(
        self,
        state: str | None = None,
        limit: int = 100,
        before: int | None = None,
        *,
        timeout: float | None = None,
    ) -> Reply:
        """List jobs, the newest first.

        :param state: ``'queued'``, ``'running'``, ``'done'``, ``'failed'`` or ``'cancelled'``; None: all
        :param limit: how many at most, up to 1,000
        :param before: what the last list told as its ``next``
        :returns: 200 and ``{'jobs': […], 'next': …, 'counts': {…}}``
        """
        return self.call('_jobs', {'state': state, 'limit': limit, 'before': before}, timeout=timeout)

    def cancel(self, id: str, *, timeout: float | None = None) -> Reply:
        """Cancel a job.

        :returns: 200 where it will not run, 202 where it runs and was told, 404 where it is not known, 409
            where it has ended
        """
        return self.call('_cancel', id, timeout=timeout)

    def retry(self, id: str, *, timeout: float | None = None) -> Reply:
        """Let a job that failed or was cancelled run again.

        :returns: 202, also where it waits or runs already; 404 where it is not known; 409 where it is done;
            429 where too many are waiting
        """
        return self.call('_retry', id, timeout=timeout)

    def wait(
        self,
        id: str,
        timeout: float | None = None,
        on_progress: Callable[[dict[str, Any]], Any] | None = None,
    ) -> Reply:
        """Wait until a job has ended, even while its process is away for a time.

        :param timeout: seconds; None: for ever
        :param on_progress: called with what is known of the job, whenever that has changed
        :returns: what the method returned or raised, as a call would have; 410 where it was cancelled; or the
            reply which tells that there is no such job, or that the process refuses this caller
        :raises TimeoutError: where it has not ended in time
        :raises ValueError: where what the process tells of the job makes no sense
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, last = _FIRST_LOOK, None
        while True:
            reply = self.job(id, timeout=_remaining(deadline))
            outcome = ending(id, reply)
            if reply.ok and reply.body != last:
                last = reply.body
                if on_progress is not None:
                    on_progress(last)
            if outcome is not None:
                return outcome
            if deadline is not None and time.monotonic() + pause >= deadline:
                raise TimeoutError(f'the job {id} has not ended within {timeout} s')
            time.sleep(pause if reply.ok else max(pause, _PAUSE))
            pause = min(pause * 1.5, _LAST_LOOK)


def ending(id: str, reply: Reply) -> Reply | None:
    """Tell how a job has ended.

    :param reply: that to ``_job``
    :returns: what :meth:`JobCalls.wait` returns; None where the job has not ended, or its process is away
    :raises ValueError: where the reply makes no sense
    """
    if reply.status in _REFUSALS:
        return reply
    if not reply.ok:
        return None
    job = reply.body if isinstance(reply.body, dict) else {}
    state, status = job.get('state'), job.get('status')
    if state == 'cancelled':
        return Reply(410, f'The job {id} was cancelled')
    if state in ('done', 'failed') and type(status) is int:
        return Reply(status, job.get('body'))
    if state in ('queued', 'running'):
        return None
    raise ValueError(f'What the process tells of the job {id} makes no sense')


def _remaining(deadline: float | None) -> float:
    """Seconds that one question may take: no more than a part, since its connection may have gone silent."""
    return _PATIENCE if deadline is None else min(max(0.001, deadline - time.monotonic()), _PATIENCE)
