"""The jobs of a process put together from its options."""

from collections.abc import Callable
from typing import Any

from ..exceptions import SettingError
from ..limits import Limits
from .decorator import jobs_of
from .executors import parse_executor
from .journal import Journal
from .runner import Runner


class JobSettings(Limits):
    """What a process takes for its jobs: class attributes."""

    #: The file that the jobs are written down in, or ``':memory:'`` where none has to outlive the process;
    #: None: the process has no jobs.
    journal: str | None = None

    #: What runs the jobs: ``'threads:N'``, N at once in threads of the process; ``'processes:N'``, in worker
    #: processes, which can be ended by force; ``'dask:tcp://HOST:PORT'``, on a cluster; or the dotted name of
    #: what makes a :class:`concurrent.futures.Executor`.
    executor: str = 'threads:4'

    #: Whether a job that was accepted survives a loss of power, and not only the end of the process.
    durable: bool = True

    #: Jobs that may wait and run; the reply to more is a 429.
    max_pending: int = 100_000

    #: How often a job may be running when its process or its worker dies; after that it has failed.
    max_interruptions: int = 5

    #: Ended jobs that are kept; of more, those go first whose time is over soonest.
    max_kept: int = 100_000

    def check_options(self) -> None:
        """Refuse what makes no sense.

        :raises ValueError: with the name of the attribute
        """
        super().check_options()
        self._check_number('max_pending', 'of jobs above 0')
        self._check_number('max_interruptions', 'of deaths above 0')
        self._check_number('max_kept', 'of jobs, 0 for none', least=0)
        if self.journal is not None and not (
            isinstance(self.journal, str) and self.journal and '\0' not in self.journal
        ):
            raise SettingError(f"journal is the path of a file, or ':memory:', not {self.journal!r}")
        if not isinstance(self.durable, bool):
            raise SettingError(f'durable is True or False, not {self.durable!r}')
        parse_executor(self.executor)

    def check_jobs(self, delegate: Any) -> None:
        """Refuse a delegate whose jobs cannot be run as they want to.

        :param delegate: the delegate, or its class
        :raises SettingError: with the reason
        """
        jobs = jobs_of(delegate)
        if jobs and self.journal is None:
            raise SettingError(
                f'{_name(delegate)} has jobs ({", ".join(jobs)}), but the process has no journal: set journal'
                " to the path of a file, or to ':memory:' where jobs need not outlive the process"
            )
        limited = [name for name, options in jobs.items() if options.timeout is not None]
        if limited and not parse_executor(self.executor).forceful:
            raise SettingError(
                f'{_name(delegate)}.{limited[0]} has a timeout, which executor={self.executor!r} cannot keep:'
                ' only processes:N can end work by force'
            )

    def make_jobs(self, initializer: Callable[[], Any]) -> Runner | None:
        """Open the journal and make what runs its jobs; None where there is no journal.

        :param initializer: called in each thread before its first job
        :raises SettingError: where an option makes no sense
        :raises RuntimeError: where the journal cannot be used
        """
        if self.journal is None:
            return None
        executor = parse_executor(self.executor).make(initializer)
        try:
            journal = Journal(self.journal, self.durable)
        except BaseException:
            executor.close()
            raise
        return Runner(journal, executor, self.max_pending, self.max_interruptions, self.max_kept)


def _name(delegate: Any) -> str:
    return delegate.__name__ if isinstance(delegate, type) else type(delegate).__name__
