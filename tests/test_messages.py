"""Whatever a message holds and its method does, there is one reply, and the next client is served."""

import asyncio
import functools
import json
import math
import multiprocessing
import sys

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaos.messages import frames
from peers import Peer, handler_of, message
from pyams_zmq.exceptions import ReplyError
from pyams_zmq.socket import zmq_response, zmq_socket
from services import Process


class NoText(Exception):
    def __str__(self):
        raise ValueError('no text')


class NoTextAtAll(Exception):
    def __str__(self):
        raise SystemExit('no text')


class TextIsNoText(Exception):
    def __str__(self):
        return 5


class Unfinished(ReplyError):
    def __init__(self):
        """Does not set what a ReplyError has."""


class Unreadable(dict):
    def items(self):
        raise SystemExit('unreadable')

    __iter__ = keys = values = items


class BadAwaitable:
    def __await__(self):
        raise ValueError('bad awaitable')


class StrangeAwaitable:
    def __await__(self):
        yield 'strange'


def decorated(method):
    @functools.wraps(method)
    def wrapper(*args):
        return method(*args)

    return wrapper


class OddSignature:
    @property
    def __signature__(self):
        raise ValueError('odd')

    def __call__(self):
        return [200, None]


class UnreadableSignature(OddSignature):
    @property
    def __signature__(self):
        """As that of a method from Python 3.14 on, where an annotation names what is not there."""
        raise NameError('unreadable')


def circle():
    value = []
    value.append(value)
    return value


