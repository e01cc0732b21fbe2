"""Handlers of users' own, as 2.0.0 allowed them, and the delegates of the library's one."""

import _thread
import asyncio
import contextvars
import functools
import gc
import json
import logging
import multiprocessing
import os
import sys
import threading
import weakref
from typing import ClassVar

import pytest
import zmq
from tornado.ioloop import PeriodicCallback

from peers import Peer, handler_of, message
from pyams_zmq.exceptions import ReplyError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.request import Request
from pyams_zmq.wire import decode
from services import Echo, EchoHandler, Process

fork = multiprocessing.get_context('fork')


class Nothing:
    """A delegate without methods."""


class OwnHandler(ZMQMessageHandler):
    """Handles messages by itself; the type names what is done, by default by a method ``do_<type>``."""

    handler = Nothing

    def __call__(self, frames):
        message_type, data = decode(frames[-1])
        return getattr(self, f'do_{message_type}')(data)

    def do_echo(self, data):
        self.rep_stream.send_json([200, data])

    def do_ping(self, data):
        self.rep_stream.send_json([200, 'pong'])


class Impatient(Process):
    reply_timeout = 0.3


TIMEOUT = [500, 'TimeoutError: no reply within 0.3 s']


def same_thing(peer, data):
    """Whether the service still answers, and nothing else is on its way to the peer."""
    return peer.ask('echo', data) == [200, data]


# How a reply is sent, and when

SENDERS = {
    'send_json': lambda stream, reply: stream.send_json(reply),
    'send': lambda stream, reply: stream.send(json.dumps(reply).encode()),
    'send_frame': lambda stream, reply: stream.send(zmq.Frame(json.dumps(reply).encode())),
    'send_multipart': lambda stream, reply: stream.send_multipart([json.dumps(reply).encode()]),
    'send_tuple': lambda stream, reply: stream.send_multipart((memoryview(json.dumps(reply).encode()),)),
    'send_string': lambda stream, reply: stream.send_string(json.dumps(reply)),
    'send_unicode': lambda stream, reply: stream.send_unicode(json.dumps(reply)),
    'no_copy': lambda stream, reply: stream.send(json.dumps(reply).encode(), copy=False),
    'track': lambda stream, reply: stream.send(json.dumps(reply).encode(), copy=False, track=True),
    'callback': lambda stream, reply: stream.send_json(reply, callback=lambda _sent, _status: None),
}


def in_thread(function, *args):
    threading.Thread(target=function, args=args, daemon=True).start()


def without_context(function, *args):
    contextvars.Context().run(function, *args)


async def asynchronously(function, *args):
    await asyncio.sleep(0)
    function(*args)


def in_bare_thread(function, *args):
    """One that :mod:`threading` knows nothing of."""
    _thread.start_new_thread(function, args)


async def in_its_thread(function, *args):
    await asyncio.to_thread(function, *args)


TIMES = {
    'at once': lambda loop, answer: answer(),
    'call_later': lambda loop, answer: loop.call_later(0.001, answer),
    'add_callback': lambda loop, answer: loop.add_callback(answer),
    'spawn_callback': lambda loop, answer: loop.spawn_callback(asynchronously, answer),
    'call_soon of asyncio': lambda loop, answer: loop.asyncio_loop.call_soon(answer),
    'call_soon without context': lambda loop, answer: without_context(loop.asyncio_loop.call_soon, answer),
    'add_callback from a thread': lambda loop, answer: in_thread(loop.add_callback, answer),
    'call_later from a thread': lambda loop, answer: in_thread(loop.add_callback, loop.call_later, 0, answer),
    'thread': lambda loop, answer: in_thread(answer),
    'thread without context': lambda loop, answer: without_context(in_thread, answer),
    'bare thread': lambda loop, answer: in_bare_thread(answer),
    'thread of a timer': lambda loop, answer: loop.call_later(0.001, in_thread, answer),
    'thread of a coroutine': lambda loop, answer: asynchronously(in_thread, answer),
    'thread of a thread': lambda loop, answer: in_thread(in_thread, answer),
    'executor': lambda loop, answer: (loop.run_in_executor(None, answer), None)[1],
    'task': lambda loop, answer: (asyncio.ensure_future(asynchronously(answer)), None)[1],
    'async __call__': lambda loop, answer: asynchronously(answer),
    'async __call__ with a thread': lambda loop, answer: in_its_thread(answer),
    'future of __call__': lambda loop, answer: loop.run_in_executor(None, answer),
}


