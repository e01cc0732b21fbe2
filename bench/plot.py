"""The throughput by the number of clients, as a plot for the documentation and the README."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from .entrants import OURS, RELEASED, REP, ROUTER, RPC
from .rounds import Results

#: Its file.
NAME = 'clients.svg'

_STYLES: dict[str, dict[str, Any]] = {
    OURS: {'color': 'black', 'linewidth': 3},
    ROUTER: {'linestyle': '--'},
    REP: {'linestyle': '--'},
}


def plot(results: Results, folder: Path) -> None:
    """Draw it.

    :param results: of the table ``clients``
    """
    # Text stays text, and the same figures give the same file.
    plt.rcParams.update({'svg.fonttype': 'none', 'svg.hashsalt': 'pyams_zmq'})
    sheet, axes = plt.subplots(figsize=(8, 4.5))
    for name in (REP, ROUTER, OURS, RELEASED, *RPC):
        points = {}
        for column, rounds in results.items():
            rates = [one['rate'] for one in rounds[name] if 'rate' in one]
            if rates:
                points[int(column.replace(',', ''))] = statistics.median(rates)
        axes.plot(list(points), list(points.values()), marker='o', label=name, **_STYLES.get(name, {}))
    axes.set(xscale='log', yscale='log', xlabel='clients at once', ylabel='calls per second, 100 B')
    axes.grid(visible=True, which='both', alpha=0.3)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))
    sheet.savefig(folder / NAME, bbox_inches='tight', metadata={'Date': None})
    plt.close(sheet)
