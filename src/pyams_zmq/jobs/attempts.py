"""The attempts at the jobs: begun, ended, interrupted."""

import math
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from ..wire import encode
from .decorator import MAX_DELAY
from .frames import unpack
from .records import Records

#: Interruptions after which a job does not run beside another one with as many.
_TRUSTED = 2


class Claim(NamedTuple):
    """A job that is about to run."""

    seq: int
    id: str
    type: str
    frames: list[bytes]
    attempt: int
    failures: int
    #: How often its process or worker has died before.
    interruptions: int


class Attempts(Records):
    """The jobs, as what runs them sees them."""

    def resume(self, known: Collection[str], limit: int) -> None:
        """Put back what ran when the process died, and what had waited for a method that is there now.

        :param known: the types of jobs that there are
        :param limit: how often a job may be interrupted
        """
        self._drop_unwanted()
        self._fail_interrupted('the process died', limit)
        self._execute("UPDATE job SET state = 'queued' WHERE state = 'running'")
        for job_type in known:
            self._execute('UPDATE job SET due = NULL WHERE due = 9e999 AND type = ?', (job_type,))

    def unknown(self) -> dict[str, int]:
        """Return how many jobs wait for a method that there is none of, by type."""
        return dict(
            self._execute('SELECT type, count(*) FROM job WHERE due = 9e999 GROUP BY type').fetchall()
        )

    def claim(self, number: int, known: Collection[str]) -> tuple[list[Claim], float | None]:
        """Take the jobs that have waited longest; their attempts are counted before they run.

        :param known: the types of jobs that there are; others wait
        :returns: the jobs, and the seconds until the next one may be tried again
        """
        now = time.time()
        # A clock that was set back must not keep a job waiting for longer than a retry ever would.
        for due, bound in ('due <= ?', now), ('due > ? AND due < 9e999', now + MAX_DELAY):
            self._execute(
                f"UPDATE job INDEXED BY job_due SET due = NULL WHERE state = 'queued' AND {due}",  # noqa: S608
                (bound,),
            )
        while True:
            rows = self._next(number)
            unknown = {row['type'] for row in rows}.difference(known)
            for job_type in unknown:
                self._execute(
                    "UPDATE job SET due = 9e999 WHERE state = 'queued' AND due IS NULL AND type = ?",
                    (job_type,),
                )
            if not unknown:
                break
        for row in rows:
            self._execute(
                "UPDATE job SET state = 'running', attempts = attempts + 1, started = ?, status = NULL,"
                ' body = NULL, interruptions = interruptions + 1 WHERE seq = ?',
                (now, row['seq']),
            )
        (due,) = self._execute('SELECT min(due) FROM job WHERE due IS NOT NULL').fetchone()
        claims = [
            Claim(seq, job, job_type, unpack(frames), attempts + 1, *counts)
            for seq, job, job_type, frames, attempts, *counts in rows
        ]
        return claims, None if due is None or math.isinf(due) else max(0.0, due - now)

    def _next(self, number: int) -> list[Any]:
        """Return the jobs that are next, at most one of those that have been interrupted too often.

        One of them may be what brings the process down; it would take the others along again and again.
        """
        columns = 'SELECT seq, id, type, frames, attempts, failures, interruptions FROM job'
        ready = f"{columns} INDEXED BY job_ready WHERE state = 'queued' AND due IS NULL"
        rows = self._execute(f'{ready} ORDER BY seq LIMIT ?', (number,)).fetchall()
        if all(row['interruptions'] < _TRUSTED for row in rows):
            return rows
        # Those that run count the attempt itself as well.
        (busy,) = self._execute(
            "SELECT count(*) FROM job INDEXED BY job_state WHERE state = 'running' AND interruptions > ?",
            (_TRUSTED,),
        ).fetchone()
        suspects = [row['seq'] for row in rows if row['interruptions'] >= _TRUSTED]
        chosen = -1 if busy else suspects[0]
        return self._execute(
            f'{ready} AND (interruptions < ? OR seq = ?) ORDER BY seq LIMIT ?', (_TRUSTED, chosen, number)
        ).fetchall()

    def end(self, seq: int, state: str, status: int | None, body: str | None) -> None:
        """Record the end of a job that ran.

        :param state: ``'done'``, ``'failed'`` or ``'cancelled'``
        :param body: JSON
        """
        self._execute(
            'UPDATE job SET state = ?1, status = ?2, body = ?3, ended = ?4, expires = ?4 + keep,'
            ' cancelling = 0, interruptions = max(interruptions - 1, 0),'
            " frames = CASE ?1 WHEN 'done' THEN NULL ELSE frames END WHERE seq = ?5",
            (state, status, body, time.time(), seq),
        )

    def put_back(self, seq: int, status: int, body: str, delay: float) -> None:
        """Let a job that failed wait for its next attempt.

        :param body: why, JSON
        :param delay: seconds
        """
        self._drop_unwanted(seq)
        self._execute(
            "UPDATE job SET state = 'queued', due = ?, failures = failures + 1, status = ?, body = ?,"
            " interruptions = max(interruptions - 1, 0) WHERE seq = ? AND state = 'running'",
            (time.time() + delay, status, body, seq),
        )

    def interrupt(self, seq: int, reason: str, limit: int, delay: float) -> None:
        """Let a job wait whose worker died, or fail it where that has happened too often.

        :param limit: how often it may happen
        :param delay: seconds
        """
        self._drop_unwanted(seq)
        self._fail_interrupted(reason, limit, seq)
        self._wait(seq, delay)

    def postpone(self, seq: int, delay: float) -> None:
        """Let a job wait that could not be run, which is not its fault.

        :param delay: seconds
        """
        self._drop_unwanted(seq)
        self.excuse(seq)
        self._wait(seq, delay)

    def _wait(self, seq: int, delay: float) -> None:
        self._execute(
            "UPDATE job SET state = 'queued', due = ? WHERE seq = ? AND state = 'running'",
            (time.time() + delay, seq),
        )

    def _drop_unwanted(self, seq: int | None = None) -> None:
        """Let the running jobs, or one of them, end as cancelled where that was asked for."""
        self._execute(
            "UPDATE job SET state = 'cancelled', cancelling = 0, ended = ?1, expires = ?1 + keep"
            " WHERE state = 'running' AND cancelling AND (?2 IS NULL OR seq = ?2)",
            (time.time(), seq),
        )

    def _fail_interrupted(self, reason: str, limit: int, seq: int | None = None) -> None:
        body = encode(f'Interrupted {limit} times: {reason} while it ran').decode()
        self._execute(
            "UPDATE job SET state = 'failed', status = 500, body = ?1, ended = ?2, expires = ?2 + keep"
            " WHERE state = 'running' AND interruptions >= ?3 AND (?4 IS NULL OR seq = ?4)",
            (body, time.time(), limit, seq),
        )

    def excuse(self, seq: int | None = None) -> None:
        """Do not blame the running jobs, or one of them, for the end of what runs them."""
        self._execute(
            'UPDATE job SET interruptions = max(interruptions - 1, 0)'
            " WHERE state = 'running' AND (?1 IS NULL OR seq = ?1)",
            (seq,),
        )