@pytest.mark.parametrize('time', TIMES)
def test_a_handler_replies_when_it_likes(start, time):
    """By every way of sending, to several clients which do not wait for each other."""

    class Handler(OwnHandler):
        def __call__(self, frames):
            sender, data = decode(frames[-1])
            answer = functools.partial(SENDERS[sender], self.rep_stream, [200, data])
            return TIMES[time](self.process.loop, answer)

    process = start('127.0.0.1', Handler)
    with Peer(process.endpoint) as one, Peer(process.endpoint) as other:
        for number in range(5):
            for sender in SENDERS:
                one.send(message(sender, ['one', sender, number]))
                other.send(message(sender, ['other', sender, number]))
        for number in range(5):
            for sender in SENDERS:
                assert one.reply() == [200, ['one', sender, number]]
                assert other.reply() == [200, ['other', sender, number]]
        for peer in (one, other):
            assert peer.ask('send', 'last') == [200, 'last']


def test_a_reply_of_several_frames(start):
    class Handler(OwnHandler):
        def do_multipart(self, data):
            self.rep_stream.send_multipart([b'', b'\x00\xff', b'end'])

        def do_parts(self, data):
            self.rep_stream.send(b'one', zmq.SNDMORE)
            self.rep_stream.send_multipart([b'two', b'three'], zmq.SNDMORE)
            self.rep_stream.send_json(4)

        def do_parts_from_thread(self, data):
            in_thread(self.do_parts, data)

    with Peer(start('127.0.0.1', Handler).endpoint) as peer:
        peer.send(message('multipart'))
        assert peer.receive() == [b'', b'\x00\xff', b'end']
        for method in ('parts', 'parts_from_thread'):
            peer.send(message(method))
            assert peer.receive() == [b'one', b'two', b'three', b'4']
        assert same_thing(peer, 1)


def test_what_has_been_sent_is_told_to_callbacks(start):
    class Handler(OwnHandler):
        seen = ()

        def note(self, *args):
            self.seen = [[frame.decode() for frame in args[-2]], args[-1] is None]

        def do_callback(self, data):
            self.rep_stream.send_json(data, callback=self.note)

        def do_on_send(self, data):
            self.rep_stream.on_send(self.note)
            self.rep_stream.send_json(data)

        def do_on_send_stream(self, data):
            self.rep_stream.on_send_stream(lambda stream, frames, status: self.note(frames, status))
            self.rep_stream.send_json(data)

        def do_stop_on_send(self, data):
            self.rep_stream.stop_on_send()
            self.rep_stream.send_json(data)

        def do_tracked(self, data):
            self.rep_stream.send(b'"tracked"', copy=False, track=True, callback=self.note)

        def do_raising(self, data):
            self.rep_stream.send_json(data, callback=lambda *_: 1 / 0)

        def do_seen(self, data):
            self.rep_stream.on_send(None)
            self.rep_stream.send_json(self.seen)

    with Peer(start('127.0.0.1', Handler).endpoint) as peer:
        for method in ('callback', 'on_send', 'on_send_stream'):
            assert peer.ask(method, method) == method
            assert peer.ask('seen') == [[f'"{method}"'], True]
        assert peer.ask('stop_on_send', 1) == 1
        assert peer.ask('seen') == [['"on_send_stream"'], True]
        assert peer.ask('tracked') == 'tracked'
        assert peer.ask('seen') == [['"tracked"'], False]
        assert peer.ask('raising', 'but sent') == 'but sent'
        assert peer.ask('seen') == [['"tracked"'], False]


# Handlers that fail


class Failing(OwnHandler):
    def do_raise(self, data):
        raise ValueError(data)

    def do_exit(self, data):
        sys.exit(data)

    async def do_raise_async(self, data):
        await asyncio.sleep(0)
        raise ValueError(data)

    def do_raise_after_replying(self, data):
        self.do_echo(data)
        raise ValueError(data)

    async def do_raise_after_replying_async(self, data):
        self.do_echo(data)
        await asyncio.sleep(0)
        raise SystemExit(data)

    def do_raise_in_the_middle(self, data):
        self.rep_stream.send(b'half', zmq.SNDMORE)
        raise ValueError(data)

    def do_set(self, data):
        self.rep_stream.send_json({data})

    def do_text(self, data):
        self.rep_stream.send_multipart(['text'])

    def do_half_a_text(self, data):
        self.rep_stream.send_multipart([b'half', 'text'])

    def do_scattered(self, data):
        self.rep_stream.send_multipart([b'part', memoryview(b'abcdef')[::2]])

    def do_object(self, data):
        self.rep_stream.send(None)

    def do_no_frames(self, data):
        self.rep_stream.send_multipart([])

    def do_twice(self, data):
        self.do_echo(data)
        self.do_echo('secret')

    def do_ten_times(self, data):
        self.do_echo(data)
        for _ in range(9):
            self.process.loop.add_callback(self.do_echo, 'secret')

    async def do_twice_async(self, data):
        self.do_echo(data)
        await asyncio.sleep(0)
        self.do_echo('secret')

    def do_twice_in_parts(self, data):
        self.do_echo(data)
        self.rep_stream.send(b'secret', zmq.SNDMORE)


