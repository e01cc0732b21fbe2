"""The jobs in the journal's database, and what is known of them.

Each method is a part of a transaction; so are those of the modules that build on this one.
"""

import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..exceptions import ReplyError
from ..figures import STATES

#: Ended jobs that are removed at once.
_CHUNK = 1000


class Records:
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
        :raises MemoryError: likewise
        """
        if self._connection.in_transaction:  # the last one, where memory was too short to roll it back
            self._execute('ROLLBACK')
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
        """Remove ended jobs whose time is over, and where they are too many those whose time is over soonest.

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
