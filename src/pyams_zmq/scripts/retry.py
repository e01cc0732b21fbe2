"""``pyams_zmq retry``: let jobs run again."""

import argparse

from . import each

_EPILOG = """\
The exit code is 0 where each job will run, 1 where one is done already, is not known or cannot be reached,
and 2 where the command line or a setting makes no sense.

examples:
  pyams_zmq retry production.ini medias holiday-7
  pyams_zmq jobs production.ini medias --state failed --json | jq -r '.[].jobs[].job' |
      xargs pyams_zmq retry production.ini medias
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Let jobs of a process that failed or were cancelled run again.'
    parser.epilog = _EPILOG
    each.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Let the jobs run."""
    return each.call_each(arguments, '_retry', lambda _reply: 'will run')
