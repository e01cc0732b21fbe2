"""``pyams_zmq list``: the processes of an application."""

import argparse
from typing import Any

from ..declaration import Declaration
from ..exceptions import ExitCode
from .output import write_json, write_table
from .source import read_declarations

_EPILOG = """\
Processes that the application declares in its code, without a setting, are listed once they have been
started.

examples:
  pyams_zmq list production.ini
  pyams_zmq list production.ini --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        'List the processes of an application, as its .ini file tells; it is not built for that.'
    )
    parser.epilog = _EPILOG
    parser.add_argument('source', metavar='APP', help='the .ini file of the application')
    parser.add_argument('--json', action='store_true', help='write JSON, for scripts')


def main(arguments: argparse.Namespace) -> int:
    """List the processes."""
    found = [_row(declaration) for declaration in read_declarations(arguments.source)]
    if arguments.json:
        write_json(found)
    else:
        write_table(
            ('NAME', 'ADDRESS', 'START', 'DELEGATE'),
            [(one['name'], one['address'], one['start'], one['delegate'] or 'told in code') for one in found],
        )
    return ExitCode.OK


def _row(declaration: Declaration) -> dict[str, Any]:
    return {
        'name': declaration.name,
        'address': str(declaration.options.get('address') or f'ipc://{declaration.run_dir.socket}'),
        'start': declaration.start or 'false',
        'delegate': declaration.options.get('delegate'),
    }
