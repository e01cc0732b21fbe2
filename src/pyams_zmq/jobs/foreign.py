"""Jobs in any :class:`concurrent.futures.Executor`."""

import pkgutil
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from ..exceptions import SettingError
from ..wire import error_text
from .elsewhere import pack, perform_packed
from .executor import ExecutorError, JobExecutor
from .line import Line, calling
from .progress import Report
from .submission import submit
from .work import Outcome, Task

#: Jobs at once where neither the setting nor the executor tells.
_SLOTS = 4


class Foreign(JobExecutor):
    """Runs jobs by an executor that somebody else has made, on the machine of the process.

    One that is of no use any more, since a worker of it has died, is made anew.

    :param name: dotted name of what makes it
    :param slots: how many at once, which is also what it is made with; 0: it is made without an argument
    :raises SettingError: where it cannot be made
    """

    def __init__(self, name: str, slots: int) -> None:
        self._name = name
        self._arguments = (slots,) if slots else ()
        self._factory = _resolve(name)
        try:
            self._pool = self._make()
        except Exception as error:
            raise SettingError(f'executor={name!r}: {error_text(error)}') from error
        self.slots = slots or getattr(self._pool, '_max_workers', _SLOTS)
        self._line = Line()
        self._tickets: dict[str, str] = {}

    def _make(self) -> Executor:
        pool = self._factory(*self._arguments)
        if not isinstance(pool, Executor):
            raise TypeError(f'it gives a {type(pool).__name__}, and no concurrent.futures.Executor')
        return pool

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        ticket = self._tickets[task.id] = self._line.expect(report)
        try:
            arguments = pack(task), self._line.server_address, ticket
            try:
                future = self._submit(*arguments)
            except RuntimeError:  # it is broken, was shut down, or cannot have a thread
                self._pool.shutdown(wait=False)
                self._pool = self._make()
                future = self._submit(*arguments)
        except Exception as error:
            self._forget(task.id, ticket)
            raise ExecutorError(f'executor={self._name!r}: {error_text(error)}') from error
        future.add_done_callback(lambda _: self._forget(task.id, ticket))
        return future

    def _submit(self, *arguments: Any) -> 'Future[Outcome]':
        if isinstance(self._pool, ThreadPoolExecutor):
            return submit(self._pool, _run, *arguments)
        return self._pool.submit(_run, *arguments)

    def _forget(self, job: str, ticket: str) -> None:
        self._line.forget(ticket)
        if self._tickets.get(job) == ticket:  # else it has been submitted anew
            del self._tickets[job]

    def cancel(self, job: str) -> None:
        self._line.cancel(self._tickets.get(job, ''))

    def close(self) -> None:
        self._pool.shutdown()
        self._line.close()


def _resolve(name: str) -> Callable[..., Any]:
    try:
        factory = pkgutil.resolve_name(name)
    except Exception as error:
        raise SettingError(f'executor={name!r}: {error_text(error)}') from error
    if not callable(factory):
        raise SettingError(f'executor={name!r}: it cannot be called to make an executor')
    return partial(factory)


def _run(packed: bytes, address: Any, ticket: str) -> Outcome:
    """What its workers do."""
    with calling(address, ticket) as (report, cancelled):
        return perform_packed(packed, report, cancelled)
