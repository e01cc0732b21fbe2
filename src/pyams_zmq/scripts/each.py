"""What ``pyams_zmq cancel`` and ``pyams_zmq retry`` have in common: a message for each of some jobs."""

import argparse
from collections.abc import Callable

from ..exceptions import ExitCode
from ..wire import Reply
from . import target
from .output import reply_text, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    target.add_words(parser, 'JOB…', 'the ids of the jobs')
    target.add_options(parser)


def call_each(arguments: argparse.Namespace, message_type: str, tell: Callable[[Reply], str]) -> int:
    """Send a message for each job, and show what became of it.

    :param tell: what is shown of a reply that is a success
    :returns: the exit code
    """
    process, jobs = target.find_one(arguments)
    outcomes = []
    for job in dict.fromkeys(jobs):
        reply, _ = process.call(message_type, job, arguments.timeout)
        outcomes.append({'job': job, 'ok': reply.ok, 'status': reply.status, 'body': reply.body})
        if not arguments.json:
            write(f'{job}: {tell(reply) if reply.ok else reply_text(reply)}')
    if arguments.json:
        write_json(outcomes)
    return ExitCode.OK if all(one['ok'] for one in outcomes) else ExitCode.ERROR
