"""What the web workers do for a process: one of them starts it, and it lives as long as any of them.

Two locks decide. The *owner's lock* is held by the process: a worker that gets it knows that there is no
process, starts one, and hands the lock over to it. Each worker holds the *users' lock*, shared with the
others: the process, which tries to have it for itself, knows when the last of them is gone. The kernel drops
both with their holders, however those end.
"""

import json
import logging
import os
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import hupper

from .exceptions import SettingError
from .locks import FileLock, no_fork
from .rundir import RunDir

logger = logging.getLogger(__name__)

#: Seconds between two looks whether there is a process.
_CHECK = 1.0

#: Seconds before the first new start after a crash; twice as many after each further one.
_BACK_OFF = 1.0
_LONGEST_BACK_OFF = 10.0

#: Seconds between two starts of a process that has crashed too often.
_LONG_PAUSE = 300.0

#: A process that has lived for so many seconds crashes for the first time, whatever was before.
_STEADY = 60.0

#: Seconds between two looks whether there is a next worker.
_TURN = 0.1

#: Seconds after which the files of the locks are made to look new, for what removes old ones.
TOUCH = 3600.0


class Supervisor:
    """Sees to it, in one web worker, that a process is there.

    :param name: name of the process
    :param run_dir: its folder
    :param command: what starts it; the option ``--lock`` is added
    :param max_crashes: crashes in a row after which it is started every five minutes only
    """

    def __init__(self, name: str, run_dir: RunDir, command: Sequence[str], max_crashes: int) -> None:
        self._name = name
        self._run_dir = run_dir
        self._command = command
        self._max_crashes = max_crashes
        self._forget()
        _supervisors.add(self)

    def _forget(self) -> None:
        """Begin anew, as in a forked process: threads and locks are those of its parent."""
        self._unstarted = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._users: FileLock | None = None
        self._is_first = False
        self._complaint: str | None = None
        self._touched = time.monotonic()
        #: Why there is no process, None where there is nothing to complain about.
        self.problem: str | None = None

    def start(self) -> None:
        """Supervise from now on; returns at once, and may be called as often as one likes."""
        if self._unstarted.acquire(blocking=False):
            # A daemon: it must hold up nobody's exit.
            name = f'pyams_zmq-supervisor-{self._name}'
            try:
                threading.Thread(target=self._watch, name=name, daemon=True).start()
            except RuntimeError as error:  # the system has no thread to give, now
                self._unstarted.release()
                self._complain(error)

    def _watch(self) -> None:
        while True:
            try:
                self._turn()
                self._complaint = None
            except Exception as error:
                # Descriptors, memory or room on the disk may be there again the next time.
                self._complain(error)
            time.sleep(_CHECK)

    def _complain(self, error: Exception) -> None:
        """Log why the process cannot be looked after, once for each reason."""
        if self._complaint != str(error):
            self._complaint = str(error)
            logger.error(
                '%s cannot be started, or looked after; it is tried again and again',
                self._name,
                exc_info=error,
            )

    def _turn(self) -> None:
        if self._users is None:
            self._users = self._join()
        elif not self._users.is_of(self._run_dir.users):
            # The file has been removed: the process, and other workers, see the one at its place only.
            left, self._users = self._users, self._join()
            self._is_first = False
            left.close()
        if time.monotonic() - self._touched > TOUCH:
            self._touched = time.monotonic()
            for path in (self._run_dir.users, self._run_dir.owner):
                os.utime(path)
        self._look()

    def _join(self) -> FileLock:
        """Become one of the users."""
        try:
            path = self._run_dir.make().users
        except SettingError as error:
            self.problem = f'{self._name} cannot be started: {error}'
            raise
        users = FileLock.take(path)
        self._is_first = users is not None
        if users is None:
            users = FileLock.take(path, shared=True, wait=True)
            assert users is not None  # noqa: S101 (it waited)
        try:
            # Where the worker is started anew because its code has changed, the process must not wait for its
            # successor, but be started anew as well.
            users.write('' if hupper.is_active() else str(os.getpgrp()))
            users.share()
        except OSError:
            users.close()
            raise
        return users

    def _look(self) -> None:
        child = self._child
        if child is not None and child.poll() is not None:
            logger.log(
                logging.ERROR if child.returncode else logging.INFO,
                '%s (process %d) has ended with exit code %d',
                self._name,
                child.pid,
                child.returncode,
            )
            self._child = None
        owner = FileLock.take(self._run_dir.owner)
        if owner is None:
            self.problem = None
            return
        try:
            # Where it lives, its lock's file has been removed; it will notice that itself, and end.
            if self._child is None:
                self._start_process(owner)
        finally:
            owner.close()

    def _start_process(self, owner: FileLock) -> None:
        before = owner.read()
        past = _Past() if self._is_first else _past(before)
        if past.crashes >= self._max_crashes and not past.busy:
            if self._is_too_early(past, owner):
                return
        elif past.crashes or past.busy:
            # The exponent may have grown for days.
            pause = min(_BACK_OFF * 2 ** min(past.crashes + past.busy - 1, 10), _LONGEST_BACK_OFF)
            reason = 'has found what it needs in use' if past.busy else 'has crashed'
            logger.warning('%s %s, and is started again in %g s', self._name, reason, pause)
            time.sleep(pause)
        environment = dict(os.environ)
        environment.pop('NOTIFY_SOCKET', None)  # the web server's
        started = {'started': time.time(), 'crashes': past.crashes, 'busy': past.busy}
        owner.write(json.dumps(started))
        try:
            with no_fork:
                self._child = subprocess.Popen(  # noqa: S603
                    [*self._command, '--lock', str(owner.fileno())],
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[owner.fileno()],
                    start_new_session=True,
                )
        except Exception as error:
            owner.write(before)
            self.problem = f'{self._name} cannot be started: {error}'
            raise
        self._is_first = False
        self.problem = None
        logger.info('%s is started as process %d', self._name, self._child.pid)

    def _is_too_early(self, past: '_Past', owner: FileLock) -> bool:
        """Whether a process that has crashed too often is to be left alone still."""
        now, again = time.time(), past.again
        if again is None:
            again = now + _LONG_PAUSE
            owner.write(json.dumps({'crashes': past.crashes, 'again': again}))
        # A clock that was set back must not make the pause longer.
        if not now < again <= now + _LONG_PAUSE:
            return False
        problem = (
            f'{self._name} has crashed {past.crashes} times in a row, and is not started again before'
            f' {time.strftime("%H:%M:%S", time.localtime(again))}; the log tells why'
        )
        if self.problem != problem:
            self.problem = problem
            logger.critical('%s', problem)
        return True