@pytest.mark.parametrize(
    ('method', 'expected'),
    [
        ('raise', [500, 'ValueError: 7']),
        ('exit', [500, 'SystemExit: 7']),
        ('raise_async', [500, 'ValueError: 7']),
        ('raise_in_the_middle', [500, 'ValueError: 7']),
        ('unknown', [500, "AttributeError: 'Failing' object has no attribute 'do_unknown'"]),
        ('set', 500),
        ('text', 500),
        ('half_a_text', 500),
        ('scattered', [500, 'BufferError: a frame of the reply is not contiguous in memory']),
        ('object', 500),
        ('no_frames', 500),
        ('raise_after_replying', [200, 7]),
        ('raise_after_replying_async', [200, 7]),
        ('twice', [200, 7]),
        ('twice_async', [200, 7]),
        ('twice_in_parts', [200, 7]),
        ('ten_times', [200, 7]),
    ],
)
def test_a_handler_that_fails_or_says_too_much(start, method, expected):
    """One reply for its client, and nothing for the next ones, who are served."""
    process = start('127.0.0.1', Failing)
    with Peer(process.endpoint) as peer, Peer(process.endpoint) as other:
        for _ in range(3):
            peer.send(message(method, 7))
            other.send(message('ping'))
            reply = peer.reply()
            assert (reply if isinstance(expected, list) else reply[0]) == expected
            assert other.reply() == [200, 'pong']
            assert same_thing(other, 'other')
            assert same_thing(peer, 'again')


def test_a_client_that_does_not_read(start, log_file, wait_until):
    """What cannot be sent is told, and not counted as sent."""

    class Handler(OwnHandler):
        large = 0

        def do_large(self, data):
            self.large += 1
            self.rep_stream.send_json([200, data, 20_000 * 'x'])

        def do_status(self, data):
            self.rep_stream.send_json([self.large, self.rep_stream.status()])

    process = start('127.0.0.1', Handler, cls=type('Narrow', (Process,), {'high_water_mark': 10}))
    with Peer(process.endpoint) as peer, Peer(process.endpoint) as other:
        for number in range(3000):
            peer.send(message('large', number))
        wait_until(lambda: other.ask('status')[0] == 3000)
        _number, status = other.ask('status')
        lost = status['received'] - 1 - status['replied']
        assert lost > 0
        assert log_file.read_text().count('does not read') == lost
        numbers = [peer.reply()[1] for _ in range(3000 - lost)]
        assert numbers == sorted(set(numbers))
        assert same_thing(peer, 'last')


def test_a_client_that_is_gone(start, log_file):
    """Nobody is told, and nothing counted."""

    class Handler(OwnHandler):
        def do_gone(self, data):
            Request(self.rep_stream, [b'who has left', b'']).reply([b'x'])
            self.do_echo(self.rep_stream.status()['replied'])

    with Peer(start('127.0.0.1', Handler).endpoint) as peer:
        assert [peer.ask('gone') for _ in range(3)] == [[200, number] for number in range(3)]
    assert 'A reply was dropped' not in log_file.read_text()


def test_a_delegate_that_replies_by_itself_too(start):
    class Delegate(Echo):
        def both(self, data):
            self.process.rep_stream.send_json([200, 'by itself'])
            return [200, 'returned']

        def both_by_exception(self, data):
            self.process.rep_stream.send_json([200, 'by itself'])
            raise ReplyError(409)

    with Peer(start('127.0.0.1', handler_of(Delegate())).endpoint) as peer:
        for method in ('both', 'both_by_exception'):
            assert peer.ask(method) == [200, 'by itself']
            assert same_thing(peer, method)
        assert peer.status()['unwanted'] == 2


# Handlers that do not reply in time


class Silent(OwnHandler):
    def do_silent(self, data):
        """Never replies."""

    async def do_silent_async(self, data):
        """Never replies."""

    def do_half(self, data):
        self.rep_stream.send(b'half', zmq.SNDMORE)

    def do_thread(self, data):
        in_thread(self.do_echo, data)

    def do_later(self, data):
        self.process.loop.call_later(0.001, self.do_echo, data)


@pytest.mark.parametrize('method', ['silent', 'silent_async', 'half'])
def test_a_handler_that_does_not_reply(start, method):
    process = start('127.0.0.1', Silent, cls=Impatient)
    with Peer(process.endpoint) as peer, Peer(process.endpoint) as other:
        peer.send(message(method))
        peer.send(message('echo', 'next'))
        assert peer.reply() == TIMEOUT
        assert peer.reply() == [200, 'next']
        assert same_thing(other, 'other')
        assert other.ask('later', 'later') == [200, 'later']


