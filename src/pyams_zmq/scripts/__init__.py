"""The command ``pyams_zmq``: one module for each of its sub-commands."""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from ..exceptions import ExitCode, SettingError
from . import run

#: Each has ``add_parser(commands)``, which sets the default ``main`` of its parser: called with the
#: arguments, it returns the exit code.
COMMANDS: tuple[ModuleType, ...] = (run,)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    :param argv: the command line without the program's name; by default the interpreter's
    :returns: the exit code
    """
    parser = argparse.ArgumentParser('pyams_zmq', description='Background processes of Pyramid applications.')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.main(arguments))
    except SettingError as error:
        print(f'pyams_zmq: {error}', file=sys.stderr)
        return ExitCode.USAGE
