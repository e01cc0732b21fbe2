"""What the library wants to reach, as ratios of what one run has measured."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from .entrants import CLIENT, HUEY, KEPT, OURS, RELEASED, ROUTER, RPC, journal
from .figures import ratio
from .rounds import Results
from .tables import FACTS, OWN, TABLES

#: The results of all tables, by their keys.
All = dict[str, Results]


class Target(NamedTuple):
    """A ratio of two entrants, and its bound."""

    text: str
    table: str
    column: str
    metric: str
    one: str
    other: str
    least: float = 0.0
    most: float = math.inf

    def reached(self, results: All) -> float | None:
        """Return the ratio; None where it was not measured."""
        if self.table not in results:
            return None
        return ratio(results[self.table], self.column, self.metric, self.one, self.other)


TARGETS = (
    Target('throughput, 32 clients, to 2.0.0', 'clients', '32', 'rate', OURS, RELEASED, least=3),
    Target('throughput, 32 clients, to the ROUTER floor', 'clients', '32', 'rate', OURS, ROUTER, least=0.9),
    Target('99 of 100 calls, 128 clients, to 2.0.0', 'clients', '128', 'p99', OURS, RELEASED, most=0.5),
    Target('one call, 100 B, to the ROUTER floor', 'sequence', '100 B', 'p50', OURS, ROUTER, most=1.25),
    Target('one call, 10 kB, to the ROUTER floor', 'sequence', '10 kB', 'p50', OURS, ROUTER, most=1.25),
    Target('one call, 1 MB, to the ROUTER floor', 'sequence', '1 MB', 'p50', OURS, ROUTER, most=1.25),
    Target("a view's call, NULL: 2.0.0 to ours", 'views', '100 B', 'p50', RELEASED, OURS, least=1.4),
    Target("a view's call, PLAIN: 2.0.0 to ours", 'views_plain', '100 B', 'p50', RELEASED, OURS, least=1.3),
    Target("NULL: 2.0.0's view to ZMQClient", 'views', '100 B', 'p50', RELEASED, CLIENT, least=4),
    Target("PLAIN: 2.0.0's view to ZMQClient", 'views_plain', '100 B', 'p50', RELEASED, CLIENT, least=5),
    Target('ZMQClient to a bare socket that is kept', 'views', '100 B', 'p50', CLIENT, KEPT, most=1.3),
    Target("durable jobs accepted, to Huey's", 'accept', '32 submitters', 'rate', OURS, HUEY, least=3),
    Target(
        'jobs accepted, one in the journal to a million',
        'journal',
        '32 submitters',
        'rate',
        journal(1).name,
        journal(1_000_000).name,
        most=1.2,
    ),
)

#: A ratio that is more than noise.
_CLEAR = 1.05

#: Milliseconds that the import of the library's own modules may take.
OWN_IMPORT = 20.0


def slower_than(results: All) -> Iterator[tuple[str, str, str, float]]:
    """Find where an RPC library is faster by more than noise: title, column, its name, its ratio to ours."""
    for table in TABLES:
        for column, measured in results.get(table.key, {}).items():
            for name in RPC:
                metric = table.metrics[0].key
                found = ratio({column: measured}, column, metric, name, OURS)
                if found is not None and (found > _CLEAR if metric == 'rate' else found * _CLEAR < 1):
                    yield table.title, column, name, found


def own_import(results: All) -> float | None:
    """Return the milliseconds that the import of the library's own modules took."""
    measured = results.get(FACTS.key, {}).get(OWN, {}).get(OURS, [])
    return min((one['value'] for one in measured), default=None)
