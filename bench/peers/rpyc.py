"""RPyC, with a thread for each connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import rpyc
from rpyc.utils.server import ThreadedServer

from bench import work


class Service(rpyc.Service):
    """The methods."""

    def exposed_echo(self, data: Any) -> Any:
        return data

    def exposed_sleep(self, seconds: float) -> float:
        sleep(seconds)
        return seconds


def serve(port: int) -> None:
    """Run the service."""
    ThreadedServer(Service, hostname='127.0.0.1', port=port, backlog=1024).start()


@contextmanager
def connect(port: int) -> Iterator[work.Call]:
    """A connection that is kept."""
    connection = rpyc.connect('127.0.0.1', port, config={'sync_request_timeout': 60})
    yield lambda method, data: getattr(connection.root, method)(data)
    connection.close()
