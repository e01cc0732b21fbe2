"""Jobs of this library."""

import os
import tempfile
import time
from collections.abc import Callable
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

from . import cluster, zmtp
from .zeromq import connect

__all__ = ['accept', 'connect', 'crash', 'finish', 'memory', 'reach', 'serve']

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

    @job
    def now(self, data: Any) -> float:  # noqa: ARG002
        return time.time()

    @job(backoff=0.001)
    def crash(self, data: Any, progress: Any) -> Any:
        if progress.attempt == 1:
            os._exit(1)
        return data


class Handler(ZMQMessageHandler):
    """Finds them."""

    handler = Delegate


def serve(port: int, durable: bool, workers: int = 4, jobs: int = 0, executor: str | None = None) -> None:
    """Run the process.

    :param workers: threads that run jobs
    :param executor: what runs them instead, ``'dask'`` a cluster of the peer's own
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
    with cluster.running(executor or f'threads:{workers}') as setting:
        process.configure(
            journal=journal,
            durable=durable,
            executor=setting,
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


def reach(port: int, seconds: float) -> work.Measured:
    """Measure how long it takes from a job's submission until its method is called."""
    return _in_sequence(port, seconds, 'now', lambda submitted, began: began - submitted)


def crash(port: int, seconds: float) -> work.Measured:
    """Measure how long it takes until a job is done whose worker dies at its first attempt."""
    return _in_sequence(port, seconds, 'crash', lambda submitted, _: time.time() - submitted)


def _in_sequence(
    port: int, seconds: float, method: str, duration: Callable[[float, Any], float]
) -> work.Measured:
    durations: list[float] = []
    until = time.time() + seconds
    with ZMQClient(f'127.0.0.1:{port}', timeout=60) as client:
        while not durations or time.time() < until:
            submitted = time.time()
            name = client.call(method).raise_for_status().body['job']
            while (known := client.job(name).body)['state'] in ('queued', 'running'):
                time.sleep(0.001)
            if known['state'] != 'done':
                raise RuntimeError(known['body'])
            durations.append(duration(submitted, known['body']))
    return work.summary(durations, seconds)


def memory(port: int, seconds: float) -> work.Measured:
    """Measure the memory of the process and its children which only they use, once jobs have run."""
    import psutil  # noqa: PLC0415 (Dask brings it along)

    finish(port, seconds)
    with ZMQClient(f'127.0.0.1:{port}') as client:
        process = psutil.Process(client.call('_status').body['pid'])
    tree = (process, *process.children(recursive=True))
    return {'bytes': float(sum(one.memory_full_info().uss for one in tree))}
