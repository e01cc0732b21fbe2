"""zerorpc: MessagePack over 0MQ, on gevent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent.monkey

gevent.monkey.patch_all(sys=False)

import zerorpc  # noqa: E402 (its threads are greenlets)

from bench import work  # noqa: E402


class Service:
    """The methods."""

    def echo(self, data: Any) -> Any:
        return data

    def sleep(self, seconds: float) -> float:
        gevent.sleep(seconds)
        return seconds


def serve(port: int) -> None:
    """Run the service."""
    server = zerorpc.Server(Service())
    server.bind(f'tcp://127.0.0.1:{port}')
    server.run()


@contextmanager
def connect(port: int) -> Iterator[work.Call]:
    """A client that is kept."""
    client = zerorpc.Client(f'tcp://127.0.0.1:{port}', timeout=60)
    yield client
    client.close()
