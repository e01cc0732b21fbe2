"""Which executors there are, and how a process's setting ``executor`` names them."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..exceptions import SettingError
from .executor import JobExecutor
from .foreign import Foreign
from .processes import Processes
from .threads import Threads

#: What nobody needs more of on one machine.
_MAX_SLOTS = 1000

_BUILT_IN: dict[str, type[Threads | Processes]] = {'threads': Threads, 'processes': Processes}

_SCHEDULER = re.compile(r'[a-z]+://[^\s/]+')

_FACTORY = re.compile(r'([^\W\d]\w*(?:[.:][^\W\d]\w*)+)(?::(\d+))?')


class ExecutorSetting(NamedTuple):
    """What a process's ``executor`` says."""

    #: Whether it can end work by force.
    forceful: bool
    #: Makes it; called with what has to be called in each thread of the process before its first job.
    make: Callable[[Callable[[], Any]], JobExecutor]


def parse_executor(text: Any) -> ExecutorSetting:
    """Read what a process's ``executor`` says, without making it.

    :param text: ``'threads:4'``, ``'processes:4'``, ``'dask:tcp://scheduler:8786'``, or the dotted name of
        what makes a :class:`concurrent.futures.Executor`, ``'package.module.factory'`` or
        ``'concurrent.futures.ProcessPoolExecutor:4'``
    :raises SettingError: where it makes no sense
    """
    kind, _, rest = text.partition(':') if isinstance(text, str) else ('', '', '')
    if kind in _BUILT_IN:
        if _slots(rest):
            made = _BUILT_IN[kind]
            return ExecutorSetting(made.forceful, partial(made, _slots(rest)))
    elif kind == 'dask':
        if _SCHEDULER.fullmatch(rest):
            return ExecutorSetting(False, lambda _: _make_dask(rest))
    elif (named := _FACTORY.fullmatch(str(text))) and (named[2] is None or _slots(named[2])):
        return ExecutorSetting(False, lambda _: Foreign(named[1], _slots(named[2] or '')))
    raise SettingError(
        f"executor is 'threads:N' or 'processes:N', with N from 1 to {_MAX_SLOTS}, 'dask:tcp://HOST:PORT', or"
        f" the dotted name of what makes an executor, 'package.module.factory:N', not {text!r}"
    )


def _slots(text: str) -> int:
    """Read how many jobs run at once; 0 where it makes no sense."""
    slots = int(text[:9]) if text.isascii() and text.isdigit() else 0
    return slots if slots <= _MAX_SLOTS else 0


def _make_dask(address: str) -> JobExecutor:
    try:
        from .dask import Dask  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise SettingError(
            f"executor='dask:{address}' needs the extra 'dask': pip install 'pyams_zmq[dask]' ({error})"
        ) from None
    return Dask(address)
