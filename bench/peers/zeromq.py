"""Clients of all the 0MQ services alike: pyzmq alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from zmq.auth import load_certificate

from bench import work


@contextmanager
def connect(
    port: int, auth: str | None = None, curve: tuple[Path, Path] | None = None
) -> Iterator[work.Call]:
    """A socket that is kept open."""
    context: zmq.Context[Any] = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.REQ)
    socket.linger = 0
    socket.reconnect_ivl = 1
    if auth is not None:
        socket.plain_username, socket.plain_password = auth.encode().split(b':')
    if curve is not None:
        socket.curve_serverkey, _ = load_certificate(curve[0])
        socket.curve_publickey, socket.curve_secretkey = load_certificate(curve[1])
    socket.connect(f'tcp://127.0.0.1:{port}')

    def call(method: str, data: Any) -> Any:
        socket.send_json([method, data])
        return socket.recv_json()[1]  # type: ignore[index]

    yield call
    context.destroy()
