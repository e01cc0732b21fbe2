"""What runs the jobs: threads of the process, or something else that takes the same part."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

from ..exceptions import SettingError
from .processes import Processes
from .progress import Progress, Report
from .work import Outcome, Task, perform

#: What nobody needs more of on one machine.
_MAX_SLOTS = 1000


class JobExecutor(Protocol):
    """Runs jobs. Its methods are called on the loop of the process."""

    #: How many jobs it runs at once; it is not given more.
    slots: int

    #: Whether :meth:`cancel` ends a job by force, so that it has not to be asked for.
    forceful: bool

    #: Whether jobs run in the process itself, with its delegate, and not elsewhere with a fresh one.
    local: bool

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        """Run a job.

        :param report: to be called with what the job tells of its progress, from any thread
        :returns: its outcome; an exception counts as an interruption
        """

    def cancel(self, job: str) -> None:
        """Let the progress object of a running job say that it is not wanted, or end the job by force."""

    def close(self) -> None:
        """End, with the jobs that are still running where that can be."""


class Threads:
    """Runs jobs in threads of the process.

    :param slots: how many at once
    :param initializer: called in each thread before its first job
    """

    forceful = False
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


class ExecutorSetting(NamedTuple):
    """What a process's ``executor`` says."""

    #: Whether it can end work by force.
    forceful: bool
    #: Makes it; called with what has to be called in each thread of the process before its first job.
    make: Callable[[Callable[[], Any]], JobExecutor]


def parse_executor(text: Any) -> ExecutorSetting:
    """Read what a process's ``executor`` says, without making it.

    :param text: ``'threads:4'`` or ``'processes:4'``
    :raises SettingError: where it makes no sense
    """
    kind, _, slots = text.partition(':') if isinstance(text, str) else ('', '', '')
    if kind in _KINDS and slots.isascii() and slots.isdigit() and 0 < int(slots[:9]) <= _MAX_SLOTS:
        made: type[Threads | Processes] = _KINDS[kind]
        return ExecutorSetting(made.forceful, partial(made, int(slots)))
    raise SettingError(
        f"executor is 'threads:N' or 'processes:N', with N from 1 to {_MAX_SLOTS}, not {text!r}"
    )


_KINDS: dict[str, type[Threads | Processes]] = {'threads': Threads, 'processes': Processes}
