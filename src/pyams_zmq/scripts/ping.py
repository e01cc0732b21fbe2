"""``pyams_zmq ping``: do processes answer?"""

import argparse

from ..exceptions import ExitCode
from . import target
from .output import reply_text, write, write_json

_EPILOG = """\
For health checks. The exit code is 0 where each process answers, 1 where one does not, and 2 where the
command line or a setting makes no sense.

examples:
  pyams_zmq ping production.ini
  pyams_zmq ping production.ini medias --timeout 2
  pyams_zmq ping --address tcp://127.0.0.1:5555
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Ask whether processes answer.'
    parser.epilog = _EPILOG
    parser.add_argument('source', nargs='?', metavar='APP', help='the .ini file of the application')
    parser.add_argument('names', nargs='*', metavar='NAME', help='name of a process; by default all of them')
    target.add_options(parser)


def main(arguments: argparse.Namespace) -> int:
    """Ask the processes, one after the other."""
    outcomes = []
    for one in target.find(arguments, arguments.source, arguments.names):
        reply, seconds = one.call('_ping', timeout=arguments.timeout)
        outcomes.append(
            {'name': one.name, 'ok': reply.ok, 'status': reply.status, 'body': reply.body, 'seconds': seconds}
        )
        if not arguments.json:
            answer = f'answers in {seconds * 1000:.1f} ms' if reply.ok else reply_text(reply)
            write(f'{one.name}: {answer}')
    if arguments.json:
        write_json(outcomes)
    return ExitCode.OK if all(one['ok'] for one in outcomes) else ExitCode.ERROR
