"""Rounds: everybody has a turn in each, so that what disturbs the machine disturbs all alike."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .sides import Sides
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
            (entrant, stack.enter_context(Sides(entrant, pythons[entrant.environment])))
            for entrant in entrants
        ]
        for column, arguments in table.columns.items():
            for number in range(-1, rounds):
                shift = number % len(sides)
                for entrant, both in sides[shift:] + sides[:shift]:
                    measured = both.ask({'seconds': seconds, 'client': entrant.client, **arguments})
                    if number >= 0:  # the round before all is to warm up
                        results[column][entrant.name].append(measured)
    return results
