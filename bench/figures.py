"""From what the rounds measured to figures."""

import statistics
from typing import NamedTuple

from .rounds import Results
from .tables import Metric


class Figure(NamedTuple):
    """What an entrant has reached, in the unit of the metric, and its ratio to another's."""

    median: float
    low: float
    high: float
    ratio: float


def ratio(results: Results, column: str, metric: str, entrant: str, other: str) -> float | None:
    """Compare two entrants, round by round.

    :returns: the median of an entrant's figure by the other's; None where either has none
    """
    measured = results.get(column, {})
    pairs = zip(*(measured.get(name, []) for name in (entrant, other)), strict=False)
    ratios = [one[metric] / two[metric] for one, two in pairs if metric in one and metric in two]
    return statistics.median(ratios) if ratios else None


def figure(results: Results, column: str, metric: Metric, entrant: str, reference: str) -> Figure | None:
    """Return what an entrant has reached; None where it failed."""
    values = [one[metric.key] * metric.factor for one in results[column][entrant] if metric.key in one]
    compared = ratio(results, column, metric.key, entrant, reference)
    if not values or compared is None:
        return None
    quartiles = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    low, median, high = quartiles
    return Figure(median, low, high, compared)
