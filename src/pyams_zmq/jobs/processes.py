"""``processes:N``: jobs in worker processes, which can be ended by force."""

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from .executor import ExecutorError, JobExecutor
from .nursery import Nursery, Worker
from .progress import Report
from .submission import submit
from .work import Outcome, Task

logger = logging.getLogger(__name__)

#: Seconds that a job which is ended by force has to clean up.
GRACE = 5.0


class _Gone(BrokenExecutor):
    """A worker that had died before it told that it had the job."""


class Processes(JobExecutor):
    """Runs jobs in worker processes, one job a worker at a time.

    A worker that dies takes its job with it and no other, and is replaced. So it is no
    :class:`concurrent.futures.ProcessPoolExecutor`, which is of no use any more after the first such death.

    :param slots: how many at once
    :param initializer: called in each thread before its first job
    """

    forceful = True

    def __init__(self, slots: int, initializer: Callable[[], Any]) -> None:
        self.slots = slots
        self._nursery = Nursery()
        self._make_keepers = partial(ThreadPoolExecutor, slots, 'pyams_zmq-keeper', initializer)
        self._keepers = self._make_keepers()
        self._hiring = threading.Lock()
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        # Those at work by their jobs; None where a job still waits for its worker.
        self._busy: dict[str, Worker | None] = {}
        self._unwanted: set[str] = set()
        self._closing = False

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        with self._lock:
            self._busy[task.id] = None
        try:
            return submit(self._keepers, self._run, task, report)
        except ExecutorError:
            self._keepers = self._make_keepers()
            with self._lock:
                del self._busy[task.id]
            raise

    def _run(self, task: Task, report: Callable[[Report], Any]) -> Outcome:
        try:
            while (worker := self._take_idle()) is not None:
                with suppress(_Gone):  # while it was idle, with which the job has nothing to do
                    return self._employ(worker, task, report)
            try:
                worker = self._hire()
            except OSError as error:
                raise ExecutorError(f'there is no worker process to be had: {error}') from error
            return self._employ(worker, task, report)
        finally:
            with self._lock:
                del self._busy[task.id]
                self._unwanted.discard(task.id)

    def _take_idle(self) -> Worker | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _hire(self) -> Worker:
        with self._hiring:
            try:
                return self._nursery.hire()
            except ConnectionError:
                if self._closing:
                    raise
                # A fork in a process with threads, which it is there to avoid; but better than to end.
                logger.exception('The nursery of the workers has died, and is made anew')
                dead, self._nursery = self._nursery, Nursery()
                dead.close()
                return self._nursery.hire()

    def _employ(self, worker: Worker, task: Task, report: Callable[[Report], Any]) -> Outcome:
        with self._lock:
            self._busy[task.id] = worker
            if task.id in self._unwanted:
                self._end(worker)
        begun = False
        outcome: Outcome | None = None
        with suppress(EOFError, OSError):  # where it dies
            worker.connection.send(task)
            begun = worker.connection.recv()
            while isinstance(message := worker.connection.recv(), Report):
                report(message)
            outcome = message
        with self._lock:
            self._busy[task.id] = None
            if outcome is not None and not worker.doomed:
                self._idle.append(worker)
                return outcome
        end = worker.nursery.dismiss(worker)
        if outcome is None:
            raise (BrokenExecutor if begun or worker.doomed else _Gone)(f'its worker {end}')
        return outcome

    def cancel(self, job: str) -> None:
        with self._lock:
            if job in self._busy:
                self._unwanted.add(job)
                worker = self._busy[job]
                if worker is not None:
                    self._end(worker)

    def _end(self, worker: Worker) -> None:
        worker.doomed = True
        worker.signal(signal.SIGTERM)
        timer = threading.Timer(GRACE, self._kill, (worker,))
        timer.daemon = True
        timer.start()

    def _kill(self, worker: Worker) -> None:
        with self._lock:
            if worker in self._busy.values():
                worker.signal(signal.SIGKILL)

    def close(self) -> None:
        self._closing = True
        self._nursery.close()
        self._keepers.shutdown()
        for worker in self._idle:
            worker.connection.close()
