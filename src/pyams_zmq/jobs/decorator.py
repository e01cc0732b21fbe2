"""``@job``: which methods of a delegate are jobs, and how each of them wants to be run."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from ..signatures import has_parameter

Method = TypeVar('Method', bound=Callable[..., Any])

#: Seconds that an ended job is known for, unless its method tells otherwise.
WEEK = 7 * 24 * 3600.0

#: Seconds that the delay before a retry does not exceed.
MAX_DELAY = 3600.0

_MARK = '__pyams_zmq_job__'


@dataclass(frozen=True)
class JobOptions:
    """How a job wants to be run, as :func:`job` was told."""

    retries: int
    timeout: float | None
    keep: float
    backoff: float
    #: Whether the method takes the keyword ``progress``.
    takes_progress: bool

    def delay(self, failures: int) -> float:
        """Seconds before the next attempt, after so many failures."""
        return min(self.backoff * 2.0 ** min(failures - 1, 60), MAX_DELAY)


@overload
def job(method: Method) -> Method: ...
@overload
def job(
    *, retries: int = 0, timeout: float | None = None, keep: float = WEEK, backoff: float = 1.0
) -> Callable[[Method], Method]: ...
def job(
    method: Method | None = None,
    *,
    retries: int = 0,
    timeout: float | None = None,
    keep: float = WEEK,
    backoff: float = 1.0,
) -> Method | Callable[[Method], Method]:
    """Make a delegate's method a job: ``@job``, or with options ``@job(retries=3)``.

    Its messages are written to the journal of the process, replied to with ``[202, {"job": id, …}]``, and
    then run. The method itself stays as it is; where it takes a keyword ``progress``, it gets a
    :class:`pyams_zmq.jobs.Progress`.

    :param retries: how many times it is tried again after it failed: raised, took longer than its timeout,
        or returned a status of 500 and above
    :param timeout: seconds after which an attempt is ended by force, which takes worker processes; None:
        never
    :param keep: seconds that its result is known for after its end
    :param backoff: seconds before the first retry; twice as many before each further one, an hour at most
    :raises ValueError: where an option makes no sense
    :raises TypeError: where what is decorated is no function
    """
    if type(retries) is not int or retries < 0:
        raise ValueError(f'retries is a number of attempts, 0 for none, not {retries!r}')
    _check_seconds('timeout', timeout, optional=True)
    _check_seconds('keep', keep, least=0)
    _check_seconds('backoff', backoff)

    def mark(method: Method) -> Method:
        if isinstance(method, (staticmethod, classmethod)) or not inspect.isroutine(method):
            raise TypeError(
                f'@job belongs on a function, below @staticmethod and the like, not on {method!r}'
            )
        takes_progress = has_parameter(method, 'progress')
        setattr(method, _MARK, JobOptions(retries, timeout, keep, backoff, takes_progress))
        return method

    return mark if method is None else mark(method)


def _check_seconds(name: str, value: Any, *, least: float | None = None, optional: bool = False) -> None:
    if value is None and optional:
        return
    if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max or (value == 0 != least):
        accepted = f'a number of seconds{" above 0" if least is None else ", 0 or more"}'
        raise ValueError(f'{name} is {accepted}, not {value!r}')


def job_options(method: Any) -> JobOptions | None:
    """Return how a method wants to be run, None where it is no job."""
    options = getattr(method, _MARK, None)
    return options if isinstance(options, JobOptions) else None


def jobs_of(delegate: Any) -> dict[str, JobOptions]:
    """Return the jobs among the methods of a delegate, or of its class, by their names."""
    found = {}
    for name in dir(delegate):
        member = inspect.getattr_static(delegate, name, None)
        options = job_options(getattr(member, '__func__', member))
        if options is not None and not name.startswith('_'):
            found[name] = options
    return found
