"""``stream()``: every form of address, every type of socket; services that are no REP."""

import socket as sockets
from unittest.mock import ANY

import pytest
import zmq
from tornado.ioloop import PeriodicCallback

from peers import Peer, message
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from services import Echo, EchoHandler, Process


def service(socket_type):
    return type('Service', (Process,), {'socket_type': socket_type})


def free_port():
    with sockets.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Opening(Echo):
    """Makes sockets in the running process, and tells what came of it."""

    def open(self, data):
        address, bind = data
        stream, port = self.process.stream(zmq.PULL, address, bind)
        endpoint = stream.socket.get_string(zmq.LAST_ENDPOINT)
        stream.close()
        return [200, [endpoint, port]]


OPENING = type('Handler', (ZMQMessageHandler,), {'handler': Opening})


def test_addresses_to_bind(start, call, tmp_path):
    process = start(handler=OPENING)
    for form, host in [
        ('127.0.0.1:{}', '127.0.0.1'),
        (['127.0.0.1', '{}'], '127.0.0.1'),
        ('tcp://127.0.0.1:{}', '127.0.0.1'),
        ('*:{}', '0.0.0.0'),
        ('lo:{}', '127.0.0.1'),
        ('localhost:{}', '127.0.0.1'),
        ('[::1]:{}', '[::1]'),
        (['::1', '{}'], '[::1]'),
    ]:
        port = free_port()
        address = form.format(port) if isinstance(form, str) else [form[0], port]
        assert call(process, 'open', [address, True]) == (200, [f'tcp://{host}:{port}', port])
    for address in (
        '127.0.0.1',
        ['127.0.0.1'],
        ['127.0.0.1', None],
        '127.0.0.1:0',
        '127.0.0.1:*',
        '*',
        '::1',
        '[::1]',
    ):
        endpoint, port = call(process, 'open', [address, True]).body
        assert endpoint.endswith(f':{port}')
        assert port > 0
    assert call(process, 'open', [f'ipc://{tmp_path}/s', True]) == (200, [f'ipc://{tmp_path}/s', None])
    assert call(process, 'open', ['inproc://inside', True]) == (200, ['inproc://inside', None])
    for address in '192.0.2.1:1', 'no.such.interface', f'127.0.0.1:{process.endpoint.rpartition(":")[2]}':
        assert call(process, 'open', [address, True]).body.startswith('AddressError: ')


def test_addresses_to_connect(start, call):
    process = start(handler=OPENING)
    assert call(process, 'open', ['127.0.0.1:9', False]) == (200, ['tcp://127.0.0.1:9', 9])
    assert call(process, 'open', ['localhost:9', False]).body[1] == 9
    assert call(process, 'open', [['::1', 9], False]) == (200, ['tcp://[::1]:9', 9])
    assert (
        call(process, 'open', ['127.0.0.1', False]).body
        == "ValueError: 'tcp://127.0.0.1:*' has no port to connect to"
    )


def test_a_stream_needs_a_running_process():
    with pytest.raises(RuntimeError, match='setup'):
        ZMQProcess('127.0.0.1', EchoHandler).stream(zmq.PUB, '127.0.0.1', True)


@pytest.mark.parametrize(('socket_type', 'peer_type'), [(zmq.PULL, zmq.PUSH), (zmq.SUB, zmq.PUB)])
def test_a_service_that_does_not_reply(start, wait_until, tmp_path, socket_type, peer_type):
    class Delegate:
        async def touch_later(self, path):
            return self.touch(path)

        def touch(self, path):
            (tmp_path / path).touch()
            return [200, 'nobody reads this']

    handler = type('Handler', (ZMQMessageHandler,), {'handler': Delegate})
    process = start('127.0.0.1', handler, cls=service(socket_type), workers=1)
    context = zmq.Context()
    socket = context.socket(peer_type)
    socket.linger = 0
    socket.connect(process.endpoint)
    for frames in [b'\xff'], [b''], [b'no json'], [b'["fail", 1]'], [b'[]', b'x'], [b'["_ping", 1]']:
        socket.send_multipart(frames)
    for name in 'touch', 'touch_later':

        def touched(name=name):
            socket.send(message(name, name))  # again: a SUB may not have been there yet
            return (tmp_path / name).exists()

        wait_until(touched)
    assert process.is_alive()
    socket.close()
    context.term()


