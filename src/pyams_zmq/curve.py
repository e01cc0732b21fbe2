"""Keys for encrypted connections: 0MQ's mechanism CURVE, and the files that the keys are in.

The files are certificates as pyzmq's :mod:`zmq.auth` makes them: ``name.key`` holds a public key,
``name.key_secret`` the secret one with it.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

import zmq
from zmq.utils import z85

from .credentials import AnyPath, check_mode, path_text, read_file, shown
from .exceptions import SettingError

_PUBLIC, _SECRET = '.key', '.key_secret'


class KeyPair(NamedTuple):
    """A public key with its secret one, in Z85 (https://rfc.zeromq.org/spec/32/)."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f'<key pair {self.public.decode()}>'


class ServerKeys(NamedTuple):
    """What a process needs."""

    pair: KeyPair
    #: The names of the clients that are let in, by their public keys in 32 bytes.
    clients: dict[bytes, str]

    def add_client(self, name: str) -> 'ClientKeys':
        """Make keys for a further client."""
        pair = KeyPair(*zmq.curve_keypair())
        self.clients[z85.decode(pair.public)] = name
        return ClientKeys(self.pair.public, pair)


class ClientKeys(NamedTuple):
    """What a client needs."""

    #: The public key of the process, in Z85.
    server: bytes
    #: Its own.
    pair: KeyPair


#: What a client's ``curve`` takes.
Curve: TypeAlias = ClientKeys | Sequence[AnyPath]


def read_server_keys(secret_key: AnyPath | None, clients: AnyPath | None) -> ServerKeys | None:
    """Read the keys of a process.

    :param secret_key: file of its secret key
    :param clients: folder with the public keys of the clients that are let in, or the file of a single one
    :returns: None where neither is given
    :raises SettingError: where one is missing or makes no sense; the text tells which, and no secret key
    """
    if secret_key is None and clients is None:
        return None
    if secret_key is None or clients is None:
        raise SettingError(
            'curve_secret_key and curve_clients go together: the key of the process, and those of its clients'
        )
    return ServerKeys(read_secret(secret_key), _read_clients(clients))


def read_client_keys(curve: Curve | None) -> ClientKeys | None:
    """Read the keys of a client.

    :param curve: files with the public key of the process, and with the secret key of the client
    :returns: None where there is nothing to read
    :raises SettingError: where one of them makes no sense
    """
    if curve is None or isinstance(curve, ClientKeys):
        return curve
    try:
        server, own = () if isinstance(curve, (str, bytes)) else curve
    except (TypeError, ValueError):
        raise SettingError(
            "curve is a pair: the file of the process's public key, and that of a secret key of one's own"
        ) from None
    return ClientKeys(read_public(server), read_secret(own))


def read_secret(path: AnyPath) -> KeyPair:
    """Read a secret key.

    :raises SettingError: where there is none in the file, or others may read it
    """
    _check_available()
    name, mode, keys = _read(path)
    if 'secret' not in keys:
        raise SettingError(f'{name} holds no secret key: give the file that ends in {_SECRET}')
    check_mode(name, mode, secret=True)
    public = zmq.curve_public(keys['secret'])
    if keys.get('public', public) != public:
        raise SettingError(f'{name} holds two keys that do not belong together')
    return KeyPair(public, keys['secret'])


def read_public(path: AnyPath) -> bytes:
    """Read a public key.

    :raises SettingError: where there is none in the file, or a secret one, or others may change it
    """
    _check_available()
    name, mode, keys = _read(path)
    if 'secret' in keys:
        raise SettingError(f'{name} holds a secret key: a public one is wanted, whose file ends in {_PUBLIC}')
    if 'public' not in keys:
        raise SettingError(f'{name} holds no key')
    check_mode(name, mode, secret=False)
    return keys['public']


def _read(path: AnyPath) -> tuple[str, int, dict[str, bytes]]:
    name = path_text(path)
    text, mode = read_file(name)
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        field, _, value = line.partition('=')
        kind = {'public-key': 'public', 'secret-key': 'secret'}.get(field.strip())
        if kind is None:
            continue
        if kind in keys:
            raise SettingError(f'{name}, line {number} is a second {kind} key')
        key = value.strip(' \t\'"').encode()
        if not _is_key(key):
            raise SettingError(f'{name}, line {number} is no {kind} key, which has 40 characters of Z85')
        keys[kind] = key
    return name, mode, keys


def _is_key(text: bytes) -> bool:
    with suppress(Exception):  # whatever the decoder raises
        return len(text) == 40 and z85.encode(z85.decode(text)) == text
    return False


def _read_clients(path: AnyPath) -> dict[bytes, str]:
    name = path_text(path)
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 (its path is shown as it was given)
        files = [Path(name)]
        if stat.S_ISDIR(mode):
            check_mode(name, mode, secret=False)
            # An editor's own files begin with a dot.
            files = sorted(
                file
                for file in Path(name).iterdir()
                if file.suffix == _PUBLIC and not file.name.startswith('.')
            )
    except OSError as error:
        raise SettingError(f'{shown(name)} cannot be read: {error.strerror}') from None
    clients: dict[bytes, str] = {}
    for file in files:
        key = z85.decode(read_public(file))
        if key in clients:
            raise SettingError(f'{file} holds the same key as {clients[key]}{_PUBLIC}')
        clients[key] = _client_name(file)
    if not clients:
        raise SettingError(f'{name} holds no key of a client (a file *{_PUBLIC}): nobody could get in')
    return clients


def _client_name(file: Path) -> str:
    if not file.stem.isprintable():  # nor is what the system could not decode
        raise SettingError(f'{str(file)!r}: the name of a client is text that can be shown')
    return file.stem


def _check_available() -> None:
    if not zmq.has('curve'):
        raise SettingError(
            f'this libzmq ({zmq.zmq_version()}) was built without CURVE: install one with it, as'
            ' "pip install --force-reinstall --only-binary pyzmq pyzmq" does'
        )


class KeyFiles(NamedTuple):
    """The files of a pair of keys that was made."""

    public: Path
    secret: Path
    public_key: str


def make_keys(path: AnyPath) -> KeyFiles:
    """Make a pair of keys.

    :param path: the path of both files, without what they end in
    :returns: the files, the secret one of which its owner alone may read
    :raises SettingError: where one is there already, or cannot be written
    """
    _check_available()
    name = path_text(path)
    files = Path(name + _PUBLIC), Path(name + _SECRET)
    stem = files[0].stem
    if not stem or stem.startswith('.') or name.endswith((_PUBLIC, _SECRET, '/')):
        raise SettingError(f'{name!r} ends in no name of a key, as keys/web does')
    _client_name(files[0])
    public, secret = (key.decode() for key in zmq.curve_keypair())
    contents = (
        f'#   The public key of {stem}.\n\ncurve\n    public-key = "{public}"\n',
        f'#   The secret key of {stem}: nobody else may read this file.\n\n'
        f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n',
    )
    made: list[Path] = []
    try:
        for file, content, mode in zip(files, contents, (0o644, 0o600), strict=True):
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(file)
            with os.fdopen(fd, 'w', encoding='utf-8') as opened:
                os.fchmod(fd, mode)
                opened.write(content)
    except OSError as error:
        for one in made:
            one.unlink()
        raise SettingError(f'{file} cannot be made: {error.strerror}') from None
    return KeyFiles(*files, public)
