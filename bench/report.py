"""The figures as tables in the documentation."""

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

from .environments import ROOT, installed
from .figures import figure
from .tables import EXECUTORS, FACTS, TABLES, Metric, Table
from .targets import OWN_IMPORT, TARGETS, All, own_import, slower_than

#: Where the report is written.
FOLDER = ROOT / 'docs' / 'benchmarks'

#: Distributions whose versions are told, by environment.
_TOLD = {
    'pyams': ('pyzmq', 'tornado'),
    'zerorpc': ('zerorpc', 'gevent'),
    'rpyc': ('rpyc',),
    'pyro5': ('pyro5',),
    'huey': ('huey',),
    'dask': ('distributed',),
}


def machine(pythons: dict[str, Path]) -> dict[str, str]:
    """Describe what is measured on, without its name."""
    versions = [
        f'{name} {version}'
        for environment, told in _TOLD.items()
        if environment in pythons
        for name, version in installed(pythons[environment]).items()
        if name.lower() in told
    ]
    system = f'{platform.system()} {platform.release().partition("-")[0]} {platform.machine()}'
    return {
        'Processor': f'{os.cpu_count()} cores, {_processor()}',
        'System': f'{system}, {platform.python_implementation()} {platform.python_version()}',
        'Versions': ', '.join(versions),
    }


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(': ')[2] for line in lines if line.startswith('model name')), 'unknown')


def write(results: All, told: dict[str, str]) -> None:
    """Write the report."""
    _write('tables.inc', [*_machine(told), *_targets(results), *tables(results)])


def write_executors(results: All, told: dict[str, str]) -> None:
    """Write what was measured of the executors."""
    _write('executors.inc', [*_machine(told), *tables(results)])


def _write(name: str, lines: Iterable[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text('\n'.join(lines).rstrip() + '\n')


def _machine(told: dict[str, str]) -> Iterator[str]:
    for name, text in told.items():
        yield f':{name}: {text}'
    yield ''


def _targets(results: All) -> Iterator[str]:
    yield from _section('Targets')
    rows = [('ratio', 'target', 'reached', '')]
    for target in TARGETS:
        reached = target.reached(results)
        if reached is not None:
            bound = f'at least {target.least:g}' if target.least else f'at most {target.most:g}'
            met = target.least <= reached <= target.most
            rows.append((target.text, bound, f'{reached:.2f}', _met(met)))
    own = own_import(results)
    if own is not None:
        bound = f'at most {OWN_IMPORT:g} ms'
        rows.append(('import of its own modules', bound, f'{own:.1f} ms', _met(own <= OWN_IMPORT)))
    yield from _list_table(rows)
    slower = list(slower_than(results))
    yield 'Faster than each of the RPC libraries, or as fast within 5 %, in every column' + (
        ', but for:' if slower else '.'
    )
    yield ''
    yield from (f'- {title}, {column}: {name} ({found:.2f})' for title, column, name, found in slower)
    yield ''


def _met(met: bool) -> str:
    return 'met' if met else '**not met**'


def tables(results: All) -> Iterator[str]:
    """Return the lines of all tables; a cell has the median, the quartiles, the ratio to the first line."""
    for table in (*TABLES, FACTS, *EXECUTORS):
        if table.key not in results:
            continue
        yield from _section(table.title)
        for metric in table.metrics:
            if metric.title:
                yield f'{metric.title[0].upper()}{metric.title[1:]}, {metric.unit}:'
                yield ''
            yield from _list_table(_rows(results, table, metric))


def _rows(results: All, table: Table, metric: Metric) -> Iterator[tuple[str, ...]]:
    columns = results[table.key]
    yield '', *columns
    for entrant in table.entrants:
        if all(entrant.name in column for column in columns.values()):
            yield entrant.name, *(_cell(results, table, metric, column, entrant.name) for column in columns)


def _cell(results: All, table: Table, metric: Metric, column: str, entrant: str) -> str:
    found = figure(results[table.key], column, metric, entrant, table.entrants[0].name)
    if found is None:
        return 'fails'
    median, low, high = (f'{value:,.0f}' if value >= 100 else f'{value:.3g}' for value in found[:3])
    return f'{median} ({low}–{high}) × {found.ratio:.2f}'


def _section(title: str) -> Iterator[str]:
    yield title
    yield '-' * len(title)
    yield ''


def _list_table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield '.. list-table::'
    yield '   :header-rows: 1'
    yield ''
    for row in rows:
        for number, cell in enumerate(row):
            yield f'   {" " if number else "*"} - {cell}'.rstrip()
    yield ''
