"""What a process takes, and what those get who go beyond it."""

import os
import resource
import socket as sockets
from contextlib import suppress

import psutil
import pytest
import zmq

from chaos import zmtp
from peers import Peer, message
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.limits import MAX_MESSAGE_SIZE, Limits, raise_descriptor_limit
from pyams_zmq.process import ZMQProcess
from pyams_zmq.settings import OPTIONS
from services import Process


def limited(**limits):
    return type('Limited', (Process,), limits)


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('max_message_size', [0, -1, True, 1.5, '2', 2**63]),
        ('max_frames', [0, -1, True, 1.5, '2', None]),
        ('high_water_mark', [0, -1, True, 1.5, '2', None, 2**31]),
        ('backlog', [0, -1, True, 1.5, '2', None, 2**31]),
        ('handshake_timeout', [0, -1, float('nan'), float('inf'), '60', True]),
        ('heartbeat_interval', [0, -1, float('nan'), float('inf'), '60', True]),
        ('no_such_option', [1]),
        ('start', [1]),
        ('name', ['other']),
        ('_owner', [1]),
        ('handler', [Limits]),
    ],
)
def test_options_that_make_no_sense(name, values):
    process = ZMQProcess('127.0.0.1', ZMQMessageHandler)
    before = dict(vars(process))
    for value in values:
        with pytest.raises(ValueError, match=name):
            process.configure(max_in_flight=3, **{name: value})
        assert vars(process) == before


def test_options_are_set():
    process = ZMQProcess('127.0.0.1', ZMQMessageHandler)
    process.configure(max_frames=3, max_message_size=None, heartbeat_interval=None)
    assert (process.max_frames, process.max_message_size, process.heartbeat_interval) == (3, None, None)
    assert ZMQProcess.max_frames == 256


def test_the_table_of_settings_tells_the_defaults():
    for name, value in vars(Limits).items():
        if name in OPTIONS and name != 'workers':  # which declared processes have one of
            assert float(OPTIONS[name].default) == value, name


def test_too_many_frames(start):
    process = start(cls=limited(max_frames=4))
    with Peer(process.endpoint) as peer:
        for count in 3, 1000, 4:
            peer.send(*(b'x' for _ in range(count - 1)), message('echo', 'too many'))
            # The client's identity and the delimiter count, too.
            error = 'The message has too many frames: 4 are taken at most (max_frames)'
            assert peer.reply() == [413, error]
        assert peer.ask('echo', 'honest') == [200, 'honest']


def test_too_many_frames_for_a_socket_that_does_not_reply(start, tmp_path, wait_until):
    class Handler(ZMQMessageHandler):
        def __call__(self, frames):
            with (tmp_path / 'seen').open('ab', buffering=0) as seen:
                seen.write(b'%d' % len(frames))

        handler = Limits

    process = start(handler=Handler, cls=limited(max_frames=2, socket_type=zmq.PULL))
    with Peer(process.endpoint, envelope=(), socket_type=zmq.PUSH) as peer:
        for count in 2, 3, 1:
            peer.send(*(b'x' for _ in range(count)))
        wait_until(lambda: (tmp_path / 'seen').exists() and (tmp_path / 'seen').read_text() == '21')


def test_a_frame_too_large_costs_its_sender_the_connection(start, call):
    process = start(cls=limited(max_message_size=1000))
    with ZMQClient(process.endpoint, max_message_size=None) as bold:
        reply = bold.call('echo', 1000 * 'x')
        assert (reply.status, reply.delivered) == (504, False)
        assert bold.call('echo', 900 * 'x') == (200, 900 * 'x')
    assert call(process, 'echo', 'honest') == (200, 'honest')


def test_a_client_does_not_send_what_is_too_large(start):
    process = start()
    with ZMQClient(process.endpoint, max_message_size=100) as client:
        reply = client.call('echo', 100 * 'x')
        assert (reply.status, reply.delivered) == (413, False)
        assert reply.body == 'The message has 112 bytes; 100 are taken at most (max_message_size)'
        assert client.call('echo', 88 * 'x').ok
        assert client.call('_status').body['received'] == 2
    assert ZMQClient('127.0.0.1:9').max_message_size == MAX_MESSAGE_SIZE


def read_to_the_end(peer):
    peer.settimeout(30)
    with suppress(ConnectionError):
        while peer.recv(4096):
            pass


@pytest.mark.parametrize(
    'introduction', [b'', zmtp.GREETING[:10], zmtp.GREETING + zmtp.READY], ids=['mute', 'half', 'silent']
)
def test_peers_that_give_no_sign_of_life_are_disconnected(start, call, introduction):
    process = start(cls=limited(handshake_timeout=0.2, heartbeat_interval=0.05))
    host, port = process.endpoint.removeprefix('tcp://').split(':')
    with sockets.create_connection((host, int(port))) as peer:
        peer.sendall(introduction)
        read_to_the_end(peer)
    assert call(process, 'echo', 'honest') == (200, 'honest')


