"""``pyams_zmq cancel``: cancel jobs."""

import argparse

from . import each

_EPILOG = """\
A job that runs is told that it is not wanted; it ends when it asks, or at once where it runs in a worker
process. The exit code is 0 where each job was cancelled or told, 1 where one had ended already, is not known
or cannot be reached, and 2 where the command line or a setting makes no sense.

examples:
  pyams_zmq cancel production.ini medias holiday-7
  pyams_zmq cancel --address ipc:///run/app/medias.sock holiday-7 holiday-8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Cancel jobs of a process.'
    parser.epilog = _EPILOG
    each.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Cancel the jobs."""
    return each.call_each(
        arguments, '_cancel', lambda reply: 'runs, and has been told' if reply.status == 202 else 'cancelled'
    )