def test_a_subscriber_hears_its_topic(start, call, wait_until):
    class Subscriber(Process):
        heard = ()

        def setup(self):
            super().setup()
            _, self.port = self.stream(zmq.SUB, '127.0.0.1', True, self.hear, subscribe=b'news')

        async def hear(self, frames):
            self.heard = [*self.heard, frames[0].decode()]

    class Delegate(Echo):
        def heard(self, data):
            return [200, [self.process.port, self.process.heard]]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), cls=Subscriber)
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.connect(f'tcp://127.0.0.1:{call(process, "heard").body[0]}')

    def heard():
        socket.send(b'weather')
        socket.send(b'news of today')
        return call(process, 'heard').body[1]

    assert set(wait_until(heard)) == {'news of today'}
    socket.close(0)
    context.term()


def test_a_publisher_has_its_turn_under_load(start):
    """A timer publishes, while a client keeps the service busy."""

    class Publisher(Process):
        socket_type = zmq.REP

        def setup(self):
            super().setup()
            news, self.port = self.stream(zmq.PUB, '127.0.0.1', True)
            self.timer = PeriodicCallback(lambda: news.send_string('tick'), 10)
            self.timer.start()

    class Delegate(Echo):
        def port(self, data):
            return [200, self.process.port]

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), cls=Publisher)
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.subscribe(b'')
    with Peer(process.endpoint) as peer:
        peer.send(message('port'))
        socket.connect(f'tcp://127.0.0.1:{peer.reply()[1]}')
        sent = ticks = 0
        while ticks < 5:
            assert sent < 1_000_000
            for _ in range(100):
                peer.send(message('echo', sent))
            sent += 100
            while socket.poll(0):
                ticks += socket.recv() == b'tick'
            while peer.socket.poll(0):
                peer.receive()
    socket.close(0)
    context.term()


@pytest.mark.parametrize(
    ('socket_type', 'envelope'),
    [(zmq.ROUTER, [b'']), (zmq.ROUTER, []), (zmq.DEALER, [b'']), (zmq.DEALER, [])],
)
def test_a_raw_service_whose_handler_raises(start, socket_type, envelope):
    class Handler(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            if b'_ping' in frames[-1]:
                return super().__call__(frames)
            raise ValueError('x')

    process = start('127.0.0.1', Handler, cls=service(socket_type))
    with Peer(process.endpoint, envelope) as peer:
        peer.send(message('echo', 1))
        assert peer.reply() == [500, 'ValueError: x']
        peer.assert_nothing_comes()


@pytest.mark.parametrize('socket_type', [zmq.ROUTER, zmq.DEALER])
def test_a_raw_service_whose_handler_replies_by_itself_and_then_raises(start, socket_type):
    class Handler(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            if b'_ping' in frames[-1]:
                return super().__call__(frames)
            self.rep_stream.send_multipart([*frames[:-1], b'[200, "mine"]'])
            raise ValueError('x')

    process = start('127.0.0.1', Handler, cls=service(socket_type))
    with Peer(process.endpoint) as peer:
        peer.send(message('echo', 1))
        assert peer.reply() == [200, 'mine']
        peer.assert_nothing_comes()


@pytest.mark.parametrize('index', [0, 5])
def test_a_raw_service_whose_json_is_elsewhere(start, index):
    """Without a way back in front of it, the reply takes the one that the message came on."""

    class Handler(ZMQMessageHandler):
        handler = Echo

        def __init__(self, process, stream, stop):
            super().__init__(process, stream, stop, json_load=index)

    process = start('127.0.0.1', Handler, cls=service(zmq.ROUTER))
    with Peer(process.endpoint) as peer:
        peer.send(message('echo', 1))
        assert peer.reply()[0] == 400


def test_a_pair_is_served(start):
    process = start(cls=service(zmq.PAIR))
    with Peer(process.endpoint, [], zmq.PAIR) as peer:
        peer.send(message('echo', 1))
        assert peer.reply() == [200, 1]


def test_a_dealer_whose_peer_has_left(start, call, wait_until, log_file):
    """There is nobody to take the reply: it is dropped, and the service goes on."""

    class Waiting(Process):
        socket_type = zmq.PAIR

    class Delegate(Echo):
        async def later(self, path):
            import asyncio
            import pathlib

            pathlib.Path(path).touch()
            while self.process.rep_stream.socket.get(zmq.EVENTS) & zmq.POLLOUT:  # until it has noticed
                await asyncio.sleep(0.005)
            return [200, 'late']

    process = start('127.0.0.1', type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), cls=Waiting)
    begun = log_file.parent / 'begun'
    with Peer(process.endpoint, [], zmq.PAIR) as peer:
        peer.send(message('later', str(begun)))
        wait_until(begun.exists)
    wait_until(lambda: 'does not read' in log_file.read_text())
    with Peer(process.endpoint, [], zmq.PAIR) as peer:
        peer.send(message('echo', 2))
        assert peer.reply() == [200, 2]


def test_a_second_service_and_one_that_is_closed(start, call):
    class Two(Process):
        def setup(self):
            super().setup()
            self.second, self.port = self.stream(zmq.REP, '127.0.0.1', True)
            self.second.on_recv(EchoHandler(self, self.second, self.stop))

    class Delegate(Echo):
        def port(self, data):
            return [200, self.process.port]

        def close(self, data):
            self.process.second.close()
            return [200, 'closed']

        def pass_on(self, data):
            """Calls the handler of the second service for a message of the first."""
            EchoHandler(self.process, self.process.second, None)([message('echo', 1)])
            return [200, 'passed on']

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), cls=Two)
    client = ZMQClient(('127.0.0.1', call(process, 'port').body))
    assert client.call('echo', 1) == (200, 1)
    assert call(process, 'pass_on') == (200, 'passed on')
    assert client.call('echo', 2) == (200, 2)
    assert call(process, 'close') == (200, 'closed')
    assert call(process, 'echo', 3) == (200, 3)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('socket_type', [zmq.REP, zmq.PUB])
