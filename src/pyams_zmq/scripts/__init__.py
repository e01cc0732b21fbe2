"""The command ``pyams_zmq``: one module for each of its sub-commands."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ..exceptions import ExitCode, SettingError

#: The sub-commands and what they do. Each is a module of that name, imported when it is called for: a health
#: check need not wait for what only ``run`` needs. Its ``add_arguments`` takes the parser; its ``main`` takes
#: the arguments, and returns the exit code.
COMMANDS = {
    'list': 'list the processes of an application',
    'run': 'run a process in the foreground',
    'ping': 'ask whether processes answer',
    'status': 'show how processes fare',
    'call': 'send a message and show the reply',
    'keys': 'make keys for encrypted connections',
}

#: As the shell tells it of a program that Ctrl-C has ended.
_INTERRUPTED = 130


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of the command line.

    :param command: the sub-command that it is needed for; None: all
    """
    parser = argparse.ArgumentParser('pyams_zmq', description='Background processes of Pyramid applications.')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name, text in COMMANDS.items():
        added = commands.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if command in (None, name):
            module = import_module(f'.{name}', __name__)
            module.add_arguments(added)
            added.set_defaults(main=module.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    :param argv: the command line without the program's name; by default the interpreter's
    :returns: the exit code
    """
    words = sys.argv[1:] if argv is None else argv
    parser = make_parser(words[0] if words else '')
    arguments = parser.parse_args(words)
    try:
        return int(arguments.main(arguments))
    except SettingError as error:
        print(f'pyams_zmq: {error}', file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