def test_one_missing_reply_does_not_cost_those_of_threads_for_ever(start):
    """Whose reply it is that a thread sends cannot always be known; but that must not stay so."""
    process = start('127.0.0.1', Silent, cls=Impatient)
    with Peer(process.endpoint) as peer:
        assert peer.ask('silent') == TIMEOUT
        answers = [peer.ask('thread', number) for number in range(4)]
        assert answers[-1] == [200, 3], answers


class Pooled(Silent):
    """Replies from the thread of a pool, which does not know what message it works for."""

    def do_pool(self, data):
        self.process.loop.run_in_executor(None, self.do_echo, data)


def test_one_missing_reply_does_not_cost_those_of_pools_for_ever(start):
    process = start('127.0.0.1', Pooled, cls=Impatient)
    with Peer(process.endpoint) as peer:
        assert peer.ask('pool', 1) == [200, 1]
        assert peer.ask('silent') == TIMEOUT
        # It might be the one that is missing.
        assert peer.ask('pool', 2) == TIMEOUT
        answers = [peer.ask('pool', number) for number in range(4)]
        assert answers[-1] == [200, 3], answers


class Patient(Process):
    reply_timeout = None


@pytest.mark.parametrize('method', ['thread', 'later', 'pool'])
def test_replies_may_take_for_ever(start, method):
    process = start('127.0.0.1', Pooled, cls=Patient)
    with Peer(process.endpoint) as peer:
        for number in range(3):
            assert peer.ask(method, number) == [200, number]


class Holding(OwnHandler):
    """Replies when the gate named in the message opens, from a thread or from a task."""

    gates = None

    def do_thread(self, name):
        in_thread(self.reply_late, name)

    async def do_task(self, name):
        await asyncio.to_thread(self.gates[name].wait, 20)
        self.do_echo(name)

    def do_thread_of_timer(self, name):
        self.process.loop.call_later(0, self.do_thread, name)

    async def do_thread_of_coroutine(self, name):
        await asyncio.sleep(0)
        self.do_thread(name)

    def do_thread_of_thread(self, name):
        in_thread(self.do_thread, name)

    def do_pool(self, name):
        self.process.loop.run_in_executor(None, self.reply_late, name)
        logging.getLogger().info('%s is in the pool', name)  # which knows its thread by now

    def do_twice_thread(self, name):
        """Replies at once, and again when the gate opens."""
        self.do_echo(name)
        self.do_thread(name)

    def do_twice_task(self, name):
        self.do_echo(name)
        self.task = asyncio.ensure_future(self.do_task(name))

    def do_twice_thread_of_timer(self, name):
        self.do_echo(name)
        self.do_thread_of_timer(name)

    async def do_twice_thread_of_coroutine(self, name):
        self.do_echo(name)
        await self.do_thread_of_coroutine(name)

    def reply_late(self, name):
        assert self.gates[name].wait(20)
        self.do_echo(name)


class Hasty(Process):
    reply_timeout = 1.0


@pytest.fixture
def holding(start, log_file):
    gates = {name: fork.Event() for name in ('first', 'second')}
    process = start('127.0.0.1', type('Handler', (Holding,), {'gates': gates}), cls=Hasty)
    process.gates = gates
    with Peer(process.endpoint) as process.one, Peer(process.endpoint) as process.other:
        yield process
        for gate in gates.values():
            gate.set()


DROPPED = 'A reply was dropped'
SECOND = 'A second reply to the same message was dropped'


@pytest.mark.parametrize('second', ['thread', 'task'])
@pytest.mark.parametrize(
    'first', ['thread', 'task', 'thread_of_timer', 'thread_of_coroutine', 'thread_of_thread', 'pool']
)
def test_a_late_reply_reaches_nobody(holding, log_file, wait_until, first, second):
    """Not even where the next message, of another client, waits for its own."""
    assert holding.one.ask(first, 'first')[0] == 500
    holding.other.send(message(second, 'second'))
    holding.gates['first'].set()
    wait_until(lambda: DROPPED in log_file.read_text())
    assert not holding.other.socket.poll(0)
    holding.gates['second'].set()
    assert holding.other.reply() == [200, 'second']
    assert same_thing(holding.one, 'again')
    assert same_thing(holding.other, 'again')


