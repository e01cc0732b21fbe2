"""Pyro5, with a thread for each connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import Pyro5.api

from bench import work


@Pyro5.api.expose
class Service:
    """The methods."""

    def echo(self, data: Any) -> Any:
        return data

    def sleep(self, seconds: float) -> float:
        sleep(seconds)
        return seconds


def serve(port: int) -> None:
    """Run the service."""
    Pyro5.config.THREADPOOL_SIZE = 2000
    daemon = Pyro5.api.Daemon('127.0.0.1', port)
    daemon.register(Service(), 'service')
    daemon.requestLoop()


@contextmanager
def connect(port: int) -> Iterator[work.Call]:
    """A connection that is kept; it belongs to the thread that calls first."""
    proxies: list[Any] = []

    def call(method: str, data: Any) -> Any:
        if not proxies:
            proxies.append(Pyro5.api.Proxy(f'PYRO:service@127.0.0.1:{port}'))
        return getattr(proxies[0], method)(data)

    yield call
    for proxy in proxies:
        proxy._pyroClaimOwnership()
        proxy._pyroRelease()
