"""The settings of an ``.ini`` file: one table of them, and how they are read."""

import difflib
import os
import re
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from pyramid.settings import falsey, truthy

from .address import parse_address
from .exceptions import SettingError

#: What all settings begin with.
PREFIX = 'pyams_zmq.'

#: Names that no process can have, since the settings of something else begin with them.
RESERVED = frozenset({'monitor'})

# Short enough for the path of an ipc socket.
_NAME = re.compile('[A-Za-z][A-Za-z0-9_-]{0,31}')

# Segments of a URL's path, without what Pyramid takes for the pattern of a route.
_PATH = re.compile('(/[A-Za-z0-9._~-]+)+')


class Kind(NamedTuple):
    """What a setting takes."""

    #: Makes the value of the text, or of a value given in code; raises :exc:`ValueError` or :exc:`TypeError`.
    read: Callable[[Any], Any]
    #: For people: what is accepted.
    accepts: str
    #: Whether None, given in code, is a value and not the lack of one.
    takes_none: bool = False


class Option(NamedTuple):
    """A setting of one process: ``pyams_zmq.<process>.<option>``."""

    name: str
    kind: Kind
    #: As the documentation tells it.
    default: str
    help: str
    #: Whether it is an attribute of the process, which its ``configure`` takes.
    of_process: bool = False
    #: Whether its value is shown to nobody.
    secret: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _dotted(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


def _auth(value: Any) -> Any:
    return value if isinstance(value, Mapping) else _text(value)


def _file(value: Any) -> str:
    return _text(os.fspath(value))


def _address(value: Any) -> Any:
    address = parse_address(value.strip() if isinstance(value, str) else value)
    if address.transport == 'tcp' and address.port is None:
        raise ValueError
    return address.url


def _number(value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or int(value) < least:
        raise ValueError
    return int(value)


def _patience(value: Any) -> float:
    seconds = float(value)
    if isinstance(value, bool) or not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ValueError
    return seconds


def _seconds(value: Any) -> float:
    seconds = _patience(value)
    if not seconds:
        raise ValueError
    return seconds


def _or_none(kind: Kind) -> Kind:
    def read(value: Any) -> Any:
        return None if value is None or value == 'none' else kind.read(value)

    return Kind(read, f'{kind.accepts}, or none', takes_none=True)


def _start(value: Any) -> str | None:
    if value in ('request', 'app'):
        return str(value)
    if value is False or str(value).lower() in falsey:
        return None
    raise ValueError


def _flag(value: Any) -> bool:
    # asbool would take each typing mistake for a false.
    text = str(value).strip().lower()
    if text not in (*truthy, *falsey):
        raise ValueError
    return text in truthy


def _path(value: Any) -> str:
    path = _text(value).rstrip('/')
    if not _PATH.fullmatch(path):
        raise ValueError
    return path


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value.split() if isinstance(value, str) else value)


def _some_of(*known: str) -> Kind:
    def read(value: Any) -> tuple[str, ...]:
        names = _names(value)
        if not set(names) <= set(known):
            raise ValueError
        return names

    return Kind(read, f'one or more of {", ".join(known)}')


DOTTED = Kind(_dotted, 'a dotted name, as myapp.medias.MediaDelegate')
FACTORY = Kind(_text, 'a dotted name, as myapp.factories:background')
ADDRESS = Kind(_address, "an address with a port ('host:port', 'tcp://host:port') or 'ipc:///path'")
COUNT = Kind(lambda value: _number(value, 0), 'a whole number, 0 or more')
POSITIVE = Kind(lambda value: _number(value, 1), 'a whole number above 0')
SECONDS = Kind(_seconds, 'a number of seconds above 0')
PATIENCE = Kind(_patience, 'a number of seconds, 0 or more')
PATH = Kind(_path, 'a path such as /zmq')
FILE = Kind(_file, 'the path of a file')
KEYS = Kind(_file, 'the path of a folder of .key files, or of one')
NAMES = Kind(_names, 'names')
FLAG = Kind(_flag, 'true or false')
START = Kind(_start, 'request, app or false')

#: The settings of a process.
OPTIONS = {
    option.name: option
    for option in (
        Option('delegate', DOTTED, '', 'the class whose methods are the messages'),
        Option('handler', DOTTED, 'ZMQMessageHandler', 'the class of the message handler'),
        Option('process', DOTTED, 'ZMQProcess', 'the class of the process'),
        Option('app', FACTORY, '', 'what makes the application where pyams_zmq.ini is not given'),
        Option('address', ADDRESS, 'an ipc socket in run_dir', 'where the process listens'),
        Option('auth', Kind(_auth, 'user:password'), '', 'what clients have to present', secret=True),
        Option(
            'auth_file', FILE, '', 'a file with one user:password a line, instead of auth', of_process=True
        ),
        Option('curve_secret_key', FILE, '', "the process's secret key", of_process=True),
        Option('curve_clients', KEYS, '', 'the public keys of its clients', of_process=True),
        Option('curve_server_key', FILE, '', "for clients: the process's public key"),
        Option('curve_key', FILE, '', "for clients: this application's secret key"),
        Option('clients', Kind(_text, 'addresses, networks and host names'), '', 'the hosts that are let in'),
        Option('timeout', SECONDS, '10', 'how long a call may take'),
        Option('start', START, 'request', 'when the process is started'),
        Option('grace', PATIENCE, '10', 'how long the process waits for a next web worker'),
        Option('max_crashes', POSITIVE, '5', 'crashes in a row after which it starts every 5 minutes only'),
        Option('workers', COUNT, '1', 'threads for plain methods; 0: they run on the loop', of_process=True),
        Option('max_in_flight', POSITIVE, '128', 'messages under way at once', of_process=True),
        Option(
            'max_message_size',
            _or_none(POSITIVE),
            '134217728',
            'bytes of a frame, in both directions',
            of_process=True,
        ),
        Option('max_frames', POSITIVE, '256', 'frames of a message', of_process=True),
        Option('high_water_mark', POSITIVE, '1000', 'messages that wait for each peer', of_process=True),
        Option('backlog', POSITIVE, '1024', 'connections that wait to be accepted', of_process=True),
        Option(
            'handshake_timeout',
            _or_none(SECONDS),
            '5',
            'how long a peer may take to introduce itself',
            of_process=True,
        ),
        Option(
            'heartbeat_interval',
            _or_none(SECONDS),
            '30',
            'between two signs of life of a peer',
            of_process=True,
        ),
        Option(
            'reply_timeout',
            _or_none(SECONDS),
            '60',
            'how long a handler that replies later may take',
            of_process=True,
        ),
        Option('stop_timeout', SECONDS, '30', 'how long a graceful end may take', of_process=True),
        Option(
            'journal',
            Kind(_text, 'the path of a file, or :memory:'),
            '',
            'where the jobs are written down',
            of_process=True,
        ),
        Option(
            'executor',
            Kind(_text, 'threads:N, processes:N, dask:ADDRESS, or a dotted name'),
            'threads:4',
            'what runs the jobs, N at once',
            of_process=True,
        ),
        Option('durable', FLAG, 'true', 'whether jobs survive a loss of power', of_process=True),
        Option('max_pending', POSITIVE, '100000', 'jobs that may wait and run', of_process=True),
        Option(
            'max_interruptions',
            POSITIVE,
            '5',
            'how often a job may be running when its process or worker dies',
            of_process=True,
        ),
        Option('max_kept', COUNT, '100000', 'ended jobs that are kept', of_process=True),
    )
}

#: The settings of the application, ``pyams_zmq.<setting>``.
GLOBAL = {
    option.name: option
    for option in (
        Option(
            'ini',
            Kind(_text, 'the path of the file: %(__file__)s'),
            '',
            'the file that a process builds the application from',
        ),
        Option('processes', NAMES, '', 'processes that no code declares'),
        Option(
            'run_dir',
            Kind(_text, 'a path'),
            'pyams_zmq-UID in the folder for temporary files',
            'the folder for sockets and locks',
        ),
    )
}


#: The settings of the monitor, ``pyams_zmq.monitor.<option>``.
MONITOR = {
    option.name: option
    for option in (
        Option('prefix', PATH, '/zmq', 'where the monitor is'),
        Option(
            'public',
            _some_of('page', 'health', 'metrics'),
            '',
            'its views that need no permission',
        ),
        Option('timeout', SECONDS, '1', 'seconds that a process has to answer'),
    )
}


def check_name(name: Any) -> str:
    """Check the name of a process.

    :raises SettingError: where no process can be called so
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED or name in GLOBAL:
        raise SettingError(
            f'{name!r} cannot be the name of a process: it has up to 32 letters, digits, "-" and "_",'
            f' the first one a letter, and is none of {", ".join(sorted((*RESERVED, *GLOBAL)))}'
        )
    return name


def read_global(settings: Mapping[str, Any], name: str) -> Any:
    """Read ``pyams_zmq.<name>``.

    :returns: None where it is not set
    :raises SettingError: where the value makes no sense
    """
    value = settings.get(PREFIX + name)
    return None if _is_empty(value) else _read(GLOBAL[name], PREFIX + name, value)


def read_options(
    settings: Mapping[str, Any],
    process: str,
    given: Mapping[str, Any] | None = None,
    options: Mapping[str, Option] = OPTIONS,
) -> dict[str, Any]:
    """Read the options of a process.

    :param settings: those of the application; an empty value is none at all
    :param process: name of the process, or ``'monitor'``
    :param given: options given in code, which settings win over; None, where it is no value, is none at all
    :param options: those that there are
    :returns: the options that are set, by their names
    :raises SettingError: for an unknown option, or a value that makes no sense
    """
    prefix = f'{PREFIX}{process}.'
    values = {
        name: value
        for name, value in (given or {}).items()
        # Where None is a value, it is meant to be one.
        if value is not None or (name in options and options[name].kind.takes_none)
    }
    values.update(
        (key[len(prefix) :], value)
        for key, value in settings.items()
        if key.startswith(prefix) and not _is_empty(value)
    )
    known = {prefix + name for name in options}
    for name in values:
        if name not in options:
            raise SettingError(f'{prefix}{name} is no setting{nearest(prefix + name, known)}')
    return {name: _read(options[name], prefix + name, value) for name, value in values.items()}


def check_names(settings: Mapping[str, Any], processes: Collection[str]) -> None:
    """Refuse settings that nothing would read.

    :param processes: names of the processes that are declared
    :raises SettingError: with the nearest name that there is
    """
    for key in settings:
        if not key.startswith(PREFIX):
            continue
        name, dot, _ = key[len(PREFIX) :].partition('.')
        if not dot and name not in GLOBAL:
            raise SettingError(f'{key} is no setting{nearest(key, [PREFIX + one for one in GLOBAL])}')
        if dot and name not in processes and name not in RESERVED:
            raise SettingError(f'{key}: no process {name!r} is declared{nearest(name, processes)}')


def process_names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the processes that the settings mention, those listed first."""
    listed = read_global(settings, 'processes') or ()
    mentioned = (key[len(PREFIX) :].partition('.') for key in settings if key.startswith(PREFIX))
    return list(
        dict.fromkeys([*listed, *(name for name, dot, _ in mentioned if dot and name not in RESERVED)])
    )


def _read(option: Option, setting: str, value: Any) -> Any:
    try:
        return option.kind.read(value)
    except (ValueError, TypeError, OverflowError):
        shown = 'what is given' if option.secret else repr(value)
        raise SettingError(f'{setting}: {shown} is not {option.kind.accepts}') from None


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error's text: which of the known names is the nearest."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f'; the nearest is {near[0]}' if near else ''
