"""The same as the ROUTER's loop, on a REP, whose faults it has."""

from typing import Any

import zmq

from .zeromq import connect
from .zmtp import at_once, beside_others

__all__ = ['at_once', 'beside_others', 'connect', 'serve']


def serve(port: int) -> None:
    """Echo."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind(f'tcp://127.0.0.1:{port}')
        while True:
            message: Any = socket.recv_json()
            socket.send_json([200, message[1]])