class _Past(NamedTuple):
    """How the process has fared so far, as the file of the owner's lock tells."""

    #: How often in a row it has crashed.
    crashes: int = 0
    #: How often in a row it has found its address, or its journal, in use.
    busy: int = 0
    #: When it is to be started again, in seconds since 1970.
    again: float | None = None


def _past(text: str) -> _Past:
    with suppress(ValueError, TypeError, KeyError):
        state = json.loads(text)
        crashes, busy = int(state['crashes']), int(state.get('busy', 0))
        if 'started' not in state:
            return _Past(crashes, busy, state.get('again') and float(state['again']))
        # It was started, and has not told how it ended.
        steady = time.time() - state['started'] > _STEADY
        return _Past(1 if steady else crashes + 1)
    return _Past()


def ended_in_order(owner: FileLock) -> None:
    """In the process: let its end be no crash."""
    owner.write('')


def found_in_use(owner: FileLock) -> None:
    """In the process: let its end be no crash, though it was none in order: something is not free yet."""
    with suppress(ValueError, TypeError, KeyError):
        state = json.loads(owner.read())
        owner.write(json.dumps({'crashes': state['crashes'], 'busy': state['busy'] + 1}))


def wait_for_end_of_users(
    run_dir: RunDir, grace: float, is_in_place: Callable[[], bool] = lambda: True
) -> None:
    """In the process: wait until there is no worker any more, or none could find the process.

    :param grace: seconds to wait for a next one, as long as there still is anybody of their process group: a
        server that recycles its workers may have none for a while
    :param is_in_place: whether the files are there by which workers find the process
    """
    complaint, deadline = '', None
    while True:
        pause = _CHECK
        try:
            if not is_in_place():
                logger.warning('Files of %s have been removed, so that no worker can find it', run_dir.path)
                return
            # A file that has been removed is made anew by the workers.
            group = _last_group(run_dir.users) if run_dir.users.exists() else str(os.getpgrp())
            if group is None:
                deadline = None
            else:
                deadline = deadline or time.monotonic() + grace
                if time.monotonic() >= deadline or not _lives(group):
                    return
                pause = _TURN
        except Exception as error:
            # To end this thread would be never to end the process: descriptors may be there again.
            if complaint != str(error):
                complaint = str(error)
                logger.exception('It cannot be seen whether there are web workers; it is tried again')
        time.sleep(pause)


def _last_group(path: Path) -> str | None:
    """The process group of the last worker, as it has written; None where there are workers."""
    users = FileLock.take(path)
    if users is None:
        return None
    try:
        return users.read()
    finally:
        users.close()


def _lives(group: str) -> bool:
    try:
        os.killpg(int(group), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


_supervisors: 'weakref.WeakSet[Supervisor]' = weakref.WeakSet()


def _after_fork() -> None:
    for supervisor in list(_supervisors):
        supervisor._forget()


os.register_at_fork(after_in_child=_after_fork)
