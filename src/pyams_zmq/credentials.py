"""User names and passwords, and how files are read that others must not read or change."""

import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from os import PathLike
from typing import TypeAlias

from .exceptions import SettingError

#: The path of a file or folder.
AnyPath: TypeAlias = str | PathLike[str]

#: What ``auth`` takes.
Auth: TypeAlias = str | Mapping[str, str]

# RFC 24/ZMTP-PLAIN counts both lengths in one octet.
_PLAIN_LIMIT = 255

# Bytes of a file with passwords or keys, which has some thousand lines at most.
_LARGEST_FILE = 1024 * 1024

# What may be a secret where no file is: user:password, what a file holds, a key in Z85 (without its colon).
_PERHAPS_SECRET = re.compile(r"""[:\n]|^[ '"]*[0-9a-zA-Z.+=^!/*?&<>()\[\]{}@%$#-]{40}[ '"]*$""")

_READABLE_BY_OTHERS = 0o077
_WRITABLE_BY_OTHERS = 0o022


class Passwords(dict[str, str]):
    """User names with their passwords, which a ``repr`` does not show; a client presents the first."""

    @property
    def first(self) -> tuple[str, str]:
        """A client's own user name and password."""
        return next(iter(self.items()))

    def __repr__(self) -> str:
        return f'<passwords of {len(self)} users>'


def parse_auth(auth: Auth | None) -> Passwords | None:
    """Read ``'user:password'``, where the password may hold further colons, or ``{'user': 'password', …}``.

    :returns: None where there is nothing to read
    :raises SettingError: where it makes no sense; the text does not tell the password
    """
    if isinstance(auth, Mapping):
        if not auth:
            raise SettingError('auth names no user; None lets everybody in')
        for user, password in auth.items():
            _check(user, password, 'auth')
        return Passwords(auth)
    if not auth:
        return None
    user, colon, password = auth.partition(':') if isinstance(auth, str) else ('', '', '')
    if not (user and colon and password):
        raise SettingError(
            "auth is 'user:password', with a colon between the two and neither empty, or a mapping of user"
            ' names to passwords'
        )
    _check(user, password, 'auth')
    return Passwords({user: password})


def _check(user: object, password: object, source: str) -> None:
    if not (isinstance(user, str) and isinstance(password, str) and user and password):
        raise SettingError(f'{source}: user names and passwords are text, and none is empty')
    if ':' in user:
        raise SettingError(f'{source}: the name of a user has no colon, with which the password begins')
    try:
        longest = max(len(user.encode()), len(password.encode()))
    except UnicodeEncodeError:
        # Without the original, which shows the password.
        raise SettingError(f'{source} holds characters that UTF-8 does not have') from None
    if longest > _PLAIN_LIMIT:
        raise SettingError(f'{source} takes user names and passwords of at most {_PLAIN_LIMIT} bytes')


def read_passwords(path: AnyPath) -> Passwords:
    """Read a file with ``user:password`` in each line.

    Blank lines, and those that begin with ``#``, are skipped.

    :raises SettingError: where it cannot be read, others may read it, or a line makes no sense; the text
        tells the file and the number of the line, and nothing that it holds
    """
    name = path_text(path)
    text, mode = read_file(name)
    check_mode(name, mode, secret=True)
    passwords = Passwords()
    lines: dict[str, int] = {}
    for number, line in _lines(text):
        source = f'{name}, line {number}'
        if line != line.strip() or not line.isprintable():
            raise SettingError(f'{source} holds what cannot be seen, such as white space at its end')
        user, _, password = line.partition(':')
        if not (user and password):
            raise SettingError(f'{source} is not user:password')
        if user in lines:
            raise SettingError(f'{source} is about the same user as line {lines[user]}')
        _check(user, password, source)
        passwords[user], lines[user] = password, number
    if not passwords:
        raise SettingError(f'{name} holds no user:password')
    return passwords


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): a password may hold what Unicode takes for the end of a line.
    for number, line in enumerate(text.split('\n'), 1):
        if line.strip() and not line.lstrip().startswith('#'):
            yield number, line.removesuffix('\r')


def read_file(name: str) -> tuple[str, int]:
    """Read a small file.

    :returns: what it holds, and its mode
    :raises SettingError: where it cannot be read; the text tells the file and nothing that it holds
    """
    try:
        # Not to wait for whoever writes into what may be a pipe.
        with open(name, 'rb', opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SettingError(f'{name} is no file')
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SettingError(f'{shown(name)} cannot be read: {error.strerror}') from None
    if len(data) > _LARGEST_FILE:
        raise SettingError(f'{name} has more than {_LARGEST_FILE} bytes')
    try:
        return data.decode('utf-8-sig'), mode
    except UnicodeDecodeError:
        # Without the original, which shows what it holds.
        raise SettingError(f'{name} is not written in UTF-8') from None


def path_text(path: object) -> str:
    """Return a path as text.

    :raises SettingError: where it is none
    """
    name = os.fspath(path) if isinstance(path, PathLike) else path
    if isinstance(name, str) and name and '\0' not in name:
        with suppress(UnicodeEncodeError):
            os.fsencode(name)
            return name
    # Not shown: it may be the secret itself, as bytes or a mapping.
    raise SettingError(f'what is given ({type(path).__name__}) is no path of a file')


def shown(name: str) -> str:
    """Return a path as an error may show it, unless it may be what should be in the file."""
    if os.path.lexists(name) or not _PERHAPS_SECRET.search(name):
        return name
    return 'what is given (not shown: it may be the secret itself, where the path of its file is wanted)'


def check_mode(name: str, mode: int, *, secret: bool) -> None:
    """Refuse a file or folder that others may change or, where it is secret, read.

    :param mode: as :func:`os.stat` tells it
    :raises SettingError: where they may, with what to do
    """
    if mode & (_READABLE_BY_OTHERS if secret else _WRITABLE_BY_OTHERS):
        what, remedy = ('read', 'chmod 600') if secret else ('change', 'chmod go-w')
        raise SettingError(
            f'{name} has mode {stat.S_IMODE(mode):04o}, so others may {what} it: {remedy} {shlex.quote(name)}'
        )
