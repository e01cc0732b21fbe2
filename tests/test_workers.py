"""Methods that run beside the loop: in threads and as coroutines, a bounded number at once."""

import asyncio
import multiprocessing
import threading

import pytest
import zmq
from pyramid.registry import Registry
from pyramid.threadlocal import get_current_registry

from peers import Peer, handler_of, message
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.stream import BATCH
from services import Echo, Process

fork = multiprocessing.get_context('fork')


class Meeting(Echo):
    """Methods that return when as many as are expected run at once; they tell how many it were at most."""

    def __init__(self, parties):
        self.barrier = threading.Barrier(parties)
        self.parties = parties
        self.lock = threading.Lock()
        self.running = self.most = 0

    def enter(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)

    def leave(self):
        with self.lock:
            self.running -= 1

    def meet(self, *frames):
        self.enter()
        self.barrier.wait(20)
        self.leave()
        return [200, threading.current_thread().name]

    async def meet_async(self, *frames):
        self.enter()
        while self.most < self.parties:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        self.leave()
        return [200, threading.current_thread().name]

    def most_at_once(self, *frames):
        return [200, self.most]


@pytest.mark.parametrize('workers', [2, 5])
def test_plain_methods_run_in_threads(start, workers):
    process = start('127.0.0.1', handler_of(Meeting(workers)), workers=workers)
    with Peer(process.endpoint) as peer:
        for _ in range(4 * workers):
            peer.send(message('meet'))
        names = {peer.reply()[1] for _ in range(4 * workers)}
        assert len(names) == workers
        assert all(name.startswith('pyams_zmq-worker') for name in names)
        assert peer.ask('most_at_once') == [200, workers]


def test_what_runs_on_the_loop(start):
    class Delegate(Echo):
        async def thread_async(self, data):
            return self.thread(data)

    for workers in (0, 2):
        process = start('127.0.0.1', handler_of(Delegate()), workers=workers)
        with Peer(process.endpoint) as peer:
            assert peer.ask('thread_async') == [200, 'MainThread']
            assert (peer.ask('thread') == [200, 'MainThread']) == (workers == 0)


def test_the_loop_answers_while_methods_block(start):
    class Delegate(Echo):
        gate = fork.Event()
        entered = fork.Semaphore(0)

        def block(self, data):
            self.entered.release()
            assert self.gate.wait(20)
            return [200, data]

    delegate = Delegate()
    process = start('127.0.0.1', handler_of(delegate), workers=2)
    with Peer(process.endpoint) as blocked, Peer(process.endpoint) as peer:
        for number in range(4):
            blocked.send(message('block', number))
        for _ in range(2):
            assert delegate.entered.acquire(timeout=10)
        assert peer.ask('_ping') == [200, 'pong']
        assert peer.status()['in_flight'] == 4
        assert peer.ask('later', 0) == [200, 0]
        assert peer.ask('unknown')[0] == 404
        assert not blocked.socket.poll(0)
        delegate.gate.set()
        assert sorted(blocked.reply() for _ in range(4)) == [[200, number] for number in range(4)]


@pytest.mark.parametrize('workers', [0, 2])
def test_the_registry_is_there_wherever_a_method_runs(start, workers):
    class Delegate(Echo):
        def registry(self, data):
            return [200, get_current_registry().mark]

        async def registry_async(self, data):
            before = get_current_registry().mark
            await asyncio.sleep(0)
            return [200, [before, get_current_registry().mark]]

        def registry_in_coroutine(self, data):
            return self.registry_async(data)

    class Handler(ZMQMessageHandler):
        def __call__(self, frames):
            self.mark = get_current_registry().mark
            return super().__call__(frames)

    registry = Registry()
    registry.mark = 'mine'
    process = start('127.0.0.1', handler_of(Delegate(), Handler), registry=registry, workers=workers)
    with Peer(process.endpoint) as peer:
        for _ in range(5):
            assert peer.ask('registry') == [200, 'mine']
            assert peer.ask('registry_async') == [200, ['mine', 'mine']]
            assert peer.ask('registry_in_coroutine') == [200, ['mine', 'mine']]


