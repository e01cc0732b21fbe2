"""What a client does, and how long it takes.

The standard library only: it runs in the environment of each peer.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeAlias

#: Calls the service's method ``echo`` with text, or ``sleep`` with seconds; returns what it was given.
Call: TypeAlias = Callable[[str, Any], Any]
#: Connects one client.
Connect: TypeAlias = Callable[[], AbstractContextManager[Call]]
#: The number of ``calls``, how many there were in a second (``rate``), and the seconds that one took
#: (``p50``, ``p99``).
Measured: TypeAlias = dict[str, float]

#: Calls before the first that counts.
_WARM_UP = 3
#: Jobs that are submitted without a look at the clock.
_BLOCK = 320


def content(method: str, amount: float) -> Any:
    """Return what a method is called with.

    :param amount: seconds that ``sleep`` takes, bytes for the others
    """
    return amount if method == 'sleep' else 'x' * int(amount)


def summary(durations: Sequence[float], seconds: float) -> Measured:
    """Sum up calls.

    :param durations: of each call, in seconds
    :param seconds: that all of them took together
    """
    ordered = sorted(durations)
    return {
        'calls': len(ordered),
        'rate': len(ordered) / seconds,
        'p50': ordered[len(ordered) // 2],
        'p99': ordered[len(ordered) * 99 // 100],
    }


def in_sequence(connect: Connect, method: str, amount: float, seconds: float) -> Measured:
    """Measure one client that calls again and again."""
    data = content(method, amount)
    with connect() as call:
        for _ in range(_WARM_UP):
            if call(method, data) != data:
                raise RuntimeError('the reply is not what was sent')
        began = time.perf_counter()
        durations = _repeat(call, method, data, began + seconds)
        return summary(durations, time.perf_counter() - began)


def at_once(connect: Connect, method: str, amount: float, seconds: float, clients: int) -> Measured:
    """Measure clients that call at the same time, each in a thread of its own."""
    data = content(method, amount)
    durations: list[float] = []
    errors: list[BaseException] = []
    began = 0.0

    def begin() -> None:
        nonlocal began
        began = time.perf_counter()

    start = threading.Barrier(clients, begin)

    def client(call: Call) -> None:
        try:
            call(method, data)
            start.wait(60)
            durations.extend(_repeat(call, method, data, began + seconds))
        except BaseException as error:
            errors.append(error)
            start.abort()

    with ExitStack() as stack:
        calls = [stack.enter_context(connect()) for _ in range(clients)]
        threads = [threading.Thread(target=client, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = time.perf_counter()
    if errors:
        raise errors[0]
    return summary(durations, ended - began)


def finish(submit: Callable[[], Any], done: Callable[[], int], seconds: float) -> Measured:
    """Measure jobs, which 32 threads submit, from the first one's submission until all of them are done.

    :param done: tells how many have been done until now
    :param seconds: that they are submitted for
    """
    before, jobs = done(), 0
    began = time.perf_counter()
    with ThreadPoolExecutor(32) as pool:
        while time.perf_counter() < began + seconds:
            for submitted in [pool.submit(submit) for _ in range(_BLOCK)]:
                submitted.result()
            jobs += _BLOCK
    while done() < before + jobs:
        time.sleep(0.005)
    return {'rate': jobs / (time.perf_counter() - began)}


def _repeat(call: Call, method: str, data: Any, until: float) -> list[float]:
    """Call until a moment, at least once; return how long each call took."""
    clock = time.perf_counter
    durations = []
    ended = 0.0
    while ended < until:
        began = clock()
        call(method, data)
        ended = clock()
        durations.append(ended - began)
    return durations