def test_a_peer_that_is_busy_with_a_large_frame_stays_connected(start):
    """It cannot answer heartbeats meanwhile: its answers would come behind the frame."""
    process = start(cls=limited(heartbeat_interval=0.3))
    process.auth = None
    frame = message('echo', 1000 * 'x')
    with zmtp.shake_hands(process) as peer:
        peer.sendall(zmtp.header(0, more=True) + zmtp.header(len(frame)) + frame[:500])

        def read_until(text, times=1):
            heard = b''
            while heard.count(text) < times:
                part = peer.recv(4096)
                assert part, 'hung up'
                heard += part

        # As many intervals go by, but for one, in which no message is complete.
        read_until(b'\4PING', times=4)
        peer.sendall(frame[500:])
        read_until(b'[200, "xxx')


def test_idle_clients_stay_connected(start, wait_until):
    """They answer 0MQ's heartbeats by themselves."""
    process = start(cls=limited(heartbeat_interval=0.05))
    with ZMQClient(process.endpoint) as client:
        assert client.call('echo', 1).ok
        (before,) = [one for one in psutil.Process().net_connections() if one.status == 'ESTABLISHED']
        sent = psutil.net_io_counters(pernic=True)['lo'].packets_sent
        wait_until(lambda: psutil.net_io_counters(pernic=True)['lo'].packets_sent > sent + 40)
        assert before in psutil.Process().net_connections()


def test_the_process_may_have_many_descriptors(start, call):
    class Delegate:
        process = None

        def limit(self, data):
            return [200, resource.getrlimit(resource.RLIMIT_NOFILE)]

    handler = type('Handler', (ZMQMessageHandler,), {'handler': Delegate})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        process = start(handler=handler)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    assert call(process, 'limit').body == [wanted, hard]


@pytest.mark.parametrize(
    ('limits', 'raised'),
    [
        ((256, 512), [(512, 512)]),
        ((256, resource.RLIM_INFINITY), [(65536, resource.RLIM_INFINITY)]),
        ((65536, 100_000), []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), []),
    ],
)
def test_the_limit_of_descriptors_is_never_lowered(limits, raised, monkeypatch):
    calls = []
    monkeypatch.setattr(resource, 'getrlimit', lambda _which: limits)
    monkeypatch.setattr(resource, 'setrlimit', lambda _which, wanted: calls.append(wanted))
    raise_descriptor_limit()
    assert calls == raised


@pytest.mark.parametrize('refused_above', [256, 10_240, 20_000])
@pytest.mark.parametrize('error', [ValueError, OSError])
def test_a_system_that_refuses_descriptors(refused_above, error, monkeypatch):
    """As macOS does above kern.maxfilesperproc, whatever the hard limit, and seccomp may do in any case."""
    hard = resource.RLIM_INFINITY
    limits = [(256, hard)]

    def setrlimit(_which, wanted):
        if wanted[0] > refused_above:
            raise error('current limit exceeds maximum limit')
        limits.append(wanted)

    monkeypatch.setattr(resource, 'getrlimit', lambda _which: limits[-1])
    monkeypatch.setattr(resource, 'setrlimit', setrlimit)
    raise_descriptor_limit()
    assert limits[-1] == (min(refused_above, 10_240), hard)


def test_fewer_descriptors_are_not_asked_for(monkeypatch):
    asked = []

    def setrlimit(_which, wanted):
        asked.append(wanted[0])
        raise ValueError

    monkeypatch.setattr(resource, 'getrlimit', lambda _which: (20_000, 50_000))
    monkeypatch.setattr(resource, 'setrlimit', setrlimit)
    raise_descriptor_limit()
    assert asked == [50_000]


def test_what_0mq_keeps_is_set(start, call):
    class Delegate:
        process = None

        def options(self, data):
            socket = self.process.rep_stream.socket
            names = 'RCVHWM', 'SNDHWM', 'BACKLOG', 'MAXMSGSIZE', 'HANDSHAKE_IVL', *beats
            return [os.getpid(), *(socket.getsockopt(getattr(zmq, name)) for name in names)]

    beats = 'HEARTBEAT_IVL', 'HEARTBEAT_TIMEOUT'

    handler = type('Handler', (ZMQMessageHandler,), {'handler': Delegate})
    process = start(handler=handler)
    expected = [1000, 1000, 1024, MAX_MESSAGE_SIZE, 5_000, 30_000, 300_000]
    assert call(process, 'options').body == [process.pid, *expected]
    nothing = dict.fromkeys(('max_message_size', 'handshake_timeout', 'heartbeat_interval'))
    process = start(handler=handler, cls=limited(**nothing, high_water_mark=5, backlog=6))
    assert call(process, 'options').body == [process.pid, 5, 5, 6, -1, 0, 0, 0]
