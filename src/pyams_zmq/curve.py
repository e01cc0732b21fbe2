"""CURVE: the files that keys are kept in.

They have the format of :func:`zmq.auth.create_certificates`: ``NAME.key`` holds a public key, ``NAME.key_secret`` both
keys of its owner.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

import zmq.auth
from zmq.utils import z85


class CurveKeys(NamedTuple):
    """The keys that a CURVE socket has of its own, as 0MQ writes them in text: 40 bytes of Z85 each."""

    public: bytes
    secret: bytes


def make_keys(folder: str | os.PathLike[str], name: str) -> tuple[Path, Path]:
    """Make a pair of keys.

    :param folder: where the files go; made where it is missing
    :param name: what the owner is called, for a client its user name
    :returns: the paths of the public key and of the secret one, which only its owner may read
    :raises FileExistsError: where there are keys of that name
    :raises ValueError: where the name is none for a file
    """
    if not name or name != Path(name).name or name.startswith('.'):
        raise ValueError(f'{name!r} cannot name a key file')
    old = os.umask(0o077)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for suffix in ('.key', '.key_secret'):
            if (path := Path(folder, name + suffix)).exists():
                raise FileExistsError(f'{path} exists; keys are not replaced')
        public, secret = (Path(path) for path in zmq.auth.create_certificates(str(folder), name))
    finally:
        os.umask(old)
    public.chmod(0o644)
    return public, secret


def read_secret_key(path: str | os.PathLike[str]) -> CurveKeys:
    """Read a file with a secret key.

    :raises OSError: where it cannot be read
    :raises PermissionError: where others than its owner may read it
    :raises ValueError: where it holds no secret key
    """
    check_private(path)
    public, secret = _load(path)
    if secret is None:
        raise ValueError(f'{path} holds no secret key; give the file that ends with .key_secret')
    return CurveKeys(public, secret)


def read_public_key(path: str | os.PathLike[str]) -> bytes:
    """Read the public key of a file.

    :raises OSError: where it cannot be read
    :raises ValueError: where it holds no key
    """
    return _load(path)[0]


def read_client_keys(folder: str | os.PathLike[str]) -> dict[bytes, str]:
    """Read the public keys of the clients that are let in.

    :param folder: each file ``NAME.key`` in it lets one client in
    :returns: the clients' names by their keys
    :raises OSError: where the folder cannot be read
    :raises ValueError: where a file holds no key, or the folder no files
    """
    if not Path(folder).is_dir():
        raise NotADirectoryError(f'{folder} is no folder with the keys of clients')
    names = {read_public_key(path): path.stem for path in sorted(Path(folder).glob('*.key'))}
    if not names:
        raise ValueError(f'{folder} holds no keys of clients (NAME.key): nobody could be let in')
    return names


def check_private(path: str | os.PathLike[str]) -> None:
    """Refuse a file with secrets that others than its owner may read.

    :raises OSError: where it does not exist
    :raises PermissionError: with what to do
    """
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & 0o077:
        raise PermissionError(f'{path} holds secrets, and others may read it (mode {mode:04o}): chmod 600')


def _load(path: str | os.PathLike[str]) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
        for key in (public, secret):
            if key is not None and len(z85.decode(key)) != 32:
                raise ValueError
    except OSError as error:
        raise type(error)(f'{path} cannot be read: {error.strerror or error}') from None
    except Exception:
        # What the file holds instead stays out of the text: it may be a secret.
        raise ValueError(f'{path} holds no CURVE key as pyams_zmq keys makes them') from None
    return public, secret
