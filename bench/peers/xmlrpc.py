"""The standard library's XML-RPC, with a thread for each connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from time import sleep
from typing import Any
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from bench import work


class Handler(SimpleXMLRPCRequestHandler):
    """Keeps connections open."""

    protocol_version = 'HTTP/1.1'


class Server(ThreadingMixIn, SimpleXMLRPCServer):
    """Has threads."""

    daemon_threads = True
    request_queue_size = 1024


def _sleep(seconds: Any) -> Any:
    sleep(seconds)
    return seconds


def serve(port: int) -> None:
    """Run the service."""
    with Server(('127.0.0.1', port), Handler, logRequests=False) as server:
        server.register_function(lambda data: data, 'echo')
        server.register_function(_sleep, 'sleep')
        server.serve_forever()


@contextmanager
def connect(port: int) -> Iterator[work.Call]:
    """A connection that is kept."""
    with ServerProxy(f'http://127.0.0.1:{port}') as proxy:

        def call(method: str, data: Any) -> Any:
            return getattr(proxy, method)(data)

        yield call
