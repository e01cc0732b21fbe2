"""The soak: ``python -m chaos.soak [--minutes N]``, honest and hostile load on one process for a long time.

Everything that happens to the service happens in its first seconds, too. What it holds then, with all clients
gone, is what it may hold at the end.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import psutil

from pyams_zmq.client import ZMQClient

from .attacks import ATTACKS
from .target import MB, latency, running

#: Bytes that the process may have grown by at the end. CPython and the C library keep some of what was free.
GROWTH = 16 * MB

#: Seconds that anything may take on a machine which has other things to do, too.
PATIENCE = 30.0

#: What the service is like: it has a door, threads, coroutines and jobs, and clears silent peers away soon.
OPTIONS = {
    'auth': 'honest:sesame',
    'workers': 2,
    'handshake_timeout': 2.0,
    # On a busy machine honest clients, too, may give no sign of life for a while, as for ten of these.
    'heartbeat_interval': 1.0,
    'max_message_size': MB,
    'high_water_mark': 100,
    'executor': 'threads:2',
    'max_kept': 200,
}

#: A soak hits less hard than an attack of its own does, and more often.
_SOFTER = 5

#: Seconds without a change after which nothing is reckoned to change any more.
_SETTLED = 1.0


@dataclass
class Reading:
    """What the service holds, and how long a call takes, when nobody else is there."""

    memory: int
    descriptors: int
    threads: int
    tasks: int
    #: Seconds, the median.
    call: float

    def __str__(self):
        return (
            f'{self.memory / MB:9.1f}{self.descriptors:13}{self.threads:9}{self.tasks:7}'
            f'{self.call * 1000:11.2f}'
        )


HEADER = f'{"minutes":>7}{"memory, MB":>13}{"descriptors":>13}{"threads":>9}{"tasks":>7}{"call, ms":>11}'


def read(service):
    """Wait until the service has got over what was before, and look at it."""
    process = psutil.Process(service.pid)
    with service.client(PATIENCE) as client:
        calls = []
        for number in range(200):
            began = time.monotonic()
            assert client.call('echo', number) == (200, number)
            calls.append(time.monotonic() - began)
        _settle(process.num_fds)
        tasks = client.call('tasks').body
        return Reading(
            process.memory_info().rss,
            process.num_fds(),
            process.num_threads(),
            tasks,
            statistics.median(calls),
        )


def _settle(count):
    """Wait until a number falls no more: that of the connections of those who have left, say."""
    lowest, since = count(), time.monotonic()
    while time.monotonic() < since + _SETTLED:
        time.sleep(0.05)
        if (now := count()) < lowest:
            lowest, since = now, time.monotonic()


class Load:
    """Honest clients who come, stay and go, and hostile ones of all kinds.

    :param service: a target
    :param pause: seconds that each honest client waits after each call
    """

    def __init__(self, service, pause):
        self._service = service
        self._pause = pause
        self._over = threading.Event()
        self.done = Counter()
        self.failures = []

    @contextmanager
    def under_way(self):
        self._over.clear()
        jobs = [self._calls, self._calls, self._comings_and_goings, self._jobs, self._strangers]
        threads = [threading.Thread(target=self._repeat, args=[job]) for job in [*jobs, self._attacks]]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(4 * PATIENCE)
            assert not any(thread.is_alive() for thread in threads), 'a client hangs'

    def _repeat(self, steps):
        try:
            for what in steps():
                self.done[what] += 1
                if self._over.is_set():
                    return
        except Exception as error:
            self.failures.append(f'{steps.__name__}: {error!r}')

    def _calls(self):
        """A client that stays."""
        dice = random.Random(0)
        with self._service.client(PATIENCE) as client:
            for number in range(sys.maxsize):
                kind, data = dice.choice([('echo', number), ('echo', 'x' * 10_000), ('tasks', None)])
                reply = client.call(kind, data)
                assert reply.status == 200, reply
                assert kind == 'tasks' or reply.body == data
                yield 'calls'
                self._over.wait(self._pause)

    def _comings_and_goings(self):
        """Clients that call once."""
        while True:
            assert latency(self._service, PATIENCE) is not None, 'no reply'
            yield 'clients that came and went'
            self._over.wait(self._pause * 4)

    def _jobs(self):
        with self._service.client(PATIENCE) as client:
            for number in range(sys.maxsize):
                reply = client.submit('work', number)
                assert reply.status == 202, reply
                assert client.wait(reply.body['job'], PATIENCE) == (200, number)
                yield 'jobs'
                self._over.wait(self._pause)

    def _strangers(self):
        """Clients whom nobody lets in."""
        for auth, status in cycle([('honest:wrong', 403), ('nobody:sesame', 403), (None, 401)]):
            with ZMQClient(self._service.endpoint, auth, PATIENCE) as client:
                reply = client.call('echo', 'let me in')
            assert reply.status == status, reply
            yield 'refusals'
            self._over.wait(self._pause * 10)

    def _attacks(self):
        for attack in cycle(ATTACKS.values()):
            # Who is disconnected for what it does cannot complain.
            with suppress(OSError), attack.under_way(self._service, max(1, attack.short // _SOFTER)):
                pass
            yield 'attacks'
            self._over.wait(self._pause * 10)

    def all_once(self):
        """Each attack, under load; and each thread of the service is made."""
        with self._service.client(PATIENCE) as client, ThreadPoolExecutor() as callers:
            jobs = [client.submit('nap', 0.2).body['job'] for _ in range(2)]
            for status, _ in callers.map(partial(client.call, 'slow'), [0.2, 0.2]):
                assert status == 200
            for job in jobs:
                assert client.wait(job, PATIENCE).ok
        deadline = time.monotonic() + 4 * PATIENCE
        with self.under_way():
            while self.done['attacks'] < len(ATTACKS):
                assert time.monotonic() < deadline, 'the attacks do not end'
                assert not self.failures, self.failures
                time.sleep(0.05)


def soak(seconds, pause=0.01, readings=6, report=print):
    """Load a service, and look at it from time to time.

    :param seconds: how long
    :param pause: seconds that each honest client waits after each call
    :param readings: how often to look at it
    :param report: called with each line of the report
    :returns: the first reading, the last one, and what went wrong
    """
    with tempfile.TemporaryDirectory() as folder:
        journal = str(Path(folder, 'journal'))
        with running(script='soaked.py', journal=journal, **OPTIONS) as service:
            load = Load(service, pause)
            load.all_once()
            first = last = read(service)
            report(HEADER)
            report(f'{0:7}    {first}')
            began = time.monotonic()
            for _ in range(readings):
                with load.under_way():
                    time.sleep(seconds / readings)
                last = read(service)
                report(f'{(time.monotonic() - began) / 60:7.1f}    {last}')
    report(', '.join(f'{number} {what}' for what, number in load.done.items()))
    report(f'a call takes {last.call / first.call:.2f} times as long as at first')
    return first, last, [*load.failures, *compare(first, last)]


def compare(first, last):
    """Return what the service holds more of at the end than it may."""
    allowed = {'memory': GROWTH, 'descriptors': 0, 'threads': 0, 'tasks': 0}
    return [
        f'{name}: {getattr(first, name)} at first, {getattr(last, name)} at the end'
        for name, more in allowed.items()
        if getattr(last, name) > getattr(first, name) + more
    ]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog='chaos.soak', description='Honest and hostile load, for long.')
    parser.add_argument('--minutes', type=float, default=60.0, help='how long; an hour by default')
    parser.add_argument('--pause', type=float, default=0.01, help='seconds between the calls of a client')
    options = parser.parse_args(arguments)
    report = partial(print, flush=True)
    _first, _last, wrong = soak(60 * options.minutes, options.pause, report=report)
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
