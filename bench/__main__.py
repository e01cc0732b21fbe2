"""``python -m bench``: sets up the environments, measures, and writes the report."""

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from . import facts, report, rounds
from .entrants import CLIENT, OURS, ROUTER
from .environments import FOLDER, REQUIREMENTS, python_of, set_up
from .figures import ratio
from .tables import EXECUTORS, FACTS, TABLES, Table
from .targets import All

#: Rounds, and seconds of a measurement.
_ROUNDS, _SECONDS = 7, 0.3

#: For a quick look: tables and their columns; and what even a busy machine reaches.
_QUICK = {'sequence': '100 B', 'clients': '8', 'views': '100 B'}
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser('python -m bench', description=__doc__)
    parser.add_argument(
        '--quick', action='store_true', help='a look without the peers: are the ratios what they ought to be?'
    )
    parser.add_argument('--only', choices=['executors'], help='what runs jobs, for the page about that')
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=FOLDER) as folder:
        os.environ['TMPDIR'] = folder  # it is on a disk, as what has to be durable
        return _quick() if arguments.quick else _executors() if arguments.only else _whole()


def _executors() -> int:
    set_up('dask')
    pythons = {'dask': python_of('dask')}
    results = _measure(EXECUTORS, pythons, _QUICK_ROUNDS, _QUICK_SECONDS)
    report.write_executors(results, report.machine(pythons))
    print('\n'.join(report.tables(results)))
    return 0


def _measure(tables: Iterable[Table], pythons: dict[str, Path], number: int, seconds: float) -> All:
    results: All = {}
    for table in tables:
        print(f'{table.title} …', flush=True)
        results[table.key] = rounds.measure(table, number, seconds, pythons)
    return results


def _whole() -> int:
    from .plot import plot  # noqa: PLC0415 (matplotlib is needed here only)

    for name in REQUIREMENTS:
        set_up(name)
    pythons = {name: python_of(name) for name in REQUIREMENTS}
    results = _measure(TABLES, pythons, _ROUNDS, _SECONDS)
    print(f'{FACTS.title} …', flush=True)
    results[FACTS.key] = facts.measure(_ROUNDS, pythons)
    report.write(results, report.machine(pythons))
    plot(results['clients'], report.FOLDER)
    print(f'Written to {report.FOLDER.relative_to(Path.cwd())}')
    return 0


def _quick() -> int:
    pythons = {name: Path(sys.executable) for name in ('pyams', 'xmlrpc')}
    results: All = {}
    for table in TABLES:
        if table.key in _QUICK:
            column = _QUICK[table.key]
            short = replace(table, columns={column: table.columns[column]})
            results[table.key] = rounds.measure(short, _QUICK_ROUNDS, _QUICK_SECONDS, pythons)
    print('\n'.join(report.tables(results)))
    wrong = [text for text, found, least in _looks(results) if found is None or found < least]
    print(*wrong, sep='\n', file=sys.stderr)
    return len(wrong)


def _looks(results: All) -> list[tuple[str, float | None, float]]:
    """Ratios with wide margins: what is below its bound is wrong, and not noise."""
    return [
        ('throughput to the ROUTER floor', ratio(results['clients'], '8', 'rate', OURS, ROUTER), 0.3),
        ('one call: the ROUTER floor to ours', ratio(results['sequence'], '100 B', 'p50', ROUTER, OURS), 0.3),
        ("a view's call to ZMQClient", ratio(results['views'], '100 B', 'p50', OURS, CLIENT), 1.2),
    ]


if __name__ == '__main__':
    sys.exit(main())
