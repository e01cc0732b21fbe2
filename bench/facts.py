"""What needs no clients: how long an import takes, how much memory an idle service, what is installed."""

import subprocess
from pathlib import Path

import psutil

from .entrants import Entrant
from .environments import installed
from .rounds import Results
from .sides import Sides, environment
from .tables import FACTS, IMPORTED, IMPORTS, INSTALLED, MEMORY, OWN

_TIMER = """
import sys, time
times = [time.perf_counter()]
for modules in sys.argv[1:]:
    for module in modules.split():
        __import__(module)
    times.append(time.perf_counter())
print(*(after - before for before, after in zip(times, times[1:])))
"""


def measure(rounds: int, pythons: dict[str, Path]) -> Results:
    """Measure all of it."""
    entrants = [entrant for entrant in FACTS.entrants if entrant.environment in pythons]
    results: Results = {column: {entrant.name: [] for entrant in entrants} for column in FACTS.columns}
    for _ in range(rounds):
        for entrant in entrants:
            python = pythons[entrant.environment]
            before, own = _import(python, *IMPORTS[entrant.name])
            for column, value in (
                (IMPORTED, (before + own) * 1000),
                (OWN, own * 1000),
                (MEMORY, _memory(entrant, python)),
                (INSTALLED, len(installed(python))),
            ):
                results[column][entrant.name].append({'value': value})
    return results


def _import(python: Path, *modules: str) -> list[float]:
    command = [str(python), '-W', 'ignore', '-c', _TIMER, *modules]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout
    return [float(seconds) for seconds in output.split()]


def _memory(entrant: Entrant, python: Path) -> float:
    """Return the megabytes that only the service uses."""
    with Sides(entrant, python) as sides:
        assert sides.service is not None
        return float(psutil.Process(sides.service.pid).memory_full_info().uss) / 1e6