@pytest.mark.parametrize('second', ['thread', 'task'])
@pytest.mark.parametrize('first', ['thread', 'task'])
def test_a_reply_later_than_that_to_the_next_message_reaches_nobody(
    holding, log_file, wait_until, first, second
):
    assert holding.one.ask(first, 'first')[0] == 500
    holding.other.send(message(second, 'second'))
    holding.gates['second'].set()
    assert holding.other.reply() == [200, 'second']
    holding.gates['first'].set()
    wait_until(lambda: DROPPED in log_file.read_text())
    assert same_thing(holding.one, 'again')
    assert same_thing(holding.other, 'again')


@pytest.mark.parametrize('second', ['thread', 'task'])
@pytest.mark.parametrize(
    'first', ['twice_thread', 'twice_task', 'twice_thread_of_timer', 'twice_thread_of_coroutine']
)
def test_a_second_reply_that_comes_late_reaches_nobody(holding, log_file, wait_until, first, second):
    assert holding.one.ask(first, 'first') == [200, 'first']
    holding.other.send(message(second, 'second'))
    holding.gates['first'].set()
    holding.gates['second'].set()
    assert holding.other.reply() == [200, 'second']
    assert same_thing(holding.one, 'again')
    assert same_thing(holding.other, 'again')


def test_a_late_reply_reaches_nobody_even_after_the_one_that_was_taken_for_it(holding, log_file, wait_until):
    """Pools do not tell whose reply it is: the first was dropped, and the second may be anybody's too."""
    assert holding.one.ask('pool', 'first')[0] == 500
    holding.other.send(message('pool', 'second'))
    wait_until(lambda: 'second is in the pool' in log_file.read_text())
    holding.gates['second'].set()
    wait_until(lambda: DROPPED in log_file.read_text())
    holding.gates['first'].set()
    assert holding.other.reply()[0] == 500
    assert same_thing(holding.one, 'again')
    assert same_thing(holding.other, 'again')


def test_a_late_reply_of_a_thread_begun_during_the_next_message_reaches_nobody(start, log_file, wait_until):
    """Nothing but who started it tells it from one of the next message."""

    class Handler(Holding):
        gates: ClassVar = {name: fork.Event() for name in ('first', 'second')}
        begun = threading.Event()

        def do_thread_of_thread(self, name):
            in_thread(self.begin, name)

        def begin(self, name):
            assert self.gates[name].wait(20)
            self.do_thread(name)
            self.begun.set()

        def do_second(self, name):
            self.gates['first'].set()
            assert self.begun.wait(10)
            in_thread(self.reply_late, name)

    process = start('127.0.0.1', Handler, cls=Hasty)
    with Peer(process.endpoint) as one, Peer(process.endpoint) as other:
        assert one.ask('thread_of_thread', 'first')[0] == 500
        other.send(message('second', 'second'))
        wait_until(lambda: DROPPED in log_file.read_text())
        Handler.gates['second'].set()
        assert other.reply() == [200, 'second']
        assert same_thing(one, 'again')


def test_late_replies_when_nobody_waits(holding, log_file, wait_until):
    assert holding.one.ask('thread', 'first')[0] == 500
    holding.gates['first'].set()
    wait_until(lambda: DROPPED in log_file.read_text())
    holding.gates['second'].set()
    assert holding.other.ask('thread', 'second') == [200, 'second']


def test_a_reply_without_a_request_is_dropped(log_file, start, wait_until):
    """As one that a timer sends before any message came."""

    class Early(OwnHandler):
        def __init__(self, *args):
            super().__init__(*args)
            self.do_echo('early')
            self.process.loop.add_callback(self.do_echo, 'early')
            in_thread(self.do_echo, 'early')

    process = start('127.0.0.1', Early)
    wait_until(lambda: log_file.read_text().count(DROPPED) == 3)
    with Peer(process.endpoint) as peer:
        assert same_thing(peer, 1)


def test_a_task_of_the_handlers_own_replies_to_all_messages(start):
    """It is started without the context of the first."""

    class Handler(OwnHandler):
        queue = None

        def __call__(self, frames):
            if self.queue is None:
                self.queue = asyncio.Queue()
                without_context(asyncio.ensure_future, self.work())
            self.queue.put_nowait(frames)

        async def work(self):
            while True:
                self.do_echo(decode((await self.queue.get())[-1])[1])

    with Peer(start('127.0.0.1', Handler).endpoint) as peer:
        for number in range(3):
            assert same_thing(peer, number)


def test_threads_that_have_replied_are_not_kept(start):
    class Handler(OwnHandler):
        last = staticmethod(lambda: None)

        def do_reply(self, data):
            thread = threading.Thread(target=self.do_echo, args=(data,))
            thread.start()
            thread.join()
            self.last = weakref.ref(thread)

        def do_kept(self, data):
            gc.collect()
            self.do_echo(self.last() is not None)

    with Peer(start('127.0.0.1', Handler).endpoint) as peer:
        assert peer.ask('reply', 1) == [200, 1]
        assert peer.ask('kept') == [200, False]


