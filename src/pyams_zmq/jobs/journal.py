"""The journal: the thread that writes the jobs down, many with one commit."""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..exceptions import ReplyError
from ..locks import FileLock
from .schema import JournalError, open_database
from .store import Store

logger = logging.getLogger(__name__)

#: Seconds before the journal's thread goes on after what should not happen.
_PAUSE = 1.0

Result = TypeVar('Result')

_Step = tuple[Callable[[Store], Any], 'asyncio.Future[Any]']
_Outcome = tuple['asyncio.Future[Any]', Any, Exception | None]


class JournalFault(ReplyError):
    """What could not be written down, as a reply: 413, 503 or 507.

    :param error: SQLite's, or what else was in the way
    """

    def __init__(self, error: Exception) -> None:
        #: Whether it may work another time.
        self.passes = not isinstance(
            error, (sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.IntegrityError)
        )
        # Python 3.10 has no name for the error's number.
        status = 413 if not self.passes else 507 if 'full' in str(error) else 503
        super().__init__(status, f'The journal cannot be written: {str(error) or type(error).__name__}')


class Journal:
    """The jobs of one process, on disk.

    Whatever arrives in one turn of the loop, or while a commit is under way, shares the next commit.

    :param path: of the file, or ``':memory:'``
    :param durable: whether a commit survives a loss of power
    :raises JournalError: where the file cannot be used
    """

    def __init__(self, path: str, durable: bool = True) -> None:
        self._lock = None if path == ':memory:' else _lock(path)
        try:
            self._store = Store(open_database(path, durable))
        except BaseException:
            self._unlock()
            raise
        #: How many jobs there are in each state.
        self.counts = self._store.counts()
        self._batch: list[_Step] = []
        self._queue: queue.SimpleQueue[list[_Step] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name='pyams_zmq-journal', daemon=True)
        self._thread.start()

    def do(self, operation: Callable[[Store], Result]) -> 'asyncio.Future[Result]':
        """Do something with the store; to be called on the loop.

        :returns: what is done when it is committed, with the operation's result or its exception, which is a
            :exc:`JournalFault` where the disk was at fault
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._batch.append((operation, future))
        if len(self._batch) == 1:
            loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        self._queue.put(batch)

    def _work(self) -> None:
        closing = False
        while not closing:
            steps: list[_Step] = []
            batch = self._queue.get()
            with suppress(queue.Empty):
                while batch is not None:
                    steps += batch
                    batch = self._queue.get_nowait()
                closing = True
            if steps:
                self._settle(steps)

    def _settle(self, steps: list[_Step]) -> None:
        """Do all steps, and tell how that went, since nobody may wait for ever."""
        try:
            outcomes = self._commit(steps)
        except Exception as error:
            _hold_up(error)
            outcomes = [(future, None, JournalFault(error)) for _, future in steps]
        with suppress(Exception):
            self.counts = self._store.counts()
        while True:
            try:
                return self._pass(outcomes)
            except MemoryError as error:
                _hold_up(error)

    def _pass(self, outcomes: list[_Outcome]) -> None:
        outcomes[0][0].get_loop().call_soon_threadsafe(self._deliver, outcomes)

    def _commit(self, steps: list[_Step]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        try:
            with self._store.transaction():
                for operation, future in steps:
                    try:
                        outcomes.append((future, operation(self._store), None))
                    except ReplyError as refusal:  # raised before anything was changed
                        outcomes.append((future, None, refusal))
        except Exception as error:
            # Where another program holds the file, each step by itself would wait for it as long again.
            held = isinstance(error, sqlite3.OperationalError) and 'locked' in str(error)
            if held or len(steps) == 1:
                own = not isinstance(error, (sqlite3.Error, MemoryError))
                return [(future, None, error if own else JournalFault(error)) for _, future in steps]
            # What one of them met, such as a full disk, the others may be spared.
            return [outcome for step in steps for outcome in self._commit([step])]
        return outcomes

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for future, result, error in outcomes:
            if future.done():  # since nobody waits for it any more
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def close(self) -> None:
        """Write down what is left, and let the file go."""
        self._queue.put(self._batch)
        self._queue.put(None)
        self._thread.join()
        self._store.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()


def _hold_up(error: Exception) -> None:
    """Log what must not end the journal's thread, and wait until it may have passed."""
    logger.error('The journal is held up, and goes on in %s s', _PAUSE, exc_info=error)
    time.sleep(_PAUSE)


def _lock(path: str) -> FileLock:
    """Keep other processes from running the jobs of the same journal.

    The lock is not on the journal itself: closing a descriptor of that would drop SQLite's own locks.
    """
    beside = Path(os.path.realpath(path) + '.lock')
    try:
        lock = FileLock.take(beside)
        if lock is None:
            owner = beside.read_text(errors='replace')
            raise JournalError(f'the journal {path} is in use by process {owner}: give each process its own')
        lock.write(str(os.getpid()))
    except OSError as error:
        raise JournalError(f'the journal {path} cannot be locked: {error}') from None
    return lock
