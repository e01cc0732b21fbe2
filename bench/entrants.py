"""Who takes part."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Entrant:
    """One line of a table: a service, and its clients."""

    name: str
    #: Module of :mod:`bench.peers`.
    module: str
    #: Options of its service; None: it has none.
    service: dict[str, Any] | None = field(default_factory=dict)
    #: Options of its clients.
    client: dict[str, Any] = field(default_factory=dict)
    environment: str = 'pyams'


OURS = 'pyams_zmq'
CLIENT = 'pyams_zmq, ZMQClient'
KEPT = 'pyams_zmq, a socket that is kept'
RELEASED = 'pyams_zmq 2.0.0'
ROUTER = 'floor: ROUTER'
REP = 'floor: REP'
RPC = ('zerorpc', 'RPyC', 'Pyro5', 'xmlrpc')
HUEY = 'Huey'

ours = Entrant(OURS, 'pyams')
client = Entrant(CLIENT, 'pyams', client={'kind': 'client'})
released = Entrant(RELEASED, 'pyams', environment='released')
floors = (Entrant(ROUTER, 'router'), Entrant(REP, 'rep'))
rpc = tuple(Entrant(name, name.lower(), environment=name.lower()) for name in RPC)
starters = (
    Entrant(OURS, 'pyams', None),
    Entrant(RELEASED, 'pyams', None, environment='released'),
)


def callers(**credentials: Any) -> tuple[Entrant, ...]:
    """Ways to call a process: a view's, and those that keep the connection.

    :param credentials: ``auth='user:password'``, or ``curve=True``, which 2.0.0 does not have
    """

    def entrant(name: str, kind: str, environment: str = 'pyams') -> Entrant:
        return Entrant(name, 'pyams', credentials, {'kind': kind, **credentials}, environment)

    return (
        entrant(OURS, 'view'),
        *(() if 'curve' in credentials else (entrant(RELEASED, 'view', 'released'),)),
        entrant(CLIENT, 'client'),
        entrant(KEPT, 'kept'),
    )


def queues(durable: bool, runs: bool) -> tuple[Entrant, ...]:
    """Queues of jobs.

    :param runs: whether the jobs are run
    """
    options = {'durable': durable}
    return (
        Entrant(OURS, 'jobs', {**options, 'workers': 4 if runs else 1}),
        Entrant(HUEY, 'huey', options if runs else None, options, 'huey'),
    )


def journal(jobs: int) -> Entrant:
    """A process with so many jobs in its journal."""
    return Entrant(f'{jobs:,} in the journal', 'jobs', {'durable': True, 'workers': 1, 'jobs': jobs})


def executors(*names: str) -> tuple[Entrant, ...]:
    """What can run jobs."""
    return tuple(
        Entrant(name, 'jobs', {'durable': True, 'executor': name}, environment='dask') for name in names
    )