# What a handler may do with its stream


class Flushing(OwnHandler):
    def do_flush(self, data):
        self.rep_stream.flush()
        self.do_echo(data)
        self.rep_stream.flush()

    def do_flush_later(self, data):
        self.process.loop.call_later(0.001, self.do_echo, data)
        self.rep_stream.flush()

    def do_pause(self, data):
        """Stops reading, and goes on later."""
        self.rep_stream.stop_on_recv()
        self.do_echo(data)
        self.process.loop.call_later(0.001, self.rep_stream.on_recv, self)


@pytest.mark.parametrize('method', ['flush', 'flush_later', 'pause'])
def test_a_handler_that_flushes_or_pauses_its_stream(start, method):
    process = start('127.0.0.1', Flushing)
    with Peer(process.endpoint) as peer:
        for number in range(300):
            peer.send(message(method, number))
        assert [peer.reply() for _ in range(300)] == [[200, number] for number in range(300)]
        assert same_thing(peer, 1)


def test_a_timer_that_flushes_the_stream_takes_no_message_away(start):
    class Handler(Silent):
        def __init__(self, *args):
            super().__init__(*args)
            self.timer = PeriodicCallback(self.rep_stream.flush, 1)
            self.timer.start()

    process = start('127.0.0.1', Handler)
    with Peer(process.endpoint) as peer:
        for number in range(100):
            peer.send(message('later', number))
        assert [peer.reply() for _ in range(100)] == [[200, number] for number in range(100)]


def test_a_handler_that_leaves_the_message_to_its_base_class(start):
    """At once, later on the loop, and in a coroutine."""

    class Handler(EchoHandler):
        def __call__(self, frames):
            way, _data = decode(frames[0])
            handle = super().__call__
            if way == 'at once':
                return handle(frames)
            if way == 'later':
                self.process.loop.call_later(0.001, handle, frames)
                return None
            return asynchronously(handle, frames)

    for workers in (0, 2):
        process = start('127.0.0.1', Handler, workers=workers)
        with Peer(process.endpoint) as peer:
            for way in ('at once', 'later', 'coroutine'):
                # A delegate's method gets all the frames, and this one has one argument.
                for status, frame in (
                    (400, message('static')),
                    (404, message('unknown')),
                    (400, b'not JSON'),
                    (200, message('_ping')),
                ):
                    peer.send(message(way), frame)
                    assert peer.reply()[0] == status


@pytest.mark.parametrize('time', TIMES)
def test_a_handler_leaves_messages_to_its_base_class_when_it_likes(start, time):
    class Handler(EchoHandler):
        def __call__(self, frames):
            return TIMES[time](self.process.loop, functools.partial(super().__call__, frames))

    process = start('127.0.0.1', Handler)
    with Peer(process.endpoint) as peer:
        for number in range(5):
            assert peer.ask('echo', number) == [200, number]


def test_a_thread_that_leaves_the_message_to_the_base_class(start, wait_until, log_file):
    """In time, and too late."""
    gate = fork.Event()

    class Handler(EchoHandler):
        def __call__(self, frames):
            way, _data = decode(frames[-1])
            in_thread(self.handle, way, frames)

        def handle(self, way, frames):
            if way == 'thread':
                assert gate.wait(10)
            super().__call__(frames)

    with Peer(start('127.0.0.1', Handler, cls=Impatient).endpoint) as peer:
        assert peer.ask('echo', 1) == [200, 1]
        assert peer.ask('unknown')[0] == 404
        assert peer.ask('thread') == TIMEOUT
        gate.set()
        wait_until(lambda: peer.status()['unwanted'] == 1)
        assert same_thing(peer, 2)


def test_a_handler_that_is_no_subclass(start):
    class Bare:
        def __init__(self, process, stream, stop):
            self.stream = stream

        def __call__(self, frames):
            self.stream.send_multipart(frames)

    with Peer(start('127.0.0.1', Bare).endpoint) as peer:
        peer.send(b'a', b'', b'b')
        assert peer.receive() == [b'a', b'', b'b']