def test_a_stream_that_a_method_makes(start, workers, socket_type):
    """In the thread of a worker, too: the stream belongs to the loop all the same."""

    class Delegate(Echo):
        def open(self, data):
            self.second, port = self.process.stream(socket_type, '127.0.0.1', True)
            if socket_type != zmq.PUB:
                self.second.on_recv(EchoHandler(self.process, self.second, None))
            return [200, port]

        def publish(self, data):
            for send in (self.second.send_json,) * 3:
                self.process.loop.add_callback(send, data)

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}), workers=workers)
    with Peer(process.endpoint) as peer:
        endpoint = f'tcp://127.0.0.1:{peer.ask("open")[1]}'
        if socket_type == zmq.PUB:
            with zmq.Context() as context, context.socket(zmq.SUB) as news:
                news.subscribe('')
                news.connect(endpoint)
                while not news.poll(50):
                    peer.ask('publish', 'news')
                assert news.recv_json() == 'news'
        else:
            with Peer(endpoint) as other:
                for number in range(3):
                    assert other.ask('thread', number) == [200, 'MainThread' if not workers else ANY]
                    assert other.ask('later', 0) == [200, 0]
                for _ in range(100):
                    other.send(message('_ping'))
                assert [other.reply() for _ in range(100)] == [[200, 'pong']] * 100
            assert [peer.ask('echo', number) for number in range(3)] == [[200, number] for number in range(3)]


def test_a_service_that_closes_its_own_socket(start, wait_until):
    """The reply that is due then goes nowhere; the process still ends when it is asked to."""

    class Delegate(Echo):
        def close(self, data):
            self.process.rep_stream.close()
            self.process.loop.call_later(0.05, self.process.stop)

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}))
    with Peer(process.endpoint) as peer:
        peer.socket.linger = 0
        peer.send(message('close'))
        peer.send(message('echo', 1))
        process.join(10)
        assert process.exitcode == 0


def test_a_service_closed_while_messages_wait(start):
    class Delegate(Echo):
        def close(self, seconds):
            self.process.loop.add_callback(self.process.rep_stream.close)
            self.process.loop.add_callback(self.process.stop)
            return self.slow(seconds)

    process = start(handler=type('Handler', (ZMQMessageHandler,), {'handler': Delegate}))
    with Peer(process.endpoint) as peer:
        peer.socket.linger = 0
        peer.send(message('close', 0.3))
        for _ in range(100):
            peer.send(message('echo', 1))
        process.join(10)
        assert process.exitcode == 0
