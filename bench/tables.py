"""What is measured: one table after the other."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One of the figures of a measurement."""

    key: str
    title: str
    unit: str
    #: From what was measured to the unit.
    factor: float = 1.0


RATE = Metric('rate', 'calls per second', '1/s')
MEDIAN = Metric('p50', 'time of a call, median', 'µs', 1e6)
SLOW = Metric('p99', 'time of a call, 99 of 100 are faster', 'µs', 1e6)


@dataclass(frozen=True)
class Entrant:
    """One line of a table."""

    name: str
    #: Module of :mod:`bench.peers`.
    module: str
    #: Options of its service; None: it has none.
    service: dict[str, Any] | None = field(default_factory=dict)
    #: Options of its clients.
    client: dict[str, Any] = field(default_factory=dict)
    environment: str = 'pyams'

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Table:
    """What is measured side by side."""

    key: str
    title: str
    #: The function that measures.
    do: str
    #: Its arguments for each column.
    columns: dict[str, dict[str, Any]]
    #: The first is what the others are compared with.
    entrants: tuple[Entrant, ...]
    metrics: tuple[Metric, ...]


OURS = 'pyams_zmq'
CLIENT = 'pyams_zmq, ZMQClient'
RELEASED = 'pyams_zmq 2.0.0'
ROUTER = 'floor: ROUTER'
REP = 'floor: REP'
RPC = ('zerorpc', 'RPyC', 'Pyro5', 'xmlrpc')

_OURS = Entrant(OURS, 'pyams')
_CLIENT = Entrant(CLIENT, 'pyams', client={'kind': 'client'})
_RELEASED = Entrant(RELEASED, 'pyams', environment='released')
_FLOORS = (Entrant(ROUTER, 'router'), Entrant(REP, 'rep'))
_RPC = tuple(Entrant(name, name.lower(), environment=name.lower()) for name in RPC)


def _echo(amount: int, **more: Any) -> dict[str, Any]:
    return {'method': 'echo', 'amount': amount, **more}


def _callers(auth: str | None) -> tuple[Entrant, ...]:
    """Ways to call a process: a view's, and those that keep the connection."""
    service = {'auth': auth}

    def entrant(name: str, kind: str, environment: str = 'pyams') -> Entrant:
        return Entrant(name, 'pyams', service, {'kind': kind, 'auth': auth}, environment)

    return (
        entrant(OURS, 'view'),
        entrant(RELEASED, 'view', 'released'),
        entrant(CLIENT, 'client'),
        entrant(KEPT, 'kept'),
    )


KEPT = 'pyams_zmq, a socket that is kept'

TABLES = (
    Table(
        'sequence',
        'One client, one call after the other',
        'in_sequence',
        {'100 B': _echo(100), '10 kB': _echo(10_000), '1 MB': _echo(1_000_000)},
        (_OURS, _CLIENT, _RELEASED, *_FLOORS, *_RPC),
        (MEDIAN,),
    ),
    Table(
        'clients',
        'Clients at once, 100 B',
        'at_once',
        {f'{number:,}': _echo(100, clients=number) for number in (1, 8, 32, 128, 1000)},
        (_OURS, _RELEASED, *_FLOORS, *_RPC),
        (RATE, MEDIAN, SLOW),
    ),
    Table(
        'views',
        'The call of a view, NULL',
        'in_sequence',
        {'100 B': _echo(100)},
        _callers(None),
        (MEDIAN,),
    ),
    Table(
        'views_plain',
        'The call of a view, PLAIN',
        'in_sequence',
        {'100 B': _echo(100)},
        _callers('user:secret'),
        (MEDIAN,),
    ),
    Table(
        'start',
        'From start() to the first reply',
        'start',
        {method: {'method': method} for method in ('fork', 'spawn')},
        (
            Entrant(OURS, 'pyams', None),
            Entrant(RELEASED, 'pyams', None, environment='released'),
        ),
        (MEDIAN._replace(title='time', unit='ms', factor=1e3),),
    ),
    Table(
        'slow',
        'Methods that sleep 10 ms, clients at once; eight workers where they can be chosen',
        'at_once',
        {f'{number}': {'method': 'sleep', 'amount': 0.01, 'clients': number} for number in (1, 8, 32)},
        (Entrant(OURS, 'pyams', {'workers': 8}), _RELEASED, *_RPC),
        (RATE,),
    ),
    Table(
        'others',
        'One client, while others are connected and silent',
        'beside_others',
        {f'{number:,}': _echo(100, others=number) for number in (0, 100, 1000, 4000)},
        (_OURS, *_FLOORS),
        (MEDIAN,),
    ),
)

IMPORTED, OWN, MEMORY, INSTALLED = (
    'import, ms',
    'of it its own modules, ms',
    'memory of the idle service, MB',
    'distributions',
)

#: What does not depend on clients.
FACTS = Table(
    'facts',
    'Import, memory, installation',
    'facts',
    {column: {} for column in (IMPORTED, OWN, MEMORY, INSTALLED)},
    (_OURS, _RELEASED, *_RPC),
    (Metric('value', '', ''),),
)

_DEPENDENCIES = (
    'asyncio zmq zmq.auth zmq.eventloop.zmqstream tornado.ioloop tornado.platform.asyncio pyramid.threadlocal'
    ' pyramid.i18n zope.interface'
)

#: Modules of the dependencies, and of the library itself.
IMPORTS = {
    OURS: (_DEPENDENCIES, 'pyams_zmq.process pyams_zmq.handler pyams_zmq.client'),
    RELEASED: (
        f'{_DEPENDENCIES} zmq.auth.thread pyams_utils.registry',
        'pyams_zmq.process pyams_zmq.handler pyams_zmq.socket',
    ),
    'zerorpc': ('zmq gevent', 'zerorpc'),
    'RPyC': ('', 'rpyc rpyc.utils.server'),
    'Pyro5': ('', 'Pyro5.api'),
    'xmlrpc': ('', 'xmlrpc.server xmlrpc.client'),
}
