"""What a process tells of its own work."""

import json
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from peers import Peer, handler_of
from pyams_zmq import metrics
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.metrics import BOUNDS, FAILURES, Failures, Latencies, resources
from pyams_zmq.wire import encode
from services import Process


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    clock = SimpleNamespace(now=1000.0, perf_counter=lambda: clock.now, time=time.time)
    monkeypatch.setattr(metrics, 'time', clock)
    return clock


def record(latencies, clock, *seconds):
    for one in seconds:
        latencies.record(clock.now - one)


# Latencies


def test_nothing_is_told_before_the_first_message(clock):
    status = Latencies().status()
    assert status['served'] == 0
    assert status['latency'] == {'window': 0, 'count': 0, 'p50': None, 'p90': None, 'p99': None}
    assert {count for _bound, count in status['histogram']['buckets']} == {0}


def test_percentiles_are_right_within_a_bucket(clock):
    latencies = Latencies()
    chance = random.Random(7)
    times = sorted(chance.lognormvariate(-5, 2) for _ in range(2000))
    record(latencies, clock, *times)
    latency = latencies.status()['latency']
    for percent in 50, 90, 99:
        exact = times[len(times) * percent // 100 - 1]
        assert exact <= latency[f'p{percent}'] * 1.000001 <= exact * 1.28


def test_one_slow_message_among_a_hundred_shows_in_the_99th_percentile_only(clock):
    latencies = Latencies()
    record(latencies, clock, *[0.001] * 98, 2, 2)
    latency = latencies.status()['latency']
    assert latency['p50'] == latency['p90'] == pytest.approx(0.001)
    assert latency['p99'] == pytest.approx(2)


@pytest.mark.parametrize('seconds', [-0.001, 0, 1e-9, 1e-5, 1, 8000, 8001, 1e9])
def test_any_time_fits(clock, seconds):
    latencies = Latencies()
    record(latencies, clock, seconds)
    status = latencies.status()
    assert status['served'] == status['latency']['count'] == 1
    assert status['latency']['p50'] == pytest.approx(max(0, seconds), abs=1e-5)
    json.dumps(status, allow_nan=False)


def test_percentiles_forget_what_is_long_ago_and_the_histogram_does_not(clock):
    latencies = Latencies()
    record(latencies, clock, 4, 4)
    clock.now += 250
    record(latencies, clock, 0.001)
    assert latencies.status()['latency']['p99'] == pytest.approx(4)
    clock.now += 60
    status = latencies.status()
    assert status['latency']['count'] == 1
    assert status['latency']['p99'] <= 0.001001
    assert 240 <= status['latency']['window'] <= 300
    assert status['served'] == 3
    assert dict(map(tuple, status['histogram']['buckets']))[10.0] == 3
    clock.now += 1e6
    assert latencies.status()['latency'] | {'window': 0} == {
        'window': 0,
        'count': 0,
        'p50': None,
        'p90': None,
        'p99': None,
    }
    assert 240 <= latencies.status()['latency']['window'] <= 300
    record(latencies, clock, 0.5)
    assert latencies.status()['latency']['count'] == 1


def test_every_message_of_the_window_counts_whatever_the_pace(clock):
    latencies = Latencies()
    chance = random.Random(3)
    arrivals = []
    for _ in range(2000):
        clock.now += chance.choice([0, 0.5, 7, 61, 130])
        arrivals.append(clock.now)
        record(latencies, clock, 0.01)
        latency = latencies.status()['latency']
        since = clock.now - latency['window']
        assert latency['count'] == sum(since - 1e-6 < one for one in arrivals[-700:])
        assert latency['window'] <= 300.001


def test_the_histogram_is_cumulative_and_its_bounds_grow(clock):
    latencies = Latencies()
    record(latencies, clock, *(2 * bound for bound in BOUNDS))
    buckets = latencies.status()['histogram']['buckets']
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert latencies.status()['histogram']['sum'] == pytest.approx(2 * sum(BOUNDS), rel=1e-6)


def test_memory_is_bounded(clock):
    latencies = Latencies()
    for _ in range(100):
        clock.now += 60
        record(latencies, clock, 0.01)
    assert len(latencies._past) == 5
    assert len(latencies._counts) == len(BOUNDS) + 1


# Failures


def test_the_last_failures_are_kept_the_newest_first():
    failures = Failures()
    for number in range(FAILURES + 5):
        failures.add('convert', f'ValueError: {number}')
    status = failures.status()
    assert len(status) == FAILURES
    assert [one['error'] for one in status[:2]] == ['ValueError: 24', 'ValueError: 23']
    assert status[0]['type'] == 'convert'
    assert abs(status[0]['time'] - time.time()) < 60


def test_long_types_and_texts_are_cut_off():
    failures = Failures()
    failures.add('t' * 10**6, 'e' * 10**6)
    assert len(json.dumps(failures.status())) < 1000


# Resources


def test_memory_is_what_the_system_says():
    assert resources()['memory'] == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert resources()['cpu'] > 0


@pytest.mark.parametrize(('platform', 'unit'), [('linux', 1024), ('darwin', 1)])
def test_memory_is_the_peak_where_nothing_else_is_known(monkeypatch, platform, unit):
    monkeypatch.setattr(metrics, 'Path', lambda path: Path('/nowhere', path[1:]))
    monkeypatch.setattr(metrics.sys, 'platform', platform)
    usage = SimpleNamespace(ru_maxrss=7, ru_utime=1.5, ru_stime=0.25)
    monkeypatch.setattr(metrics.resource, 'getrusage', lambda _who: usage)
    assert resources() == {'memory': 7 * unit, 'cpu': 1.75}


# A process


class Delegate:
    """Fails for each name it is asked for that is no ordinary one."""

    def echo(self, data):
        return [200, data]

    def fail(self, data):
        raise ValueError('not like this')

    def __getattr__(self, name):
        if name.startswith('_'):
            raise AttributeError(name)
        raise RuntimeError('no such thing')


def test_the_status_tells_how_the_work_goes(start):
    process = start(handler=handler_of(Delegate()), workers=2)
    with Peer(process.endpoint) as peer:
        for _ in range(10):
            assert peer.ask('echo', 1) == [200, 1]
        assert peer.ask('fail', {'card': '4111 1111'})[0] == 500
        peer.ask('_ping')
        peer.ask('_ping')
        status = peer.status()
    assert status['served'] == status['latency']['count'] == 11
    assert status['failed'] == 1
    assert 0 < status['latency']['p50'] <= status['latency']['p90'] <= status['latency']['p99'] < 60
    assert status['workers'] == 2
    assert status['waiting'] == status['in_flight'] == 0
    assert status['max_in_flight'] == 128
    assert status['memory'] > 1_000_000
    assert status['cpu'] >= 0
    [failure] = status['failures']
    assert (failure['type'], failure['error']) == ('fail', 'ValueError: not like this')
    assert '4111' not in json.dumps(status)


HOSTILE = [
    '',
    'x' * 100_000,
    '<img src=x onerror=alert(1)>',
    'a\0b\r\nHTTP/1.1 200',
    '\x1b[2J\u202e\ud800',
    '"}],[{"',
    '{0.__class__} %s %(x)s ${y}',
]


@pytest.mark.parametrize('name', HOSTILE, ids=ascii)
def test_hostile_types_of_messages_are_text_like_any_other(start, name):
    process = start(handler=handler_of(Delegate()))
    with Peer(process.endpoint) as peer:
        assert peer.ask(name)[0] == 500
        [failure] = peer.status()['failures']
        assert failure['type'] == name[:100]
        assert failure['error'] == 'RuntimeError: no such thing'
        assert peer.ask('echo', 1) == [200, 1]


def test_a_flood_of_failures_leaves_the_status_small(start):
    process = start(handler=handler_of(Delegate()))
    with Peer(process.endpoint) as peer:
        for number in range(100):
            peer.send(encode([f'{number}' + '\ud800' * 5000, None]))
        for _ in range(100):
            assert peer.reply()[0] == 500
        assert peer.status()['failed'] == 100
        assert len(json.dumps(peer.status())) < 50_000


def test_messages_that_wait_for_a_worker_are_told(start, wait_until):
    release = threading.Event()

    class Slow:
        def wait(self, data):
            release.wait(30)
            return [200, None]

        async def release(self, data):
            release.set()

    process = start(handler=handler_of(Slow()), workers=1)
    with Peer(process.endpoint) as peer, Peer(process.endpoint) as watcher:
        for _ in range(4):
            peer.send(encode(['wait', None]))
        wait_until(lambda: watcher.status()['waiting'] == 3, timeout=30)
        assert watcher.status()['in_flight'] == 4
        assert watcher.status()['served'] == 0
        watcher.ask('release')
        for _ in range(4):
            assert peer.reply() == [200, None]
        assert watcher.status()['waiting'] == 0


class Impatient(Process):
    reply_timeout = 0.05


def test_a_reply_that_comes_too_late_is_a_failure(start, wait_until):
    class Silent(ZMQMessageHandler):
        def __call__(self, frames):
            if b'_status' in frames[-1]:
                super().__call__(frames)

    process = start(handler=handler_of(Delegate(), Silent), cls=Impatient)
    with Peer(process.endpoint) as peer:
        assert peer.ask('echo') == [500, 'TimeoutError: no reply within 0.05 s']
        [failure] = peer.status()['failures']
        assert (failure['type'], failure['error']) == ('', 'TimeoutError: no reply within 0.05 s')
        assert 0.05 <= peer.status()['latency']['p50'] < 30
