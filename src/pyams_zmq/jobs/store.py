"""The jobs in the journal, as callers see them: accepted, cancelled, tried again."""

import time
from collections.abc import Sequence
from typing import Any

from ..exceptions import ReplyError
from .attempts import Attempts
from .frames import digest, pack

_PENDING = "SELECT sum(jobs) FROM tally WHERE state IN ('queued', 'running')"


class Store(Attempts):
    """All that is done with jobs."""

    def accept(
        self, job: str, job_type: str, frames: Sequence[bytes], keep: float, max_pending: int
    ) -> tuple[int, dict[str, Any]]:
        """Add a job, unless it is known.

        :param keep: seconds that it is known for after its end
        :returns: status and body of the reply
        :raises ReplyError: 409 where the id belongs to something else, 429 where too many are waiting
        """
        content = digest(job_type, frames)
        # In one statement: they are what limits how fast jobs are accepted.
        added = self._execute(
            'INSERT INTO job (id, type, digest, frames, keep, submitted) SELECT ?, ?, ?, ?, ?, ?'
            f' WHERE ({_PENDING}) < ? ON CONFLICT (id) DO NOTHING',
            (job, job_type, content, pack(frames), keep, time.time(), max_pending),
        ).rowcount
        if added:
            return 202, {'job': job, 'state': 'queued'}
        known = self._find(job)
        if known is None:
            self._check_room(max_pending)  # there is none
        if known['digest'] != content:
            raise ReplyError(409, f'The id {job} belongs to a job with another content')
        status = 202 if known['state'] in ('queued', 'running') else 200
        return status, {'job': job, 'state': known['state']}

    def _check_room(self, max_pending: int) -> None:
        (pending,) = self._execute(_PENDING).fetchone()
        if pending >= max_pending:
            raise ReplyError(429, f'{pending} jobs are waiting or running, as many as may be (max_pending)')

    def cancel(self, job: str) -> tuple[int, dict[str, Any]]:
        """Cancel a job, or note that it is not wanted while it runs.

        :returns: status and body of the reply
        :raises ReplyError: 404 where it is not known, 409 where it has ended
        """
        state = self._state(job)
        if state == 'running':
            self._execute('UPDATE job SET cancelling = 1 WHERE id = ?', (job,))
            return 202, {'job': job, 'state': state}
        if state in ('done', 'failed'):
            raise ReplyError(409, f'The job {job} is {state} already')
        if state == 'queued':
            self._execute(
                "UPDATE job SET state = 'cancelled', due = NULL, ended = ?1, expires = ?1 + keep"
                ' WHERE id = ?2',
                (time.time(), job),
            )
        return 200, {'job': job, 'state': 'cancelled'}

    def retry(self, job: str, max_pending: int) -> tuple[int, dict[str, Any]]:
        """Let a job that failed or was cancelled run again.

        :returns: status and body of the reply
        :raises ReplyError: 404 where it is not known, 409 where it is done, 429 where too many are waiting
        """
        state = self._state(job)
        if state == 'done':
            raise ReplyError(409, f'The job {job} is done already')
        if state in ('failed', 'cancelled'):
            self._check_room(max_pending)
            self._execute(
                "UPDATE job SET state = 'queued', failures = 0, interruptions = 0, ended = NULL,"
                ' expires = NULL, status = NULL, body = NULL WHERE id = ?',
                (job,),
            )
            state = 'queued'
        return 202, {'job': job, 'state': state}
