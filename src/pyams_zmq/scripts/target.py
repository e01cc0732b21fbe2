"""Which process a command speaks to: by ``.ini`` file and name, or by its address."""

import argparse
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..client import ZMQClient
from ..credentials import read_passwords
from ..exceptions import SettingError
from ..wire import Reply, encode

_CREDENTIALS = ('auth_file', 'curve_server_key', 'curve_key')


class Target(NamedTuple):
    """A process that a command speaks to."""

    #: As the application calls it; its address where that is all that is known.
    name: str
    client: ZMQClient

    def call(self, message_type: str, data: Any = None, timeout: float | None = None) -> tuple[Reply, float]:
        """Send a message.

        :param timeout: seconds; None: as the settings tell
        :returns: the reply, a 502 where it cannot be read; and the seconds until it came
        """
        began = time.perf_counter()
        try:
            reply = self.client.send(encode([message_type, data]), timeout=timeout)
        except ValueError as error:
            reply = Reply.undelivered(502, str(error))
        return reply, time.perf_counter() - began


def add_words(parser: argparse.ArgumentParser, rest: str, text: str, most: int | None = None) -> None:
    """Add the words which tell of one process, and what is to be done with it.

    :param rest: what the words after those of the process are, for people
    :param text: likewise, in more words
    :param most: how many of the rest there may be
    """
    parser.usage = f'%(prog)s [options] APP NAME {rest}\n       %(prog)s [options] --address ADDRESS {rest}'
    parser.add_argument(
        'words',
        nargs='+',
        metavar=f'APP NAME {rest}',
        help=f'the .ini file and the name of the process, unless there is an --address; {text}',
    )
    command = parser.prog.split()[-1]
    parser.set_defaults(
        takes=f'{command} takes APP NAME {rest}, or --address ADDRESS {rest}', most=most or math.inf
    )


def add_options(parser: argparse.ArgumentParser, *, timeout: str = 'for the reply of each process') -> None:
    """Add the options that all commands have which speak to a process.

    :param timeout: what its seconds are for
    """
    parser.add_argument('--timeout', type=_seconds, metavar='SECONDS', help=timeout)
    parser.add_argument('--json', action='store_true', help='write JSON, for scripts')
    group = parser.add_argument_group('where no .ini file tells of the process')
    group.add_argument('--address', help="where it listens: 'host:port', 'tcp://host:port' or 'ipc:///path'")
    group.add_argument(
        '--auth-file', metavar='FILE', help='a file with user:password, which only its owner may read'
    )
    group.add_argument('--curve-server-key', metavar='FILE', help='the public key of the process')
    group.add_argument('--curve-key', metavar='FILE', help="a secret key of one's own")


def find(arguments: argparse.Namespace, source: str | None, names: Sequence[str]) -> list[Target]:
    """Find the processes that are meant.

    :param source: the ``.ini`` file; None where an address was given
    :param names: those of the processes; empty for all of the application
    :raises SettingError: where there are none, or not enough was given to find them
    """
    if arguments.address is not None:
        return [_by_address(arguments)]
    if any(getattr(arguments, name) is not None for name in _CREDENTIALS):
        raise SettingError(
            '--auth-file, --curve-server-key and --curve-key go with --address; the .ini file tells what its'
            ' own processes want'
        )
    if source is None:
        raise SettingError('give an .ini file, or the --address of a process')
    from .source import read_declaration, read_declarations  # noqa: PLC0415 (an address needs less)

    found = [read_declaration(source, name) for name in names] or read_declarations(source)
    if not found:
        raise SettingError(f'{source} tells of no process')
    return [Target(declaration.name, declaration.client) for declaration in found]


def find_one(arguments: argparse.Namespace) -> tuple[Target, list[str]]:
    """Find the one process that is meant by what :func:`add_words` has added.

    :returns: the process, and the words after those that tell of it
    :raises SettingError: as :func:`find`, or where there are too few words, or too many
    """
    count = 0 if arguments.address is not None else 2
    which, rest = arguments.words[:count], arguments.words[count:]
    if not 1 <= len(rest) <= arguments.most:
        raise SettingError(arguments.takes)
    source, names = (which[0], which[1:]) if which else (None, [])
    [process] = find(arguments, source, names)
    return process, rest


def _by_address(arguments: argparse.Namespace) -> Target:
    auth, server, own = (getattr(arguments, name) for name in _CREDENTIALS)
    passwords = None if auth is None else read_passwords(auth)
    if (server is None) != (own is None):
        raise SettingError('--curve-server-key and --curve-key go together')
    curve = None if own is None else (server, own)
    try:
        return Target(arguments.address, ZMQClient(arguments.address, passwords, curve=curve))
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError(f'--address: {error}') from None


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no number of seconds above 0')