@pytest.mark.parametrize('outcome', ['return', 'raise', 'exit', 'reply'])
@pytest.mark.parametrize('method', ['plain', 'async'])
def test_a_copy_forked_by_a_handler_ends(start, method, outcome):
    class Handler(OwnHandler):
        def do_plain(self, outcome):
            pid = os.fork()
            if pid:
                self.do_echo(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            elif outcome == 'raise':
                raise ValueError
            elif outcome == 'exit':
                sys.exit(7)

        async def do_async(self, outcome):
            await asyncio.sleep(0)
            self.do_plain(outcome)

    process = start('127.0.0.1', Handler)
    with Peer(process.endpoint) as peer:
        expected = {'return': 0, 'raise': 1, 'exit': 7, 'reply': 0}[outcome]
        assert peer.ask(method, outcome) == [200, expected]
        assert same_thing(peer, 1)


# Processes that differ


def test_a_message_may_come_as_frames(start):
    """``on_recv(copy=False)``: 0MQ's own objects, for what is large."""

    class Delegate:
        def kinds(self, *frames):
            *others, data = frames
            return [200, [[type(frame).__name__, len(frame)] for frame in others], data]

    class WithFrames(Process):
        def init_stream(self):
            self.rep_stream.on_recv(self.handler(self, self.rep_stream, self.stop), copy=False)

    for socket_type, workers in ((zmq.REP, 0), (zmq.REP, 2), (zmq.ROUTER, 0)):
        cls = type('WithFrames', (WithFrames,), {'socket_type': socket_type})
        process = start('127.0.0.1', handler_of(Delegate()), cls=cls, workers=workers)
        router = socket_type == zmq.ROUTER
        with Peer(process.endpoint, [] if router else [b'way back', b'']) as peer:
            for _ in range(40):
                peer.send(b'', b'\x00\xff', message('kinds', 5))
            for _ in range(40):
                *leading, reply = peer.receive()
                assert leading == ([b'', b'\x00\xff'] if router else [])
                status, kinds, data = json.loads(reply)
                assert (status, kinds[-2:], data) == (200, [['Frame', 0], ['Frame', 2]], 5)


def test_own_hooks_of_a_process(start):
    """``setup``, ``init_stream`` and ``run`` overridden, with what cannot be pickled."""

    class Own(Process):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.lock = threading.Lock()
            self.seen = []

        def run(self):
            with self.lock:
                self.seen.append('run')
            ZMQProcess.run(self)

        def setup(self):
            self.seen.append(['setup', self.loop is None])
            super().setup()
            self.extra, self.port = self.stream(zmq.REP, '127.0.0.1', True, self.answer)

        def answer(self, frames):
            self.extra.send_json([200, 'extra'])

        def init_stream(self):
            self.seen.append('init_stream')
            handler = self.handler(self, self.rep_stream, self.stop)
            self.rep_stream.on_recv_stream(
                lambda stream, frames: handler(frames) if stream is self.rep_stream else None
            )

    class Delegate:
        def seen(self, data):
            return [200, self.process.seen, self.process.port]

    process = start('127.0.0.1', handler_of(Delegate()), cls=Own)
    with Peer(process.endpoint) as peer:
        status, seen, port = peer.ask('seen')
        assert (status, seen) == (200, ['run', ['setup', True], 'init_stream'])
        with Peer(f'tcp://127.0.0.1:{port}') as other:
            assert other.ask('anything') == [200, 'extra']


def test_run_of_ones_own(start, tmp_path):
    """As a subclass may have written it for 2.0.0, with nothing of ours but what the contract names."""

    class Own(Process):
        def run(self):
            self.setup()
            self.init_stream()
            self.loop.start()

    process = start(f'ipc://{tmp_path}/s', EchoHandler, cls=Own, wait=False)
    with Peer(f'ipc://{tmp_path}/s') as peer:
        # A reply that takes a while to leave does not die with the process.
        peer.send(message('echo', 20_000_000 * 'x'))
        peer.send(message('stop'))
        assert len(peer.reply()[1]) == 20_000_000
        assert peer.reply() == [200, 'stopping']
    process.join(10)
    assert process.exitcode == 0


# Delegates


def plain(*frames):
    return [200, 'function']


def decorated(method):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        return method(*args, **kwargs)

    return wrapper


class Callable:
    def __call__(self, data):
        return [200, data]


class AsyncCallable:
    async def __call__(self, data):
        return [200, data]


class Odd:
    length = staticmethod(len)  # builtins have no frames of their own to tell where they failed
    process = 'to be replaced'
    function = staticmethod(plain)
    partial = staticmethod(functools.partial(plain, 'more'))
    instance = Callable()
    async_instance = AsyncCallable()
    class_itself = list

    @staticmethod
    def static(data):
        return [200, data]

    @classmethod
    def class_method(cls, data):
        return [200, cls.__name__]

    @staticmethod
    async def async_static(data):
        return [200, data]

    @decorated
    def decorated(self, data):
        return [200, data]

    def default(self, data, more='more'):
        return [200, [data, more]]

    def nothing(self, data):
        pass

    async def nothing_async(self, data):
        pass

    def tuple(self, data):
        return 200, (data, ())

    def no_pair(self, data):
        return data

    def keys(self, data):
        return [200, {1: 'one', None: 'none', 1.5: 'half'}]

    def has_process(self, data):
        return [200, [self.process.rep_stream is not None, self.process.pid]]

    def refuse(self, data):
        raise ReplyError(409, {'reason': data})

    async def refuse_async(self, data):
        raise ReplyError(429)

    def refuse_oddly(self, data):
        raise ReplyError('status', data)


@pytest.mark.parametrize('workers', [0, 2])
def test_what_delegates_may_have_and_return(start, workers):
    process = start('127.0.0.1', handler_of(Odd()), workers=workers)
    table = {
        'function': [200, 'function'],
        'partial': [200, 'function'],
        'instance': [200, 'x'],
        'async_instance': [200, 'x'],
        'class_itself': ['x'],
        'static': [200, 'x'],
        'class_method': [200, 'Odd'],
        'async_static': [200, 'x'],
        'decorated': [200, 'x'],
        'default': [200, ['x', 'more']],
        'nothing': None,
        'nothing_async': None,
        'tuple': [200, ['x', []]],
        'no_pair': 'x',
        'keys': [200, {'1': 'one', 'null': 'none', '1.5': 'half'}],
        'has_process': [200, [True, process.pid]],
        'refuse': [409, {'reason': 'x'}],
        'refuse_async': [429, None],
        'refuse_oddly': ['status', 'x'],
    }
    with Peer(process.endpoint) as peer:
        assert {name: peer.ask(name, 'x') for name in table} == table
        assert peer.ask('length', 1) == [500, "TypeError: object of type 'int' has no len()"]


@pytest.mark.parametrize('workers', [0, 2])
def test_delegates_whose_attributes_are_made_when_asked_for(start, workers):
    class Dynamic:
        process = None

        def __getattr__(self, name):
            if name == 'no_such_thing':
                raise AttributeError(name)
            if name == 'no_such_key':
                raise KeyError(name)
            if name == 'number':
                return 5
            return lambda data: [200, [name, data]]

    process = start('127.0.0.1', handler_of(Dynamic()), workers=workers)
    with Peer(process.endpoint) as peer:
        assert peer.ask('anything', 1) == [200, ['anything', 1]]
        assert peer.ask('and more', 1) == [200, ['and more', 1]]
        assert peer.ask('no_such_thing')[0] == 404
        assert peer.ask('number')[0] == 404
        assert peer.ask('no_such_key') == [500, "KeyError: 'no_such_key'"]
        assert peer.ask('_private')[0] == 404
        assert peer.ask('__call__')[0] == 404
        assert peer.ask('_ping') == [200, 'pong']


def test_a_delegate_given_to_the_handler(start):
    """``handler=``, in place of an instance of the class attribute."""

    class Handler(ZMQMessageHandler):
        handler = None

    delegate = Odd()
    process = start('127.0.0.1', functools.partial(Handler, handler=delegate))
    with Peer(process.endpoint) as peer:
        assert peer.ask('static', 1) == [200, 1]
        assert peer.ask('has_process') == [200, [True, process.pid]]


@pytest.mark.parametrize(
    ('json_load', 'frames', 'expected'),
    [
        (0, ['JSON'], [200, ['data']]),
        (0, ['JSON', b'\x00\xff', b''], [200, ['data', '00ff', '']]),
        (1, [b'\x00\xff', 'JSON'], [200, ['00ff', 'data']]),
        (1, [b'\x00\xff', 'JSON', b'[1]'], [200, ['00ff', 'data', '5b315d']]),
        (-2, ['JSON', b'\x00\xff'], [200, ['data', '00ff']]),
        (-2, [b'', 'JSON', b'\x00\xff'], [200, ['', 'data', '00ff']]),
        (-1, [b'\x00\xff', 'JSON'], [200, ['00ff', 'data']]),
        (1, ['JSON'], 400),
        (-2, ['JSON'], 400),
        (5, ['JSON', b'', b'', b'', b''], 400),
        (0, [b'\x00\xff', 'JSON'], 400),
        (-1, ['JSON', b'\x00\xff'], 400),
    ],
)
@pytest.mark.parametrize('workers', [0, 2])
def test_the_frame_that_holds_the_json(start, json_load, frames, expected, workers):
    class Delegate:
        def collect(self, *frames):
            return [200, [frame.hex() if isinstance(frame, bytes) else frame for frame in frames]]

    handler = functools.partial(handler_of(Delegate()), json_load=json_load)
    process = start('127.0.0.1', handler, workers=workers)
    with Peer(process.endpoint) as peer:
        peer.send(*(message('collect', 'data') if frame == 'JSON' else frame for frame in frames))
        reply = peer.reply()
        assert (reply if isinstance(expected, list) else reply[0]) == expected
        peer.send(*[message('_ping')] * 6)
        assert peer.reply() == [200, 'pong']