@pytest.mark.parametrize('socket_type', [zmq.REP, zmq.ROUTER, zmq.DEALER])
@pytest.mark.parametrize(('method', 'workers'), [('meet_async', 0), ('meet_async', 1), ('meet', 8)])
def test_no_more_than_max_in_flight_at_once(start, socket_type, method, workers):
    cls = type('Bounded', (Process,), {'socket_type': socket_type, 'max_in_flight': 3})
    process = start('127.0.0.1', handler_of(Meeting(3)), cls=cls, workers=workers)
    with Peer(process.endpoint, [b''] if socket_type == zmq.REP else []) as peer:
        for _ in range(30):
            peer.send(message(method))
        assert {peer.reply()[0] for _ in range(30)} == {200}
        assert peer.ask('most_at_once') == [200, 3]
        assert peer.status()['in_flight'] == 0


def test_coroutines_of_an_own_handler_are_bounded_too(start):
    class Handler(ZMQMessageHandler):
        async def __call__(self, frames):
            if frames[-1] != message('most_at_once'):
                await self.rep_handler.meet_async(*frames)
            super().__call__([message('most_at_once')])

    cls = type('Bounded', (Process,), {'socket_type': zmq.DEALER, 'max_in_flight': 3})
    process = start('127.0.0.1', handler_of(Meeting(3), Handler), cls=cls)
    with Peer(process.endpoint, []) as peer:
        for _ in range(30):
            peer.send(message('meet_async'))
        for _ in range(30):
            peer.reply()
        assert peer.ask('most_at_once') == [200, 3]


def cancel_all(loop):
    for task in asyncio.all_tasks(loop):
        task.cancel()


class CancelsDelegate(ZMQMessageHandler):
    """Cancels the delegate's coroutines before they begin."""

    def __call__(self, frames):
        super().__call__(frames)
        cancel_all(self.process.loop.asyncio_loop)


class CancelsItself(ZMQMessageHandler):
    """Is cancelled before it begins, but for one type of message."""

    def __call__(self, frames):
        if frames[-1] == message('_status'):
            return super().__call__(frames)
        loop = self.process.loop.asyncio_loop
        loop.call_soon(cancel_all, loop)
        return self.handle(frames)

    async def handle(self, frames):
        super().__call__(frames)


@pytest.mark.filterwarnings('ignore:coroutine .* was never awaited:RuntimeWarning')
@pytest.mark.parametrize('handler', [CancelsDelegate, CancelsItself])
def test_coroutines_cancelled_before_they_begin(start, handler):
    """There is a reply, and their places are free again."""
    cls = type('Bounded', (Process,), {'max_in_flight': 2})
    process = start('127.0.0.1', handler_of(Echo(), handler), cls=cls)
    with Peer(process.endpoint) as peer:
        for _ in range(3):
            assert peer.ask('later', 0) == [500, 'CancelledError: ']
        assert peer.status()['in_flight'] == 0


@pytest.mark.parametrize('socket_type', [zmq.REP, zmq.ROUTER, zmq.DEALER])
def test_the_loop_turns_between_the_messages_of_a_long_queue(start, socket_type):
    """No more than a batch is taken before timers and other sockets have their turn."""

    class Delegate(Echo):
        gate = fork.Event()
        count = longest = last = 0

        def block(self, *frames):
            assert self.gate.wait(20)
            self.turn()
            return [200, 'started']

        def turn(self):
            self.longest = max(self.longest, self.count - self.last)
            self.last = self.count
            self.process.loop.add_callback(self.turn)

        def counted(self, *frames):
            self.count += 1
            return [200, self.count]

        def steps(self, *frames):
            return [200, self.longest]

    delegate = Delegate()
    process = start(
        '127.0.0.1', handler_of(delegate), cls=type('Service', (Process,), {'socket_type': socket_type})
    )
    with Peer(process.endpoint, [b''] if socket_type == zmq.REP else []) as peer:
        peer.send(message('block'))
        for _ in range(900):
            peer.send(message('counted'))
        delegate.gate.set()
        assert peer.reply() == [200, 'started']
        assert [peer.reply() for _ in range(900)] == [[200, number] for number in range(1, 901)]
        status, longest = peer.ask('steps')
        assert status == 200
        assert 0 < longest <= BATCH
