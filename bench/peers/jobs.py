"""Jobs of this library."""

import tempfile
import time
from typing import Any

from bench import work
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.jobs import job
from pyams_zmq.jobs.ids import new_id
from pyams_zmq.jobs.schema import open_database
from pyams_zmq.jobs.store import Store
from pyams_zmq.process import ZMQProcess
from pyams_zmq.wire import encode

from . import zmtp
from .zeromq import connect

__all__ = ['accept', 'connect', 'finish', 'serve']

_MANY = 10_000_000


class Delegate:
    """The methods."""

    process: Any = None

    def echo(self, data: Any) -> Any:
        return [200, data]

    @job
    def note(self, data: Any) -> Any:
        return [200, data]

    @job
    def hold(self, seconds: float) -> Any:
        time.sleep(seconds)


class Handler(ZMQMessageHandler):
    """Finds them."""

    handler = Delegate


def serve(port: int, durable: bool, workers: int = 4, jobs: int = 0) -> None:
    """Run the process.

    :param workers: threads that run jobs
    :param jobs: how many wait in the journal already
    """
    journal = f'{tempfile.mkdtemp()}/journal'
    store = Store(open_database(journal, durable=False))
    message = encode(['note', work.content('note', 100)])
    with store.transaction():
        for _ in range(jobs):
            store.accept(new_id(), 'note', [message], 3600, _MANY)
    store.close()
    process = ZMQProcess(f'127.0.0.1:{port}', Handler)
    process.configure(
        journal=journal,
        durable=durable,
        executor=f'threads:{workers}',
        max_pending=_MANY,
        max_kept=_MANY,
        stop_timeout=0.5,
    )
    process.run()


def accept(port: int, seconds: float, clients: int) -> work.Measured:
    """Measure how fast jobs are accepted, while those before them are held up by one that takes long."""
    with connect(port) as call:
        call('hold', 3600)
    return zmtp.at_once(port, 'note', 100, seconds, clients)


def finish(port: int, seconds: float) -> work.Measured:
    """Measure how fast jobs are accepted and done."""
    data = work.content('note', 100)
    with ZMQClient(f'127.0.0.1:{port}', timeout=60) as client:

        def done() -> int:
            return int(client.call('_jobs', {'limit': 1}).body['counts']['done'])

        return work.finish(lambda: client.call('note', data).raise_for_status(), done, seconds)
