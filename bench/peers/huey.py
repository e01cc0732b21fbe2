"""Jobs of Huey, in SQLite."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server
from typing import Any

from huey import SqliteHuey

from bench import work


def _jobs(port: int, durable: bool) -> tuple[SqliteHuey, Any]:
    """Return the queue and its task, the same on both sides."""
    queue = SqliteHuey(filename=f'{tempfile.gettempdir()}/huey-{port}', fsync=durable)

    def note(data: Any) -> Any:
        return data

    return queue, queue.task()(note)


def serve(port: int, durable: bool, workers: int = 4) -> None:
    """Run the jobs."""
    queue, _note = _jobs(port, durable)
    with create_server(('127.0.0.1', port)):  # which tells that it runs
        queue.create_consumer(workers=workers, periodic=False, initial_delay=0.001, max_delay=0.01).run()


@contextmanager
def connect(port: int, durable: bool) -> Iterator[work.Call]:
    """One that submits."""
    _queue, note = _jobs(port, durable)

    def call(_method: str, data: Any) -> Any:
        note(data)
        return data

    yield call


def accept(port: int, seconds: float, clients: int, durable: bool) -> work.Measured:
    """Measure how fast jobs are written down, while nobody runs them."""
    return work.at_once(lambda: connect(port, durable), 'note', 100, seconds, clients)


def finish(port: int, seconds: float, durable: bool) -> work.Measured:
    """Measure how fast jobs are accepted and done."""
    queue, note = _jobs(port, durable)
    data = work.content('note', 100)
    return work.finish(lambda: note(data), queue.result_count, seconds)
