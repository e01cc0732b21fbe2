"""Rounds: everybody has a turn in each, so that what disturbs the machine disturbs all alike."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .entrants import Entrant
from .sides import ask, driving, free_port, serving
from .tables import Table

#: What each round has measured: ``[column][entrant]``.
Results = dict[str, dict[str, list[dict[str, Any]]]]


def measure(table: Table, rounds: int, seconds: float, pythons: dict[str, Path]) -> Results:
    """Measure all that a table tells.

    :param seconds: that each measurement takes
    :param pythons: the interpreters of the environments; entrants without one are left out
    """
    entrants = [entrant for entrant in table.entrants if entrant.environment in pythons]
    results: Results = {column: {entrant.name: [] for entrant in entrants} for column in table.columns}
    with ExitStack() as stack:
        sides = [
            (entrant, *stack.enter_context(_both_sides(entrant, pythons[entrant.environment])))
            for entrant in entrants
        ]
        for column, arguments in table.columns.items():
            for number in range(-1, rounds):
                shift = number % len(sides)
                for entrant, driver, port in sides[shift:] + sides[:shift]:
                    task = {'seconds': seconds, 'client': entrant.client, **arguments}
                    measured = ask(driver, {'port': port, **task})
                    if number >= 0:  # the round before all is to warm up
                        results[column][entrant.name].append(measured)
    return results


@contextmanager
def _both_sides(entrant: Entrant, python: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a service, where the entrant has one, and what drives its clients."""
    with ExitStack() as stack:
        port = free_port()
        if entrant.service is not None:
            stack.enter_context(serving(entrant, python, port))
        yield stack.enter_context(driving(entrant, python)), port
