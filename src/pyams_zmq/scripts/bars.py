"""How far jobs are: bars on a terminal where rich is installed, lines elsewhere."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from .output import harmless


class Show(Protocol):
    """Shows how far jobs are."""

    def __call__(self, job: str, state: str, done: float | None, total: float | None, text: str) -> None:
        """Show how far a job is.

        :param job: its id, one of those given in the beginning
        :param state: what it does
        :param done: how much is done; None: not known
        :param total: of how much; None: not known
        :param text: what else there is to say
        """


@contextmanager
def showing(jobs: Sequence[str]) -> Iterator[Show]:
    """Show how far jobs are, on the standard error, for the time of a block."""
    bars = _make_bars(jobs) if sys.stderr.isatty() else None
    if bars is None:
        yield _Lines()
    else:
        with bars.progress:
            yield bars


class _Lines:
    """A line where the state of a job changes, or a tenth of it is done."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def __call__(self, job: str, state: str, done: float | None, total: float | None, text: str) -> None:
        tenths = int(10 * done / total) if done and total else 0
        if self._last.get(job) != (state, tenths):
            self._last[job] = state, tenths
            far = f' {10 * tenths} %' if tenths else ''
            print(harmless(f'{job}: {state}{far} {text}').rstrip(), file=sys.stderr, flush=True)


class _Bars:
    """A bar for each job.

    :param progress: rich's, not started yet
    """

    def __init__(self, progress: Any, jobs: Sequence[str]) -> None:
        self.progress = progress
        self._tasks = {job: progress.add_task('', total=None, job=harmless(job), text='') for job in jobs}

    def __call__(self, job: str, state: str, done: float | None, total: float | None, text: str) -> None:
        self.progress.update(
            self._tasks[job], completed=done or 0, total=total, text=harmless(f'{state} {text}')
        )


def _make_bars(jobs: Sequence[str]) -> _Bars | None:
    try:
        from rich.console import Console  # noqa: PLC0415 (an optional dependency)
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
    except ImportError:
        return None
    columns = (
        TextColumn('{task.fields[job]}', markup=False),
        BarColumn(),
        TextColumn('{task.fields[text]}', markup=False),
    )
    return _Bars(Progress(*columns, console=Console(stderr=True)), jobs)
