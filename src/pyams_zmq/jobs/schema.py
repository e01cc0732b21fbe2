"""The journal's file: its tables, how older ones are brought up to date, and what is no journal."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from ..credentials import check_mode

#: What tells a journal from other databases.
APPLICATION_ID = 0x7A6D716A

#: Seconds that another program may hold the file.
BUSY = 2.0

# A job is ready where it is queued and has no ``due``; else it waits until then, for a retry, or for ever
# (infinity), since the delegate has no job of its type.
_VERSION_1 = """
CREATE TABLE job (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    digest BLOB NOT NULL,
    frames BLOB,
    state TEXT NOT NULL DEFAULT 'queued',
    due REAL,
    cancelling INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    keep REAL NOT NULL,
    submitted REAL NOT NULL,
    started REAL,
    ended REAL,
    expires REAL,
    status INTEGER,
    body TEXT
);
CREATE INDEX job_state ON job (state, seq);
CREATE INDEX job_ready ON job (seq) WHERE state = 'queued' AND due IS NULL;
CREATE INDEX job_due ON job (due) WHERE due IS NOT NULL;
CREATE INDEX job_expires ON job (expires) WHERE expires IS NOT NULL;
CREATE TABLE tally (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tally VALUES ('queued', 0), ('running', 0), ('done', 0), ('failed', 0), ('cancelled', 0);
CREATE TRIGGER job_added AFTER INSERT ON job BEGIN
    UPDATE tally SET jobs = jobs + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER job_removed AFTER DELETE ON job BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER job_moved AFTER UPDATE OF state ON job WHEN OLD.state <> NEW.state BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE state = OLD.state;
    UPDATE tally SET jobs = jobs + 1 WHERE state = NEW.state;
END;
"""

#: What brings a file from each version to the next one; its version is the number of those that it has had.
MIGRATIONS: tuple[str, ...] = (_VERSION_1,)


class JournalError(RuntimeError):
    """A journal that cannot be used; the text tells which one, and why."""


def open_database(path: str, durable: bool) -> sqlite3.Connection:
    """Open a journal's database; it is made where it does not exist, and brought up to date.

    :param path: of the file, or ``':memory:'``
    :param durable: whether what is committed survives a loss of power, and not only the end of the process
    :raises JournalError: where that cannot be done
    :raises SettingError: where others may change the file
    """
    try:
        if path != ':memory:':
            _make_private(path)
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f'the journal {path} cannot be opened: {error}') from None
    try:
        _prepare(connection, path, durable)
    except sqlite3.Error as error:
        connection.close()
        raise JournalError(f'the journal {path} cannot be used: {error}') from None
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: str) -> None:
    """Make the file, which its owner alone may read; SQLite gives those beside it the same mode."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        folder = os.open(Path(path).absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    check_mode(path, Path(path).stat().st_mode, secret=False)
    if not os.access(path, os.R_OK | os.W_OK):  # pragma: no cover (as a user who cannot write it down)
        raise PermissionError(f'it has to be read and written by user {os.geteuid()}')


def _prepare(connection: sqlite3.Connection, path: str, durable: bool) -> None:
    (application,) = connection.execute('PRAGMA application_id').fetchone()
    (version,) = connection.execute('PRAGMA user_version').fetchone()
    (tables,) = connection.execute('SELECT count(*) FROM sqlite_master').fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise JournalError(f'{path} is the database of something else, and no journal: give another path')
    if version > len(MIGRATIONS):
        raise JournalError(
            f'the journal {path} was written by a newer version of pyams_zmq: its schema is {version},'
            f' and this one knows up to {len(MIGRATIONS)}; upgrade pyams_zmq'
        )
    connection.execute('PRAGMA journal_mode = WAL')
    connection.execute(f'PRAGMA synchronous = {"FULL" if durable else "NORMAL"}')
    connection.execute('PRAGMA cache_size = -32768')  # 32 MiB
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(
            f'BEGIN IMMEDIATE; {MIGRATIONS[number]}'
            f'PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number + 1}; COMMIT;'
        )
    # Written to, since a file that can only be read would be noticed with the first job otherwise.
    connection.executescript('BEGIN IMMEDIATE; UPDATE tally SET jobs = jobs; COMMIT;')
