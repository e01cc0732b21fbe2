"""``pyams_zmq jobs``: the jobs of processes."""

import argparse
import time
from typing import Any

from .. import figures
from ..exceptions import ExitCode
from . import target
from .output import counted, duration, reply_text, write, write_json, write_table

_EPILOG = """\
The newest first. The exit code is 0 where the processes tell of their jobs, 1 where one does not, and 2 where
the command line or a setting makes no sense.

examples:
  pyams_zmq jobs production.ini
  pyams_zmq jobs production.ini medias --state running
  pyams_zmq jobs production.ini medias --state failed --json | jq -r '.[].jobs[].job'
"""

#: Jobs that a process lists at once.
_PAGE = 1000

#: Characters of a note that a table shows.
_LONGEST_NOTE = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'List the jobs of processes.'
    parser.epilog = _EPILOG
    parser.add_argument('source', nargs='?', metavar='APP', help='the .ini file of the application')
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='name of a process; by default all that have jobs'
    )
    parser.add_argument('--state', choices=figures.STATES, help='only those in this state')
    parser.add_argument(
        '--limit',
        type=_number,
        default=100,
        metavar='N',
        help='how many of each process at most; default: 100',
    )
    target.add_options(parser)


def main(arguments: argparse.Namespace) -> int:
    """Ask the processes, one after the other, and show what they tell."""
    told = []
    for process in target.find(arguments, arguments.source, arguments.names):
        one = _ask(process, arguments)
        if one['status'] != 404 or arguments.names or arguments.address is not None:
            told.append(one)
    if arguments.json:
        write_json([{name: value for name, value in one.items() if name != 'status'} for one in told])
    elif not told:
        write('no process has jobs')
    else:
        for number, one in enumerate(told):
            if number:
                write('')
            _show(one)
    return ExitCode.OK if all(one['ok'] for one in told) else ExitCode.ERROR


def _ask(process: target.Target, arguments: argparse.Namespace) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    before = None
    while True:
        wanted = {
            'state': arguments.state,
            'limit': min(_PAGE, arguments.limit - len(found)),
            'before': before,
        }
        reply, _ = process.call('_jobs', wanted, arguments.timeout)
        page = figures.jobs(reply.body if reply.ok else None)
        found += page['jobs']
        before = page['next']
        if before is None or not page['jobs'] or len(found) >= arguments.limit:
            break
    return {
        'name': process.name,
        'ok': reply.ok,
        'problem': None if reply.ok else reply_text(reply),
        'status': reply.status,
        'counts': page['counts'],
        'jobs': found[: arguments.limit],
    }


def _show(told: dict[str, Any]) -> None:
    if not told['ok']:
        write(f'{told["name"]}: {told["problem"]}')
        return
    write(f'{told["name"]}: {counted(told["counts"])}')
    if told['jobs']:
        now = time.time()
        write_table(
            ('JOB', 'TYPE', 'STATE', 'PROGRESS', 'AGE', 'ATTEMPTS', 'NOTE'),
            [_row(one, now) for one in told['jobs']],
        )


def _row(job: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        job['job'],
        job['type'],
        job['state'] or '-',
        how_far(job['progress']),
        '-' if job['submitted'] is None else duration(max(0, now - job['submitted'])),
        '-' if job['attempts'] is None else f'{job["attempts"]:.0f}',
        shortened(_note(job, now)),
    )


def _note(job: dict[str, Any], now: float) -> str:
    if job['cancelling']:
        return 'has been told that it is not wanted'
    if job['unknown']:
        return 'waits for a delegate with this type'
    note = job['error'] or job['progress']['message']
    if job['retry_at'] is not None:
        note = f'again in {duration(max(0, job["retry_at"] - now))}: {note}'
    return str(note)


def how_far(progress: dict[str, Any]) -> str:
    """Write a progress for people."""
    done, total = progress['done'], progress['total']
    if done is None:
        return '-'
    return f'{done:g}/{total:g} ({done / total:.0%})' if total else f'{done:g}'


def shortened(text: str) -> str:
    """Cut what is too long for a line."""
    return text if len(text) <= _LONGEST_NOTE else text[: _LONGEST_NOTE - 1] + '…'


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
