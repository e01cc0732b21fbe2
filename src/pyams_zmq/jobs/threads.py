"""``threads:N``: jobs in threads of the process."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .executor import JobExecutor
from .progress import Progress, Report
from .work import Outcome, Task, perform


class Threads(JobExecutor):
    """Runs jobs in threads of the process.

    :param slots: how many at once
    :param initializer: called in each thread before its first job
    """

    local = True

    def __init__(self, slots: int, initializer: Callable[[], Any]) -> None:
        self.slots = slots
        self._pool = ThreadPoolExecutor(slots, 'pyams_zmq-job', initializer)
        self._cancelled: set[str] = set()

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        progress = Progress(task.id, task.type, task.attempt, report, lambda: task.id in self._cancelled)
        future = self._pool.submit(perform, task, progress)
        future.add_done_callback(lambda _: self._cancelled.discard(task.id))
        return future

    def cancel(self, job: str) -> None:
        self._cancelled.add(job)

    def close(self) -> None:
        self._pool.shutdown()
