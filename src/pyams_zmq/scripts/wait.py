"""``pyams_zmq wait``: wait until jobs have ended."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from .. import figures
from ..exceptions import ExitCode
from ..jobs.client import ending
from ..wire import Reply
from . import target
from .bars import Show, showing
from .jobs import how_far, shortened
from .output import reply_text, write, write_json

_EPILOG = """\
While the process is away, being started again for example, it is waited for, too. On a terminal there is a
bar for each job where rich is installed: pip install 'pyams_zmq[progress]'.

The exit code is 0 where all jobs are done, 1 where one has failed, is not known, or the process refuses to
tell, 2 where the command line or a setting makes no sense, 3 where one was cancelled, and 4 where one has not
ended in time. Where several of them apply it is 4, else 1, else 3.

examples:
  pyams_zmq wait production.ini medias holiday-7
  pyams_zmq wait production.ini medias holiday-7 holiday-8 --timeout 600
  pyams_zmq wait --address ipc:///run/app/medias.sock --json holiday-7
"""

_CANCELLED = 3
_TIMEOUT = 4

#: Seconds between two looks at the jobs: at first, and at most.
_FIRST_LOOK = 0.02
_LAST_LOOK = 0.5

_Outcomes = dict[str, tuple[str, Reply]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Wait until jobs of a process have ended, and show how far they are.'
    parser.epilog = _EPILOG
    target.add_words(parser, 'JOB…', 'the ids of the jobs')
    target.add_options(parser, timeout='to wait at most; by default for ever')


def main(arguments: argparse.Namespace) -> int:
    """Wait for the jobs."""
    process, words = target.find_one(arguments)
    jobs = list(dict.fromkeys(words))
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with showing(jobs) as show:
        outcomes = _wait(process, jobs, deadline, show)
    if arguments.json:
        write_json([{'job': job, **_told(*outcomes.get(job, ('', None)))} for job in jobs])
    else:
        for job in jobs:
            write(f'{job}: {_text(*outcomes.get(job, ("", None)))}')
    return _exit_code(jobs, outcomes)


def _wait(process: target.Target, jobs: Sequence[str], deadline: float | None, show: Show) -> _Outcomes:
    """Return the states and the outcomes of those jobs that have ended in time."""
    outcomes: _Outcomes = {}
    pause = _FIRST_LOOK
    while True:
        for job in jobs:
            if job not in outcomes:
                reply, outcome = _look(process, job, deadline)
                state = _show(show, job, reply)
                if outcome is not None:
                    outcomes[job] = state, outcome
                elif not reply.delivered:
                    break  # the process is away
        if len(outcomes) == len(jobs) or (deadline is not None and time.monotonic() + pause >= deadline):
            return outcomes
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_LOOK)


def _look(process: target.Target, job: str, deadline: float | None) -> tuple[Reply, Reply | None]:
    seconds = process.client.timeout
    if deadline is not None:
        seconds = max(0.001, min(seconds, deadline - time.monotonic()))
    reply, _ = process.call('_job', job, seconds)
    if reply.status == 502:  # it cannot be read
        return reply, reply
    try:
        return reply, ending(job, reply)
    except ValueError as error:
        reply = Reply.undelivered(502, str(error))
        return reply, reply


def _show(show: Show, job: str, reply: Reply) -> str:
    """Show how far a job is; return its state."""
    if not reply.ok:
        show(
            job,
            'away:' if not reply.delivered else '?',
            None,
            None,
            shortened(reply_text(reply)),
        )
        return ''
    told = figures.job(reply.body)
    state, progress = str(told['state']), told['progress']
    if state == 'done':
        show(job, state, 1, 1, '')
    elif state in ('failed', 'cancelled'):
        show(job, state, 0, 1, '')
    else:
        far = how_far(progress) if progress['done'] is not None else ''
        show(
            job, state, progress['done'], progress['total'], shortened(f'{far} {progress["message"]}'.strip())
        )
    return state


def _told(state: str, outcome: Reply | None) -> dict[str, Any]:
    status, body = (None, None) if outcome is None else outcome
    return {'state': state or None, 'status': status, 'body': body}


def _text(state: str, outcome: Reply | None) -> str:
    return 'has not ended in time' if outcome is None else f'{state} {reply_text(outcome)}'.lstrip()


def _exit_code(jobs: Sequence[str], outcomes: _Outcomes) -> int:
    if len(outcomes) < len(jobs):
        return _TIMEOUT
    states = {state for state, _ in outcomes.values()}
    if states == {'done'}:
        return ExitCode.OK
    return _CANCELLED if states <= {'done', 'cancelled'} else ExitCode.ERROR
