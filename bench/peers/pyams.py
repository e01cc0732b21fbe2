"""This library, and 2.0.0: the code that uses them is the same."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import work
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.socket import zmq_response, zmq_socket

from . import zeromq
from .zmtp import at_once, beside_others

__all__ = ['at_once', 'beside_others', 'connect', 'serve', 'start']


class Delegate:
    """The methods."""

    process: Any = None

    def echo(self, data: Any) -> Any:
        return [200, data]

    def sleep(self, seconds: float) -> Any:
        time.sleep(seconds)
        return [200, seconds]


class Handler(ZMQMessageHandler):
    """Finds them."""

    handler = Delegate


def serve(port: int, auth: str | None = None, curve: bool = False, **options: Any) -> None:
    """Run the process, in the foreground.

    :param curve: whether connections are encrypted
    """
    if curve:
        from . import keys  # noqa: PLC0415 (2.0.0 has none)

        options.update(keys.of_service())
    ZMQProcess(f'127.0.0.1:{port}', Handler, auth, **options).run()


@contextmanager
def connect(
    port: int, kind: str = 'kept', auth: str | None = None, curve: bool = False
) -> Iterator[work.Call]:
    """A client.

    :param kind: ``'kept'``: a bare socket that is kept open; ``'view'``: as views are written, a socket for
        each call; ``'client'``: a ``ZMQClient``
    """
    address = f'127.0.0.1:{port}'
    options: dict[str, Any] = {'auth': auth}
    if curve:
        from . import keys  # noqa: PLC0415 (2.0.0 has none)

        options['curve'] = keys.of_client()

    def view(method: str, data: Any) -> Any:
        socket = zmq_socket(address, **options)
        socket.send_json([method, data])
        return zmq_response(socket)[1]

    if kind == 'view':
        yield view
    elif kind == 'client':
        from pyams_zmq.client import ZMQClient  # noqa: PLC0415 (2.0.0 has none)

        with ZMQClient(address, **options) as client:
            yield lambda method, data: client.call(method, data).body
    else:
        with zeromq.connect(port, **options) as call:
            yield call


def start(port: int, method: str, seconds: float) -> work.Measured:
    """Measure the time from ``start()`` to the first reply."""
    durations: list[float] = []
    began = time.perf_counter()
    multiprocessing.set_start_method(method, force=True)
    while time.perf_counter() < began + seconds or not durations:
        process = ZMQProcess(f'127.0.0.1:{port}', Handler)
        process.start_method = method  # 2.0.0 has none
        started = time.perf_counter()
        process.start()
        with zeromq.connect(port) as call:
            call('echo', '')
            durations.append(time.perf_counter() - started)
        process.terminate()
        process.join()
    return work.summary(durations, sum(durations))