def nest(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def recurse():
    recurse()


def throw(error):
    raise error


async def later(value):
    await asyncio.sleep(0)
    return value


def used_up():
    coroutine = later(1)
    coroutine.close()
    return coroutine


async def async_generator():
    yield 1


#: What a method raises: name, what makes it raise, and how the text of the 500 begins.
EXCEPTIONS = {
    'ValueError': (lambda: throw(ValueError('a\nb')), 'ValueError: a\nb'),
    'TypeError': (lambda: throw(TypeError('my own')), 'TypeError: my own'),
    'no text': (lambda: throw(NoText()), 'NoText: '),
    'no text at all': (lambda: throw(NoTextAtAll()), 'NoTextAtAll: '),
    'text is no text': (lambda: throw(TextIsNoText()), 'TextIsNoText: '),
    'text of surrogates': (lambda: throw(ValueError('\ud800')), 'ValueError: \ud800'),
    'text of 1 MB': (lambda: throw(ValueError('x' * 1_000_000)), 'ValueError: xxx'),
    'SystemExit': (lambda: throw(SystemExit(3)), 'SystemExit: 3'),
    'KeyboardInterrupt': (lambda: throw(KeyboardInterrupt()), 'KeyboardInterrupt: '),
    'RecursionError': (recurse, 'RecursionError: '),
    'MemoryError': (lambda: throw(MemoryError()), 'MemoryError: '),
    'CancelledError': (lambda: throw(asyncio.CancelledError()), 'CancelledError: '),
    'GeneratorExit': (lambda: throw(GeneratorExit()), 'GeneratorExit: '),
    'StopAsyncIteration': (lambda: throw(StopAsyncIteration()), 'StopAsyncIteration: '),
    'BaseException': (lambda: throw(BaseException('base')), 'BaseException: base'),
    'body of a set': (lambda: throw(ReplyError(409, {1})), 'TypeError: '),
    'body of a circle': (lambda: throw(ReplyError(409, circle())), 'ValueError: '),
    'unreadable body': (lambda: throw(ReplyError(409, Unreadable(a=1))), ''),
    'unfinished ReplyError': (lambda: throw(Unfinished()), 'AttributeError: '),
}

#: What a method returns that is no reply.
UNFIT = {
    'set': (lambda: {1, 2}, 'TypeError: '),
    'bytes': (lambda: b'bytes', 'TypeError: '),
    'object': (object, 'TypeError: '),
    'circle': (circle, 'ValueError: '),
    'tuple as key': (lambda: {(1, 2): 3}, 'TypeError: '),
    'integer of 5,000 digits': (lambda: 10**5000, 'ValueError: '),
    'nested deeply': (lambda: nest(100_000), 'RecursionError: '),
    'generator': (lambda: iter([1]), 'TypeError: '),
    'async generator': (async_generator, 'TypeError: '),
    'unreadable dict': (lambda: Unreadable(a=1), 'SystemExit: unreadable'),
    'coroutine that raises': (lambda: later(1 / 0), 'ZeroDivisionError: '),
    'coroutine with a set': (lambda: later({1}), 'TypeError: '),
    'coroutine used up': (used_up, 'RuntimeError: '),
    'awaitable that raises': (BadAwaitable, 'ValueError: bad awaitable'),
    'awaitable not of asyncio': (StrangeAwaitable, 'RuntimeError: '),
}


class Hostile:
    """A delegate with all that a delegate can do wrong.

    Its methods take any number of frames: a ROUTER's or DEALER's message has more of them.
    """

    process = None
    attribute = 'not callable'
    nothing_to_call = None
    builtin = staticmethod(max)
    odd = OddSignature()
    unreadable = UnreadableSignature()

    def echo(self, *frames):
        return [200, frames[-1]]

    def none(self):
        return [200, 'never: there always is a frame']

    def many(self, a, b, c, d, e, f):
        return [200, 'never: there never are so many frames']

    async def many_async(self, a, b, c, d, e, f):
        return [200, 'never: there never are so many frames']

    def raises(self, *frames):
        EXCEPTIONS[frames[-1]][0]()

    async def raises_async(self, *frames):
        await asyncio.sleep(0)
        EXCEPTIONS[frames[-1]][0]()

    def returns(self, *frames):
        return UNFIT[frames[-1]][0]()

    def coroutine(self, *frames):
        return later([200, frames[-1]])

    @property
    def broken(self):
        raise ValueError('broken property')

    @property
    def leaving(self):
        raise SystemExit('leaving property')

    @property
    def missing(self):
        raise AttributeError('not there after all')

    @property
    def refusing(self):
        raise ReplyError(409, 'refusing property')

    @decorated
    def wrapped(self, a, b, c, d, e, f):
        return [200, 'never: there never are so many frames']

    @decorated
    def wrapped_that_fails(self, *frames):
        return frames[-1] + 'x'

    def _private(self, *frames):
        return [200, 'never: private']


NOT_UTF8 = 'The message is not UTF-8'
NOT_JSON = 'The message is not JSON'
NO_PAIR = 'A message is a pair'
NO_STRING = 'The type of a message is a string'
NO_TYPE = 'No such message type'
WRONG_FRAMES = 'Wrong number of frames'

#: Name, message, status of the reply, and its body: the beginning of a text, or the whole of anything else.
TABLE = [
    # No message at all
    ('bad UTF-8', b'["echo", "\xff"]', 400, NOT_UTF8),
    ('half a character', b'["echo", "\xe2\x82', 400, NOT_UTF8),
    ('surrogates in UTF-8', b'["echo", "\xed\xa0\x80"]', 400, NOT_UTF8),
    ('random bytes', bytes(range(255, -1, -1)), 400, NOT_UTF8),
    ('UTF-16', '["echo", 1]'.encode('utf-16'), 400, NOT_UTF8),
    ('UTF-16 without a mark', '["echo", 1]'.encode('utf-16-le'), 400, NOT_JSON),
    ('UTF-32 without a mark', '["echo", 1]'.encode('utf-32-be'), 400, NOT_JSON),
    ('UTF-8 with a mark', b'\xef\xbb\xbf["echo", 1]', 400, NOT_JSON),
    ('not JSON', b'echo', 400, NOT_JSON),
    ('empty frame', b'', 400, NOT_JSON),
    ('white space', b' \n ', 400, NOT_JSON),
    ('cut off', b'["echo", 1', 400, NOT_JSON),
    ('two messages', b'["echo", 1]["echo", 2]', 400, NOT_JSON),
    ('comma too many', b'["echo", 1,]', 400, NOT_JSON),
    ('single quotes', b"['echo', 1]", 400, NOT_JSON),
    ('zero byte', b'["echo", 1]\0', 400, NOT_JSON),
    ('line feed in a string', b'["ec\nho", 1]', 400, NOT_JSON),
    ('integer of 5,000 digits', b'["echo", ' + b'7' * 5000 + b']', 400, NOT_JSON),
    ('100,000 lists', b'[' * 100_000, 400, NOT_JSON),
    ('100,000 lists, closed', b'["echo", ' + b'[' * 100_000 + b']' * 100_001, 400, NOT_JSON),
    ('100,000 objects', b'["echo", ' + b'{"a":' * 100_000, 400, NOT_JSON),
    ('number', b'1', 400, NO_PAIR),
    ('string of two', b'"ab"', 400, NO_PAIR),
    ('null', b'null', 400, NO_PAIR),
    ('not a number', b'NaN', 400, NO_PAIR),
    ('object', b'{"echo": 1}', 400, NO_PAIR),
    ('object of two', b'{"echo": 1, "nothing": 2}', 400, NO_PAIR),
    ('empty list', b'[]', 400, NO_PAIR),
    ('list of 1', b'["echo"]', 400, NO_PAIR),
    ('list of 3', b'["echo", 1, 2]', 400, NO_PAIR),
    ('type is a number', b'[1, 2]', 400, NO_STRING),
    ('type is null', b'[null, 2]', 400, NO_STRING),
    ('type is a bool', b'[true, 2]', 400, NO_STRING),
    ('type is a list', b'[["echo"], 2]', 400, NO_STRING),
    ('type is an object', b'[{"echo": 1}, 2]', 400, NO_STRING),
    # No such type
    ('unknown type', message('unknown'), 404, NO_TYPE),
    ('empty type', message(''), 404, NO_TYPE),
    ('type with spaces', message(' echo'), 404, NO_TYPE),
    ('type with a dot', message('echo.__func__'), 404, NO_TYPE),
    ('type with a zero byte', message('echo\0'), 404, NO_TYPE),
    ('type of surrogates', message('\ud800'), 404, NO_TYPE),
    ('type of 1 MB', message('x' * 1_000_000), 404, NO_TYPE),
    ('private method', message('_private'), 404, NO_TYPE),
    ('class', message('__class__'), 404, NO_TYPE),
    ('constructor', message('__init__'), 404, NO_TYPE),
    ('attribute setter', message('__setattr__'), 404, NO_TYPE),
    ('no command', message('_unknown'), 404, NO_TYPE),
    ('no command either', message('_ping '), 404, NO_TYPE),
    ('attribute', message('attribute'), 404, NO_TYPE),
    ('attribute that is None', message('nothing_to_call'), 404, NO_TYPE),
    ('the process', message('process'), 404, NO_TYPE),
    ('property without a value', message('missing'), 404, NO_TYPE),
    # Frames that do not fit the method
    ('too many frames', message('none'), 400, WRONG_FRAMES),
    ('too few frames', message('many'), 400, WRONG_FRAMES),
    ('too few frames, async', message('many_async'), 400, WRONG_FRAMES),
    ('too few frames, decorated', message('wrapped'), 400, WRONG_FRAMES),
    ('TypeError in a decorated method', message('wrapped_that_fails', 1), 500, 'TypeError: unsupported'),
    ('property that refuses', message('refusing'), 409, 'refusing property'),
    ('signature that raises', message('odd'), 500, 'TypeError: '),
    ('signature that cannot be read', message('unreadable'), 500, 'TypeError: '),
    # Methods that fail
    ('property that raises', message('broken'), 500, 'ValueError: broken property'),
    ('property that exits', message('leaving'), 500, 'SystemExit: leaving property'),
    ('builtin that raises', message('builtin', 1), 500, 'TypeError: '),
    *(
        (f'{method} {name}', message(method, name), 500, text)
        for name, (_, text) in EXCEPTIONS.items()
        for method in ('raises', 'raises_async')
    ),
    *((f'returns {name}', message('returns', name), 500, text) for name, (_, text) in UNFIT.items()),
    # Odd, but in order
    ('plain method with a coroutine', message('coroutine', 5), 200, 5),
    ('white space around', b' [ "echo" ,\n\t1 ]\r\n', 200, 1),
    ('escapes in the type', b'["\\u0065cho", 1]', 200, 1),
    ('lone surrogate', b'["echo", "\\ud800"]', 200, '\ud800'),
    ('zero character', b'["echo", "\\u0000"]', 200, '\0'),
    ('Infinity', b'["echo", Infinity]', 200, float('inf')),
    ('-Infinity', b'["echo", -Infinity]', 200, float('-inf')),
    ('float too large', b'["echo", 1e999]', 200, float('inf')),
    ('integer of 4,000 digits', b'["echo", ' + b'7' * 4000 + b']', 200, int('7' * 4000)),
    ('duplicate keys', b'["echo", {"a": 1, "a": 2}]', 200, {'a': 2}),
    ('string of 1 MB', message('echo', 'é' * 1_000_000), 200, 'é' * 1_000_000),
    ('pair in a pair', message('echo', [500, 'x']), 200, [500, 'x']),
    ('no data', message('echo', None), 200, None),
    ('ping with data', message('_ping', {'a': [1]}), 200, 'pong'),
]

SERVICES = {
    f'{name}, {workers} workers': (socket_type, workers)
    for name, socket_type in (('REP', zmq.REP), ('ROUTER', zmq.ROUTER), ('DEALER', zmq.DEALER))
    for workers in (0, 2)
}


@pytest.fixture(autouse=True)
def _no_process_left():
    """Replaces the check that each test leaves nothing running: here services outlive their tests."""


@pytest.fixture(scope='module')
def services():
    """Services that run, by name; a test that fails takes its own away."""
    running = {}
    yield running
    for process in running.values():
        process.stop()
    for process in running.values():
        process.join(10)
        assert process.exitcode == 0


@pytest.fixture(params=SERVICES)
def service(request, services):
    """A service of each type with a :class:`Hostile` delegate, which other tests have asked already."""
    name = request.param
    socket_type, workers = SERVICES[name]
    if name not in services:
        cls = type('Service', (Process,), {'socket_type': socket_type})
        process = services[name] = cls('127.0.0.1', handler_of(Hostile()), workers=workers)
        process.start()
    process = services.pop(name)
    try:
        process.envelope = [b''] if socket_type == zmq.REP else []
        process.endpoint = process.wait_ready()
        yield process
        with Peer(process.endpoint, process.envelope) as honest:
            assert honest.ask('echo', 'served') == [200, 'served']
            status = honest.status()
        assert status['received'] == status['replied'] + 1  # this very message
        assert (status['in_flight'], status['unwanted'], status['dropped']) == (0, 0, 0)
    except BaseException:
        process.kill()
        process.join(10)
        raise
    services[name] = process


@pytest.fixture
def peer(service):
    with Peer(service.endpoint, service.envelope) as peer:
        yield peer


@pytest.mark.parametrize(('frame', 'status', 'body'), [pytest.param(*row, id=name) for name, *row in TABLE])
def test_each_message_gets_one_reply(peer, frame, status, body):
    peer.send(frame)
    (reply,) = peer.receive()
    answer = json.loads(reply)
    assert answer[0] == status
    if isinstance(body, str) and status != 200:
        assert answer[1].startswith(body)
        assert 'Traceback' not in answer[1]
        assert 'File "' not in answer[1]
    else:
        assert answer == [status, body]
    peer.assert_nothing_comes()


@pytest.mark.parametrize('method', ['echo', 'coroutine'])
def test_not_a_number_travels_both_ways(peer, method):
    peer.send(b'["%s", [NaN, Infinity, -Infinity]]' % method.encode())
    assert peer.receive() == [b'[200, [NaN, Infinity, -Infinity]]']
    status, (number, *_) = peer.ask(method, [math.nan])
    assert status == 200
    assert math.isnan(number)


@pytest.mark.parametrize('depth', [200, 450, 900, *range(950, 1010, 3), 1500, 5000, 20_000])
def test_depth_about_what_python_takes(peer, depth):
    """Where reading stops working, writing may stop earlier or later: some status comes, and only once."""
    peer.send(b'["echo", ' + b'[' * depth + b']' * depth + b']')
    assert peer.reply()[0] in ({200} if depth == 200 else {200, 400, 500})
    peer.assert_nothing_comes()


@pytest.mark.parametrize('digits', [4299, 4300, 4301])
def test_integers_about_what_python_takes(peer, digits):
    peer.send(b'["echo", ' + b'7' * digits + b']')
    limit = sys.get_int_max_str_digits()
    assert peer.reply()[0] == (200 if digits <= limit else 400)
    peer.assert_nothing_comes()


# The builtin replies whatever it is given, which is anything.
NAMES = [name for name in dir(Hostile) if not name.startswith('__') and name != 'builtin']


@settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(others=st.lists(st.binary(max_size=20), max_size=3), frame=frames(NAMES))
def test_any_frames_get_one_reply(service, peer, others, frame):
    peer.send(*others, frame)
    *leading, reply = peer.receive()
    assert leading == ([] if service.socket_type == zmq.REP else others)
    status, body = json.loads(reply)
    assert status in {200, 400, 404, 409, 500}
    assert status == 200 or 'Traceback' not in body
    peer.assert_nothing_comes()


def test_the_frames_before_the_json_come_back(service):
    """Where the service is a ROUTER or DEALER; behind a REP they are the method's alone."""
    with Peer(service.endpoint, service.envelope) as peer:
        leading = [bytes([n]) * n for n in range(100)]
        peer.send(*leading, message('echo', 'many'))
        reply = b'[200, "many"]'
        assert peer.receive() == ([reply] if service.socket_type == zmq.REP else [*leading, reply])
        peer.assert_nothing_comes()


@pytest.mark.parametrize('socket_type', [zmq.REP, zmq.ROUTER])
def test_a_plain_old_client_is_served(start, socket_type):
    """A REQ, as the views of 2.0.0's users have it; 0MQ lets it talk to no DEALER."""
    process = start(
        '127.0.0.1', handler_of(Hostile()), cls=type('S', (Process,), {'socket_type': socket_type})
    )
    socket = zmq_socket(process.endpoint)
    for _ in range(3):
        socket.send_json(['echo', 'old'])
        assert zmq_response(socket) == [200, 'old']
    socket.close()


@pytest.fixture
def rep(services):
    """A service behind a REP that none of the tests above has talked to."""
    process = Process('127.0.0.1', handler_of(Hostile()))
    process.start()
    process.endpoint = process.wait_ready()
    yield process
    process.stop()
    process.join(10)
    assert process.exitcode == 0


@pytest.mark.parametrize(
    'frames',
    [
        pytest.param([b'garbage'], id='one frame'),
        pytest.param([b''], id='delimiter only'),
        pytest.param([message('echo', 1)], id='a message'),
        pytest.param([b'address', message('echo', 1)], id='two frames'),
        pytest.param([message('echo', 1), b''], id='delimiter last'),
        pytest.param([b'x'] * 100, id='100 frames'),
    ],
)
def test_what_has_no_delimiter_is_dropped_and_counted(rep, frames):
    with Peer(rep.endpoint) as peer:
        for _ in range(20):
            peer.send_raw(*frames)
        peer.assert_nothing_comes()
        assert peer.status()['dropped'] == 20
        assert peer.status()['received'] == 3


def test_a_probing_router_is_dropped(rep):
    """It announces itself by an empty message."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.probe_router = True
    socket.linger = 1000
    socket.connect(rep.endpoint)
    # A ROUTER can only write to whom it knows: so wait for what tells that the connection stands.
    socket.router_mandatory = True
    with Peer(rep.endpoint) as peer:
        while not peer.status()['dropped']:
            pass
        peer.assert_nothing_comes()
    socket.close()
    context.term()


@pytest.mark.parametrize(
    'envelope',
    [
        pytest.param([b'', b''], id='second delimiter is part of the message'),
        pytest.param([b'a', b'b', b'c', b''], id='nested'),
        pytest.param([b'\x00', b'\xff' * 300, b''], id='binary'),
        pytest.param([b'x'] * 99 + [b''], id='100 frames'),
    ],
)
def test_the_envelope_comes_back(rep, envelope):
    depth = envelope.index(b'') + 1
    with Peer(rep.endpoint, envelope[:depth]) as peer:
        for number in range(3):
            peer.send(*envelope[depth:], message('echo', number))
            assert peer.reply() == [200, number]
        peer.assert_nothing_comes()


class Gated(Hostile):
    """Waits in a method until it is let on."""

    def __init__(self):
        self.entered = multiprocessing.Event()
        self.gate = multiprocessing.Event()

    def wait(self, *frames):
        self.entered.set()
        assert self.gate.wait(20)
        return [200, 'waited']


@pytest.mark.parametrize('socket_type', [zmq.REP, zmq.ROUTER])
@pytest.mark.parametrize('workers', [0, 2])
def test_a_client_that_leaves_before_its_reply(start, wait_until, socket_type, workers):
    gated = Gated()
    cls = type('Service', (Process,), {'socket_type': socket_type})
    process = start('127.0.0.1', handler_of(gated), cls=cls, workers=workers)
    envelope = [b''] if socket_type == zmq.REP else []
    with Peer(process.endpoint, envelope) as leaving:
        leaving.send(message('wait'))
        leaving.send(message('wait'))
        assert gated.entered.wait(10)
    gated.gate.set()
    with Peer(process.endpoint, envelope) as honest:
        assert honest.ask('echo', 1) == [200, 1]
        wait_until(lambda: honest.status()['in_flight'] == 0)
        honest.assert_nothing_comes()


@pytest.mark.parametrize('method', ['echo', 'coroutine'])
def test_pipelined_messages_get_their_own_replies(service, method):
    """1,000 at once, many more than are taken per wake-up; in order where nothing runs beside the loop."""
    with Peer(service.endpoint, []) as peer:
        for number in range(1000):
            peer.send(b'%d' % number, *service.envelope, message(method, number))
        answers = [peer.receive() for _ in range(1000)]
    numbers = [int(address) for address, *_ in answers]
    assert [json.loads(frame) for *_, frame in answers] == [[200, number] for number in numbers]
    assert sorted(numbers) == list(range(1000))
    if service.workers == 0 and method == 'echo':
        assert numbers == list(range(1000))
