"""What every executor of jobs is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .progress import Report
from .work import Outcome, Task


class ExecutorError(RuntimeError):
    """An executor that cannot run jobs now; the text tells which one, and why."""


def _nobody() -> None:
    """Who is told of free places before the runner is there."""


class JobExecutor(ABC):
    """Runs jobs. Its methods are called on the loop of the process."""

    #: How many jobs it runs at once; it is not given more. It may change.
    slots: int = 0

    #: Whether :meth:`cancel` ends a job by force, so that it has not to be asked for.
    forceful: bool = False

    #: Whether jobs run in the process itself, with its delegate, and not elsewhere with a fresh one.
    local: bool = False

    #: Called, from any thread, where there are more ``slots`` than before.
    on_change: Callable[[], Any] = staticmethod(_nobody)

    @abstractmethod
    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        """Run a job.

        :param report: to be called with what the job tells of its progress, from any thread
        :returns: its outcome. A :exc:`concurrent.futures.BrokenExecutor` tells that what ran it has died, an
            :exc:`ExecutorError` that it could not be run, which is not its fault. Any other exception is its
            own, as if it had raised it.
        """

    @abstractmethod
    def cancel(self, job: str) -> None:
        """Let the progress object of a running job say that it is not wanted, or end the job by force.

        :param job: its id; nothing happens where it is not running, or not any more
        """

    @abstractmethod
    def close(self) -> None:
        """End, with the jobs that are still running where that can be."""
