"""The private folder of a declared process: its socket, and its locks."""

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from .exceptions import SettingError

# struct sockaddr_un has room for 104 bytes on macOS and the BSDs, 108 on Linux, the final zero included.
_LONGEST_PATH = 103


class RunDir:
    """The folder of one process of one application, which its user alone may enter.

    :param source: what the application is built from: the path of an ``.ini`` file, or a dotted name
    :param name: name of the process
    :param parent: the setting ``pyams_zmq.run_dir``; None: a folder of the user's in that for temporary files
    """

    def __init__(self, source: str, name: str, parent: str | None = None) -> None:
        self._is_own = parent is None
        self._parent = _parent(parent)
        self.path = self._parent / f'{name}-{_key(source)}'

    @property
    def socket(self) -> Path:
        """Path of the ipc socket.

        :raises SettingError: where the system could not take it, since it is too long
        """
        path = self.path / 'socket'
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise SettingError(
                f'{path} is too long for a socket; let pyams_zmq.run_dir be a folder with a shorter path'
            )
        return path

    @property
    def owner(self) -> Path:
        """Path of the owner's lock: who holds it is the process, or about to start it."""
        return self.path / 'owner'

    @property
    def users(self) -> Path:
        """Path of the users' lock, which the web workers share."""
        return self.path / 'users'

    def make(self) -> 'RunDir':
        """Make the folder where it is missing.

        :raises SettingError: where it cannot be made, or another user could enter it
        """
        try:
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_own:
                _check_private(self._parent)
            self.path.mkdir(mode=0o700, exist_ok=True)
            _check_private(self.path)
        except OSError as error:
            raise SettingError(f'pyams_zmq.run_dir: {error.strerror}: {error.filename}') from None
        return self

    def claim(self) -> None:
        """Make sure, for a client, that nobody else can listen there: make the folder where it is missing.

        Unless it is another user's to make it: the process could not start in it then.

        :raises SettingError: as :meth:`make`
        """
        if self.path.exists() or self._is_own or not _is_anothers(self._parent):
            self.make()


def started_names(source: str, parent: str | None = None) -> list[str]:
    """Return the names of an application's processes that have been started, here and by this user.

    :param source: as for :class:`RunDir`
    :param parent: likewise
    """
    return sorted(path.name.rpartition('-')[0] for path in _parent(parent).glob(f'*-{_key(source)}'))


def _parent(parent: str | None) -> Path:
    return Path(parent or Path(tempfile.gettempdir(), f'pyams_zmq-{os.getuid()}')).absolute()


def _key(source: str) -> str:
    return hashlib.sha256(_identity(source).encode()).hexdigest()[:12]


def _is_anothers(folder: Path) -> bool:
    """Whether only another user, and root, may make something in a folder."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid != os.getuid() and not status.st_mode & stat.S_IWOTH


def _check_private(folder: Path) -> None:
    # Somebody else may have made it first, where everybody may write.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, 'this user owns no such folder', str(folder))
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(errno.EPERM, 'others may enter it (chmod 700)', str(folder))


def _identity(source: str) -> str:
    path, mark, section = source.partition('#')
    return os.path.realpath(path) + mark + section if Path(path).exists() else source
