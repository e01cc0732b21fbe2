"""The jobs in the journal's database, and what happens to them: each method is a part of a transaction."""

import hashlib
import json
import math
import sqlite3
import struct
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..exceptions import ReplyError
from ..wire import encode
from .decorator import MAX_DELAY

#: The states of a job, in the order of its life.
STATES = ('queued', 'running', 'done', 'failed', 'cancelled')

_PENDING = "SELECT sum(jobs) FROM tally WHERE state IN ('queued', 'running')"

#: Ended jobs that are removed at once.
_CHUNK = 1000


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


class Store:
    """The jobs in a database.

    :param connection: as :func:`pyams_zmq.jobs.schema.open_database` gives it
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        self._connection = connection
        self._execute = connection.execute

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what follows as a whole or not at all.

        :raises sqlite3.Error: where it could not be done
        """
        self._execute('BEGIN IMMEDIATE')
        try:
            yield
            self._execute('COMMIT')
        except BaseException:
            if self._connection.in_transaction:
                self._execute('ROLLBACK')
            raise

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are in each state."""
        found = dict(self._execute('SELECT state, jobs FROM tally').fetchall())
        return {state: found[state] for state in STATES}

    # The life of a job

    def accept(
        self, job: str, job_type: str, frames: Sequence[bytes], keep: float, max_pending: int
    ) -> tuple[int, dict[str, Any]]:
        """Add a job, unless it is known.

        :param keep: seconds that it is known for after its end
        :returns: status and body of the reply
        :raises ReplyError: 409 where the id belongs to something else, 429 where too many are waiting
        """
        digest = _digest(job_type, frames)
        # In one statement: they are what limits how fast jobs are accepted.
        added = self._execute(
            'INSERT INTO job (id, type, digest, frames, keep, submitted) SELECT ?, ?, ?, ?, ?, ?'
            f' WHERE ({_PENDING}) < ? ON CONFLICT (id) DO NOTHING',
            (job, job_type, digest, _pack(frames), keep, time.time(), max_pending),
        ).rowcount
        if added:
            return 202, {'job': job, 'state': 'queued'}
        known = self._find(job)
        if known is None:
            self._check_room(max_pending)  # there is none
        if known['digest'] != digest:
            raise ReplyError(409, f'The id {job} belongs to a job with another content')
        status = 202 if known['state'] in ('queued', 'running') else 200
        return status, {'job': job, 'state': known['state']}

    def _check_room(self, max_pending: int) -> None:
        (pending,) = self._execute(_PENDING).fetchone()
        if pending >= max_pending:
            raise ReplyError(429, f'{pending} jobs are waiting or running, as many as may be (max_pending)')

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
            rows = self._execute(
                'SELECT seq, id, type, frames, attempts, failures, interruptions FROM job'
                ' INDEXED BY job_ready'
                " WHERE state = 'queued' AND due IS NULL ORDER BY seq LIMIT ?",
                (number,),
            ).fetchall()
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
            Claim(seq, job, job_type, _unpack(frames), attempts + 1, *counts)
            for seq, job, job_type, frames, attempts, *counts in rows
        ]
        return claims, None if due is None or math.isinf(due) else max(0.0, due - now)

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

    # What callers ask for

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

    def read(self, job: str) -> dict[str, Any]:
        """Return what is known of a job, its result included.

        :raises ReplyError: 404 where nothing is
        """
        row = self._find(job)
        if row is None:
            raise _no_such(job)
        return {**_record(row), 'body': None if row['body'] is None else json.loads(row['body'])}

    def list(
        self, states: Sequence[str], before: int | None, limit: int
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return jobs, the newest first.

        :param states: those that are wanted
        :param before: where the last list ended; None to begin with the newest
        :param limit: how many at most
        :returns: the jobs without their results, and where the list ended if there may be more
        """
        rows: list[sqlite3.Row] = []
        for state in states:
            rows += self._execute(
                'SELECT seq, id, type, state, due, cancelling, attempts, submitted, started, ended, status,'
                " CASE state WHEN 'done' THEN NULL ELSE substr(body, 1, 1000) END AS body"
                ' FROM job INDEXED BY job_state WHERE state = ? AND seq < ? ORDER BY seq DESC LIMIT ?',
                (state, 2**62 if before is None else before, limit),
            ).fetchall()
        rows = sorted(rows, key=lambda row: -row['seq'])[:limit]
        jobs = [{**_record(row), 'error': _short(row['body'])} for row in rows]
        return jobs, rows[-1]['seq'] if len(rows) == limit else None

    def remove_expired(self, max_kept: int) -> bool:
        """Remove ended jobs whose time is over, and the oldest of those that are too many.

        :returns: whether there may be more of them
        """
        counts = self.counts()
        surplus = counts['done'] + counts['failed'] + counts['cancelled'] - max_kept
        removed = self._execute(
            'DELETE FROM job WHERE seq IN (SELECT seq FROM job INDEXED BY job_expires'
            ' WHERE expires IS NOT NULL AND expires <= ? ORDER BY expires LIMIT ?)',
            (math.inf, min(surplus, _CHUNK)) if surplus > 0 else (time.time(), _CHUNK),
        ).rowcount
        return removed > 0

    def _find(self, job: str) -> Any:
        return self._execute(
            'SELECT id, type, digest, state, due, cancelling, attempts, submitted, started, ended, status,'
            ' body FROM job WHERE id = ?',
            (job,),
        ).fetchone()

    def _state(self, job: str) -> str:
        row = self._find(job)
        if row is None:
            raise _no_such(job)
        return str(row['state'])


def _no_such(job: str) -> ReplyError:
    return ReplyError(404, f'No such job: {job}')


def _record(row: sqlite3.Row) -> dict[str, Any]:
    """What callers are told of a job; times are seconds since 1970."""
    due = row['due']
    return {
        'job': row['id'],
        'type': row['type'],
        'state': row['state'],
        'attempts': row['attempts'],
        'submitted': row['submitted'],
        'started': row['started'],
        'ended': row['ended'],
        'status': row['status'],
        'retry_at': None if due is None or math.isinf(due) else due,
        'unknown': due is not None and math.isinf(due),
        'cancelling': bool(row['cancelling']),
    }


def _short(body: str | None) -> str | None:
    """Return the reason of a failure as text, of which a list has the beginning only."""
    if body is None:
        return None
    try:
        reason = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return reason if isinstance(reason, str) else body


def _digest(job_type: str, frames: Sequence[bytes]) -> bytes:
    content = hashlib.sha256(encode(job_type))
    for frame in frames:
        content.update(struct.pack('>Q', len(frame)))
        content.update(frame)
    return content.digest()


def _pack(frames: Sequence[bytes]) -> bytes:
    return b''.join([struct.pack(f'>I{len(frames)}Q', len(frames), *map(len, frames)), *frames])


def _unpack(packed: bytes) -> list[bytes]:
    (number,) = struct.unpack_from('>I', packed)
    lengths = struct.unpack_from(f'>{number}Q', packed, 4)
    frames, start = [], 4 + 8 * number
    for length in lengths:
        frames.append(packed[start : start + length])
        start += length
    return frames
