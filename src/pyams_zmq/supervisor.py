"""What the web workers do for a process: one of them starts it, and it lives as long as any of them.

Two locks decide. The *owner's lock* is held by the process: a worker that gets it knows that there is no
process, starts one, and hands the lock over to it. Each worker holds the *users' lock*, shared with the
others: the process, waiting to have it for itself, knows when the last of them is gone. The kernel drops both
with their holders, however those end.
"""

import json
import logging
import os
import subprocess
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress

import hupper

from .locks import FileLock, no_fork
from .rundir import RunDir

logger = logging.getLogger(__name__)

#: Seconds between two looks whether there is a process.
_CHECK = 1.0

#: Seconds before the first new start after a crash; twice as many after each further one.
_BACK_OFF = 1.0
_LONGEST_BACK_OFF = 30.0

#: A process that has lived for so many seconds crashes for the first time, whatever was before.
_STEADY = 60.0

#: Seconds between two looks whether there is a next worker.
_TURN = 0.1


class Supervisor:
    """Sees to it, in one web worker, that a process is there.

    :param name: name of the process
    :param run_dir: its folder
    :param command: what starts it; the option ``--lock`` is added
    :param max_crashes: crashes in a row after which it is not started any more
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
        #: Why there will be no process, None where there is nothing to complain about.
        self.problem: str | None = None

    def start(self) -> None:
        """Supervise from now on; returns at once, and may be called as often as one likes."""
        if self._unstarted.acquire(blocking=False):  # which never is given back
            # A daemon: it must hold up nobody's exit.
            name = f'pyams_zmq-supervisor-{self._name}'
            threading.Thread(target=self._watch, name=name, daemon=True).start()

    def _watch(self) -> None:
        try:
            self._users = self._join()
            while True:
                self._look()
                time.sleep(_CHECK)
        except Exception as error:
            self.problem = f'{self._name} cannot be started: {error}'
            logger.exception('%s cannot be started', self._name)

    def _join(self) -> FileLock:
        """Become one of the users."""
        users = FileLock.take(self._run_dir.make().users)
        self._is_first = users is not None
        if users is None:
            users = FileLock.take(self._run_dir.users, shared=True, wait=True)
            assert users is not None  # noqa: S101 (it waited)
        else:
            users.share()
        # Where the worker is started anew because its code has changed, the process must not wait for its
        # successor, but be started anew as well.
        users.write('' if hupper.is_active() else str(os.getpgrp()))
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
            self._start_process(owner)
        finally:
            owner.close()

    def _start_process(self, owner: FileLock) -> None:
        crashes = 0 if self._is_first else _crashes(owner)
        self._is_first = False
        if crashes >= self._max_crashes:
            if self.problem is None:
                self.problem = (
                    f'{self._name} has crashed {crashes} times in a row, and is not started again until the'
                    ' application is; the log tells why'
                )
                logger.critical('%s', self.problem)
            return
        if crashes:
            pause = min(_BACK_OFF * 2 ** (crashes - 1), _LONGEST_BACK_OFF)
            logger.warning('%s has crashed, and is started again in %g s', self._name, pause)
            time.sleep(pause)
        environment = dict(os.environ)
        environment.pop('NOTIFY_SOCKET', None)  # the web server's
        owner.write(json.dumps({'started': time.time(), 'crashes': crashes}))
        with no_fork:
            self._child = subprocess.Popen(  # noqa: S603
                [*self._command, '--lock', str(owner.fileno())],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[owner.fileno()],
                start_new_session=True,
            )
        logger.info('%s is started as process %d', self._name, self._child.pid)


def _crashes(owner: FileLock) -> int:
    """How often in a row the process has crashed, as the file of the owner's lock tells."""
    with suppress(ValueError, TypeError, KeyError):
        state = json.loads(owner.read())
        steady = time.time() - state['started'] > _STEADY
        return 1 if steady else int(state['crashes']) + 1
    return 0


def ended_in_order(owner: FileLock) -> None:
    """In the process: let its end be no crash."""
    owner.write('')


def wait_for_end_of_users(run_dir: RunDir, grace: float) -> None:
    """In the process: wait until there is no worker any more.

    :param grace: seconds to wait for a next one, as long as there still is anybody of their process group: a
        server that recycles its workers may have none for a while
    """
    while True:
        users = FileLock.take(run_dir.users, wait=True)
        assert users is not None  # noqa: S101 (it waited)
        group = users.read()
        users.close()
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and _lives(group):
            time.sleep(_TURN)
            users = FileLock.take(run_dir.users)
            if users is None:
                break
            group = users.read()
            users.close()
        else:
            return


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
