"""``pyams_zmq run``: a process in the foreground, for systemd, a container, or the web workers."""

import argparse
from typing import Any

from pyramid.config import global_registries
from pyramid.paster import get_app, setup_logging

from ..declaration import declarations
from ..include import building

EXAMPLES = """\
examples:
  pyams_zmq run production.ini medias
"""


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        'run',
        help='run a process in the foreground',
        description='Build the application and run one of its processes in the foreground.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='APP', help='the .ini file of the application')
    parser.add_argument('name', metavar='NAME', help='the name of the process')
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    """Run the process until it is asked to end."""
    setup_logging(arguments.source)
    token = building.set(arguments.source)
    get_app(arguments.source)
    building.reset(token)
    registry = global_registries.last
    declarations(registry).find(arguments.name).make_process(registry).run()
    return 0
