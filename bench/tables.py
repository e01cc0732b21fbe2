"""What is measured: one table after the other."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from . import entrants
from .entrants import OURS, RELEASED, Entrant


class Metric(NamedTuple):
    """One of the figures of a measurement."""

    key: str
    title: str
    unit: str
    #: From what was measured to the unit.
    factor: float = 1.0


CALLS = Metric('rate', 'calls', 'per second')
JOBS = Metric('rate', 'jobs', 'per second')
MEDIAN = Metric('p50', 'time of a call, median', 'in µs', 1e6)
SLOW = Metric('p99', 'time of a call, 99 of 100 are faster', 'in µs', 1e6)
PROCESSOR = Metric('cpu', "processor time of the service for a call", 'in µs', 1e6)
START = Metric('p50', 'time', 'in ms', 1e3)


@dataclass(frozen=True)
class Table:
    """What is measured side by side."""

    key: str
    title: str
    #: For each column the function that measures (``do``), and its arguments.
    columns: dict[str, dict[str, Any]]
    #: The first is what the others are compared with.
    entrants: tuple[Entrant, ...]
    metrics: tuple[Metric, ...]


def _echo(amount: int, do: str = 'in_sequence', **more: Any) -> dict[str, Any]:
    return {'do': do, 'method': 'echo', 'amount': amount, **more}


def _accept(clients: int) -> dict[str, Any]:
    return {'do': 'accept', 'clients': clients}


_SIZES = {'100 B': _echo(100), '10 kB': _echo(10_000), '1 MB': _echo(1_000_000)}
_SLEEP = {'do': 'at_once', 'method': 'sleep', 'amount': 0.01}
_ACCEPT = {'1 submitter': _accept(1), '32 submitters': _accept(32)}
_FINISH = {'32 submitters': {'do': 'finish'}}

TABLES = (
    Table(
        'sequence',
        'One client, one call after the other',
        _SIZES,
        (entrants.ours, entrants.client, entrants.released, *entrants.floors, *entrants.rpc),
        (MEDIAN,),
    ),
    Table(
        'clients',
        'Clients at once, 100 B',
        {f'{clients:,}': _echo(100, 'at_once', clients=clients) for clients in (1, 8, 32, 128, 1000)},
        (entrants.ours, entrants.released, *entrants.floors, *entrants.rpc),
        (CALLS, MEDIAN, SLOW, PROCESSOR),
    ),
    Table('views', 'The call of a view, NULL', {'100 B': _echo(100)}, entrants.callers(), (MEDIAN,)),
    Table(
        'views_plain',
        'The call of a view, PLAIN',
        {'100 B': _echo(100)},
        entrants.callers(auth='user:secret'),
        (MEDIAN,),
    ),
    Table(
        'views_curve',
        'The call of a view, CURVE',
        {'100 B': _echo(100)},
        entrants.callers(curve=True),
        (MEDIAN,),
    ),
    Table(
        'slow',
        'Methods that sleep 10 ms, clients at once; eight workers where their number is chosen',
        {str(clients): {**_SLEEP, 'clients': clients} for clients in (1, 8)},
        (Entrant(OURS, 'pyams', {'workers': 8}), entrants.released, *entrants.rpc),
        (CALLS,),
    ),
    Table(
        'others',
        'One client, while others are connected and silent',
        {f'{others:,}': _echo(100, 'beside_others', others=others) for others in (0, 100, 1000, 4000)},
        (entrants.ours, *entrants.floors),
        (MEDIAN,),
    ),
    Table('accept', 'Jobs accepted, durable', _ACCEPT, entrants.queues(durable=True, runs=False), (JOBS,)),
    Table(
        'accept_relaxed',
        'Jobs accepted, not durable',
        _ACCEPT,
        entrants.queues(durable=False, runs=False),
        (JOBS,),
    ),
    Table('finish', 'Jobs done, durable', _FINISH, entrants.queues(durable=True, runs=True), (JOBS,)),
    Table(
        'finish_relaxed',
        'Jobs done, not durable',
        _FINISH,
        entrants.queues(durable=False, runs=True),
        (JOBS,),
    ),
    Table(
        'journal',
        'Jobs accepted, durable, by the number of those that wait',
        _ACCEPT,
        tuple(entrants.journal(jobs) for jobs in (1, 1000, 1_000_000)),
        (JOBS,),
    ),
    Table(
        'start',
        'From start() to the first reply',
        {method: {'do': 'start', 'method': method} for method in ('fork', 'spawn')},
        entrants.starters,
        (START,),
    ),
)

_THREADS, _OTHERS = 'threads:4', ('processes:4', 'concurrent.futures.ProcessPoolExecutor:4', 'dask')

#: What is measured with ``--only executors``.
EXECUTORS = (
    Table(
        'executor_finish',
        'Short jobs, durable, submitted by 32 clients',
        {'done': {'do': 'finish'}},
        entrants.executors(_THREADS, *_OTHERS),
        (JOBS,),
    ),
    Table(
        'executor_reach',
        'One job after the other, from its submission until it begins',
        {'begun': {'do': 'reach'}},
        entrants.executors(_THREADS, *_OTHERS),
        (START,),
    ),
    Table(
        'executor_crash',
        'A job that brings its worker down, from its submission until it has run again',
        {'done': {'do': 'crash'}},
        entrants.executors(*_OTHERS),
        (START,),
    ),
    Table(
        'executor_memory',
        'Memory of an idle service that has run jobs, its workers included',
        {'held': {'do': 'memory'}},
        entrants.executors(_THREADS, *_OTHERS),
        (Metric('bytes', 'memory', 'in MB', 1e-6),),
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
    {column: {} for column in (IMPORTED, OWN, MEMORY, INSTALLED)},
    (entrants.ours, entrants.released, *entrants.rpc),
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
