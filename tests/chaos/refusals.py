"""How soon those who are not let in are told, by the mechanism of the process."""

import statistics
import tempfile
import time

from doors import MECHANISMS, Keys, options_of
from pyams_zmq.client import ZMQClient
from services import EchoHandler, Process


def report(number):
    """Print what a first call takes: connect, be let in or not, and be told.

    :param number: of calls by each client
    """
    print(f'{"process":10}{"client presents":36}{"status":>7}{"median":>9}{"longest":>9}  (milliseconds)')
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys(folder)
        for mechanism in MECHANISMS:
            for clients in '127.0.0.1', '192.0.2.1':
                _measure(mechanism, clients, keys, number)


def _measure(mechanism, clients, keys, number):
    process = Process('127.0.0.1', EchoHandler, clients=clients, **options_of(mechanism, keys))
    process.start()
    try:
        endpoint = process.wait_ready(30)
        for name, (theirs, options, _) in keys.credentials.items():
            if clients != '127.0.0.1' and theirs != mechanism:
                continue  # who has another mechanism is not even asked for its address
            times = [_first_call(endpoint, options) for _ in range(number)]
            statuses = {status for status, _ in times}
            milliseconds = [1000 * seconds for _, seconds in times]
            who = name if clients == '127.0.0.1' else f'{name}, unlisted'
            print(
                f'{mechanism:10}{who:36}{"/".join(map(str, statuses)):>7}'
                f'{statistics.median(milliseconds):9.1f}{max(milliseconds):9.1f}',
                flush=True,
            )
    finally:
        process.stop()
        process.join(30)


def _first_call(endpoint, options):
    began = time.perf_counter()
    with ZMQClient(endpoint, timeout=30, **options) as client:
        status = client.call('echo', 1).status
    return status, time.perf_counter() - began
