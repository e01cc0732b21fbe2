"""The least that a correct service has to do: a loop around a ROUTER, and the same JSON."""

import json

import zmq

from .zeromq import connect
from .zmtp import at_once, beside_others

__all__ = ['at_once', 'beside_others', 'connect', 'serve']


def serve(port: int) -> None:
    """Echo."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(f'tcp://127.0.0.1:{port}')
        while True:
            *envelope, frame = socket.recv_multipart()
            _method, data = json.loads(frame)
            socket.send_multipart([*envelope, json.dumps([200, data]).encode()])
