"""The nursery: a process that makes worker processes, and the workers.

It is forked from the process before that opens anything, and has one thread: what a worker inherits are the
application's objects as they were then, and no database, socket or lock that somebody else was just using.
"""

import errno
import multiprocessing
import os
import queue
import signal
import socket as sockets
import struct
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn
from weakref import WeakSet

from ..locks import no_fork
from .progress import Progress
from .work import JobEnded, Task, perform

_fork = multiprocessing.get_context('fork')

#: What is sent each way: the id of a worker that is not needed any more, or 0 to ask for a new one; the exit
#: code of the former, or the id of the latter, or else the negative number of the error.
_NUMBER = struct.Struct('>i')


#: What this process talks to its nursery and its workers with, and a worker to its process. Copies in what it
#: forks would hide its death from the others, and jobs would run on while they are begun anew elsewhere.
_ends: 'WeakSet[Any]' = WeakSet()


def _in_child() -> None:
    for end in list(_ends):
        with suppress(OSError):
            end.close()


os.register_at_fork(after_in_child=_in_child)


class Nursery:
    """Makes worker processes. It ends with the process that made it, and its workers with it."""

    def __init__(self) -> None:
        self._control, theirs = sockets.socketpair()
        _ends.add(self._control)
        self._lock = threading.Lock()
        self._process = _fork.Process(target=_tend, args=(theirs, self._control), name='pyams_zmq-nursery')
        self._process.start()
        theirs.close()

    def hire(self) -> 'Worker':
        """Make a worker.

        :raises ConnectionError: where the nursery has died
        :raises OSError: where no worker can be made now
        """
        with self._lock:
            self._control.sendall(_NUMBER.pack(0))
            wait([self._control])  # before no_fork is held, which others may need meanwhile
            with no_fork:
                message, fds, _, _ = sockets.recv_fds(self._control, _NUMBER.size, 1)
                if len(message) != _NUMBER.size:
                    raise ConnectionResetError('the nursery has died')
                (pid,) = _NUMBER.unpack(message)
                if pid < 0:
                    raise OSError(-pid, os.strerror(-pid))
                if not fds:  # there is no room for the descriptor in this process
                    self._dismiss(pid)
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                os.set_inheritable(fds[0], False)
                connection: Connection[Any, Any] = Connection(fds[0])
                _ends.add(connection)
        return Worker(pid, connection, self)

    def dismiss(self, worker: 'Worker') -> str:
        """End a worker, and what it has started, if it has not ended yet.

        :returns: how it ended
        """
        with no_fork:
            worker.connection.close()
        try:
            with self._lock:
                code = self._dismiss(worker.pid)
        except (OSError, struct.error):
            return 'died'
        return f'ended with exit code {code}' if code >= 0 else f'was killed by signal {-code}'

    def _dismiss(self, pid: int) -> int:
        self._control.sendall(_NUMBER.pack(pid))
        return int(_NUMBER.unpack(self._control.recv(_NUMBER.size, sockets.MSG_WAITALL))[0])

    def close(self) -> None:
        """End the nursery and all workers."""
        with suppress(OSError):
            self._control.shutdown(sockets.SHUT_RDWR)  # another thread may be waiting for an answer
        self._process.join()
        self._control.close()


class Worker:
    """A worker as the process sees it.

    :param pid: also the id of its process group, which what jobs start belongs to as well
    :param connection: tasks go in, reports and outcomes come out
    :param nursery: where it comes from
    """

    def __init__(self, pid: int, connection: 'Connection[Any, Any]', nursery: Nursery) -> None:
        self.pid = pid
        self.connection = connection
        self.nursery = nursery
        #: Whether it is about to be ended by force.
        self.doomed = False

    def signal(self, number: int) -> None:
        """Send a signal to the worker and what it has started; only before it is dismissed."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def _tend(control: sockets.socket, others: sockets.socket) -> None:
    """What the nursery does."""
    others.close()
    # Ctrl-C is meant for the process, which drains. Not ignored: programs that jobs run would inherit that.
    signal.signal(signal.SIGINT, _nothing)
    workers: dict[int, Any] = {}
    with suppress(OSError):  # the process has died, perhaps while it was being answered
        while message := control.recv(_NUMBER.size, sockets.MSG_WAITALL):
            (pid,) = _NUMBER.unpack(message)
            if pid:
                worker = workers.pop(pid)
                _kill(pid)
                worker.join()
                control.sendall(_NUMBER.pack(worker.exitcode))
            else:
                try:
                    worker, connection = _make(control)
                except (OSError, MemoryError) as error:  # which is no reason to end the others
                    control.sendall(_NUMBER.pack(-(getattr(error, 'errno', None) or errno.ENOMEM)))
                    continue
                workers[worker.pid] = worker
                sockets.send_fds(control, [_NUMBER.pack(worker.pid)], [connection.fileno()])
                connection.close()
    for pid in workers:
        _kill(pid)


def _make(control: sockets.socket) -> tuple[Any, sockets.socket]:
    # The nursery's only thread opens nothing meanwhile, so these are what is opened next.
    free = _free_descriptors(6)
    ours, theirs = sockets.socketpair()
    worker: Any = _fork.Process(target=_work, args=(theirs, ours, control), name='pyams_zmq-worker')
    try:
        worker.start()
    except BaseException:
        ours.close()
        theirs.close()
        for descriptor in free:  # multiprocessing leaves two pipes open where the fork fails
            with suppress(OSError):
                os.close(descriptor)
        raise
    theirs.close()
    with suppress(OSError):  # it has done so itself, or died
        os.setpgid(worker.pid, worker.pid)
    return worker, ours


def _free_descriptors(number: int) -> list[int]:
    """Return the lowest descriptors that are not in use."""
    free: list[int] = []
    descriptor = 0
    while len(free) < number:
        try:
            os.fstat(descriptor)
        except OSError:
            free.append(descriptor)
        descriptor += 1
    return free


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _nothing(_number: int, _frame: Any) -> None:
    pass


def _end(_number: int, _frame: Any) -> NoReturn:
    raise JobEnded


def _work(ours: sockets.socket, *others: sockets.socket) -> None:
    """What a worker does."""
    os.setpgid(0, 0)
    for other in others:
        other.close()
    connection: Connection[Any, Any] = Connection(ours.detach())
    _ends.add(connection)
    signal.signal(signal.SIGTERM, _end)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    while True:
        task = tasks.get()
        send(True)
        send(perform(task, Progress(task.id, task.type, task.attempt, send, bool)))


def _listen(connection: 'Connection[Any, Any]', tasks: 'queue.SimpleQueue[Task]') -> None:
    with suppress(EOFError, OSError):
        while True:
            tasks.put(connection.recv())
    # The process is gone, and will run the job anew: two at once must not be.
    os.killpg(0, signal.SIGKILL)  # pragma: no cover (it is too late to write that down)
