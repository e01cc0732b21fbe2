"""``pyams_zmq status``: how processes fare."""

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..exceptions import ExitCode
from ..figures import figures
from . import target
from .output import counted, duration, reply_text, write, write_json, write_table

_EPILOG = """\
Times of messages are those of the last five minutes: half of them, 90 % and 99 % did not take longer. The
exit code is 0 where each process answers, 1 where one does not, and 2 where the command line or a setting
makes no sense.

examples:
  pyams_zmq status production.ini
  pyams_zmq status production.ini medias --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Show how processes fare.'
    parser.epilog = _EPILOG
    parser.add_argument('source', nargs='?', metavar='APP', help='the .ini file of the application')
    parser.add_argument('names', nargs='*', metavar='NAME', help='name of a process; by default all of them')
    target.add_options(parser)


def main(arguments: argparse.Namespace) -> int:
    """Ask the processes, one after the other, and show what they tell."""
    told = []
    for process in target.find(arguments, arguments.source, arguments.names):
        reply, _ = process.call('_status', timeout=arguments.timeout)
        state = {'name': process.name, 'ok': reply.ok, 'problem': None}
        if not reply.ok:
            state['problem'] = reply_text(reply)
        told.append({**state, **figures(reply.body if reply.ok else None)})
    if arguments.json:
        write_json(told)
    else:
        _show(told)
    return ExitCode.OK if all(one['ok'] for one in told) else ExitCode.ERROR


def _show(told: list[dict[str, Any]]) -> None:
    up = [one for one in told if one['ok']]
    if up:
        write_table(['NAME', *(head for head, _, _ in _COLUMNS)], map(_row, up))
    for one in told:
        if not one['ok']:
            write(f'{one["name"]}: {one["problem"]}')
    for one in up:
        if one['jobs'] is not None:
            write(f'\nJobs of {one["name"]}: {counted(one["jobs"])}')
    for one in up:
        if one['failures']:
            write(f'\nThe last failures of {one["name"]}:')
            write_table(('TIME', 'TYPE', 'ERROR'), map(_failure, one['failures']))


def _row(told: dict[str, Any]) -> list[str]:
    values = {**told, **told['latency']}
    return [told['name'], *('-' if values[key] is None else show(values[key]) for _, key, show in _COLUMNS)]


def _failure(failure: dict[str, Any]) -> tuple[str, str, str]:
    try:
        when = f'{datetime.fromtimestamp(failure["time"]):%Y-%m-%d %H:%M:%S}'
    except (TypeError, ValueError, OverflowError, OSError):
        when = '-'
    return when, failure['type'], failure['error']


def _plain(value: float) -> str:
    return f'{value:.0f}'


def _number(value: float) -> str:
    return f'{value:,.0f}'


def _megabytes(size: float) -> str:
    return f'{size / 1_000_000:,.0f} MB'


def _milliseconds(seconds: float) -> str:
    return f'{seconds * 1000:,.1f} ms'


#: What is shown of a process: the column's head, the figure's name, and how it is written.
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ('PID', 'pid', _plain),
    ('UP', 'uptime', duration),
    ('SERVED', 'served', _number),
    ('FAILED', 'failed', _number),
    ('UNDER WAY', 'in_flight', _number),
    ('WAITING', 'waiting', _number),
    ('50 %', 'p50', _milliseconds),
    ('90 %', 'p90', _milliseconds),
    ('99 %', 'p99', _milliseconds),
    ('MEMORY', 'memory', _megabytes),
    ('VERSION', 'version', str),
)
