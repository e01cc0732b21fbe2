"""The command ``pyams_zmq``: one module for each of its sub-commands."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
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
    'jobs': 'list the jobs of processes',
    'wait': 'wait until jobs have ended',
    'cancel': 'cancel jobs',
    'retry': 'let jobs that failed or were cancelled run again',
    'keys': 'make keys for encrypted connections',
}

_EPILOG = """\
examples:
  pyams_zmq list production.ini
  pyams_zmq status production.ini
  pyams_zmq COMMAND --help
"""

#: As the shell tells it of a program that Ctrl-C has ended, or that nobody listens to any more.
_INTERRUPTED = 130
_UNHEARD = 141


def _make_parsers(command: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Make the parser of the command line, and those of the sub-commands.

    :param command: the sub-command that they are needed for
    """
    parser = argparse.ArgumentParser(
        'pyams_zmq',
        description='Background processes of Pyramid applications.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command not in COMMANDS:
        from ..metrics import version  # noqa: PLC0415 (a health check need not wait for it)

        parser.add_argument('--version', action='version', version=version())
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name, text in COMMANDS.items():
        added = commands.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == command:
            module = import_module(f'.{name}', __name__)
            module.add_arguments(added)
            added.set_defaults(main=module.main)
    return parser, commands.choices


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    :param argv: the command line without the program's name; by default the interpreter's
    :returns: the exit code
    """
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words else ''
    parser, commands = _make_parsers(command)
    # Options may stand between the words of a sub-command, which argparse does not see to by itself.
    known = commands.get(command)
    arguments = parser.parse_args(words) if known is None else known.parse_intermixed_args(words[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # what a test has put there
            stream.reconfigure(errors='backslashreplace')  # type: ignore[union-attr]
    try:
        return int(arguments.main(arguments))
    except SettingError as error:
        print(f'pyams_zmq: {error}', file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Or the interpreter complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNHEARD
