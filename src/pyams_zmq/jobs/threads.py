"""``threads:N``: jobs in threads of the process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from .executor import ExecutorError, JobExecutor
from .progress import Progress, Report
from .submission import submit
from .work import Outcome, Task, perform


class Threads(JobExecutor):
    """Runs jobs in threads of the process.

    :param slots: how many at once
    :param initializer: called in each thread before its first job
    """

    local = True

    def __init__(self, slots: int, initializer: Callable[[], Any]) -> None:
        self.slots = slots
        self._make = partial(ThreadPoolExecutor, slots, 'pyams_zmq-job', initializer)
        self._pool = self._make()
        # One for each attempt that may still ask; a cancel that comes too late for it is forgotten with it.
        self._unwanted: WeakValueDictionary[str, threading.Event] = WeakValueDictionary()

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        unwanted = self._unwanted[task.id] = threading.Event()
        progress = Progress(task.id, task.type, task.attempt, report, unwanted.is_set)
        try:
            return submit(self._pool, perform, task, progress)
        except ExecutorError:
            self._pool = self._make()
            raise

    def cancel(self, job: str) -> None:
        unwanted = self._unwanted.get(job)
        if unwanted is not None:
            unwanted.set()

    def close(self) -> None:
        self._pool.shutdown()
