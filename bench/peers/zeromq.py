"""Clients of all the 0MQ services alike: pyzmq alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from bench import work


@contextmanager
def connect(port: int, auth: str | None = None) -> Iterator[work.Call]:
    """A socket that is kept open."""
    context: zmq.Context[Any] = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.REQ)
    socket.linger = 0
    socket.reconnect_ivl = 1
    if auth is not None:
        socket.plain_username, socket.plain_password = auth.encode().split(b':')
    socket.connect(f'tcp://127.0.0.1:{port}')

    def call(method: str, data: Any) -> Any:
        socket.send_json([method, data])
        return socket.recv_json()[1]  # type: ignore[index]

    yield call
    context.destroy()
