"""Locks on files, between processes: the kernel drops them with those who hold them."""

import fcntl
import os
import threading
import weakref
from contextlib import suppress
from pathlib import Path

#: While this is held, no thread forks the process: a copy made just then would keep what it should not, a
#: lock which is not known yet, or the pipe over which a process that is being executed tells that it is.
no_fork = threading.RLock()


class FileLock:
    """A lock that is held, and what its file says.

    :param fd: an open descriptor of the file, which belongs to the lock from then on
    """

    def __init__(self, fd: int) -> None:
        # Held by all copies of the descriptor together, so none may get into other processes unasked.
        os.set_inheritable(fd, False)
        self._fd = fd
        _held.add(self)

    @classmethod
    def take(cls, path: Path, *, shared: bool = False, wait: bool = False) -> 'FileLock | None':
        """Take the lock on a file, which is made where it is missing.

        :param shared: whether others may hold a shared one, too
        :param wait: whether to wait until that is possible
        :returns: None where it is not possible now
        :raises OSError: where the file cannot be opened
        """
        with no_fork:
            # Where others may write to the folder, one of them may have put a link to another file there.
            lock = cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise
        return lock

    @classmethod
    def adopt(cls, fd: int) -> 'FileLock':
        """Take over a lock that this process has been given.

        :raises OSError: where the descriptor is none of a lock
        """
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(fd)

    def share(self) -> None:
        """Let others take a shared lock."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def read(self) -> str:
        """What the file says."""
        return os.pread(self._fd, 4096, 0).decode(errors='replace')

    def write(self, text: str) -> None:
        """Let the file say something else."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def is_of(self, path: Path) -> bool:
        """Whether it is the lock of the file at that path, and not of one that has been removed from there.

        :raises OSError: where that cannot be seen
        """
        try:
            there = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def touch(self) -> None:
        """Let the file look new, so that it is spared by what removes old ones."""
        os.utime(self._fd)

    def close(self) -> None:
        """Give this copy of the lock up; it is free once there is no other."""
        # Never LOCK_UN, which would take it from a process that was given a copy.
        with no_fork:
            if self in _held:
                _held.discard(self)
                os.close(self._fd)


_held: 'weakref.WeakSet[FileLock]' = weakref.WeakSet()


def _in_child() -> None:
    no_fork.release()
    for lock in list(_held):
        with suppress(OSError):
            lock.close()


os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=_in_child)
