"""The faults of 0MQ's own REP, each shown on a bare one by the code that then shows that ours has none."""

import multiprocessing
import socket as sockets
from contextlib import suppress

import psutil
import pytest
import zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

from chaos import garbage
from peers import Peer, message
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.wire import decode

ROUNDS = 20
LATER = 40


class Nothing:
    """A delegate without methods."""


class OldHandler(ZMQMessageHandler):
    """Answers as handlers written for 2.0.0 do, so that it works behind a bare REP too."""

    handler = Nothing
    entered = None
    gate = None

    def __call__(self, frames):
        try:
            message_type, data = decode(frames[-1])
        except (TypeError, ValueError):
            # Garbage may look like a request; what it costs a REP that has no reply then is another fault.
            self.rep_stream.send_json([400, None])
            return
        if message_type == 'wait':
            self.entered.set()
            assert self.gate.wait(20)
            self.gate.clear()
        self.rep_stream.send_json([200, data])
        if message_type == 'twice':
            self.rep_stream.send_json([200, 'secret'])


class BareRep(multiprocessing.Process):
    """The heart of 2.0.0: a REP with a ZMQStream."""

    def __init__(self, handler):
        super().__init__()
        self.handler = handler
        self.reader, self.writer = multiprocessing.Pipe(duplex=False)

    def run(self):
        context = zmq.Context()
        socket = context.socket(zmq.REP)
        port = socket.bind_to_random_port('tcp://127.0.0.1')
        loop = IOLoop(make_current=False)
        stream = ZMQStream(socket, loop)
        stream.on_recv(self.handler(None, stream, loop.stop))
        self.writer.send(f'tcp://127.0.0.1:{port}')
        loop.start()


@pytest.fixture(params=['bare REP', 'ours'])
def service(request, start):
    """A process that answers by an :class:`OldHandler`; ``faulty`` where a bare REP does it.

    ``patience`` is how many seconds a reply may take before it counts as lost.
    """
    fork = multiprocessing.get_context('fork')
    handler = type('Handler', (OldHandler,), {'entered': fork.Event(), 'gate': fork.Event()})
    if request.param == 'ours':
        process = start('127.0.0.1', handler)
        process.faulty = False
        process.patience = 10
        process.handler = handler
        yield process
    else:
        process = BareRep(handler)
        process.start()
        assert process.reader.poll(10)
        process.endpoint = process.reader.recv()
        process.faulty = True
        process.patience = 2
        yield process
        process.kill()
        process.join(10)
        process.reader.close()
        process.writer.close()


def peers_of(process):
    """Return the ports from which somebody is connected to a process."""
    connections = psutil.Process(process.pid).net_connections('tcp')
    return {one.raddr.port for one in connections if one.raddr}


def send_unread(service, wait_until, leave_a_message):
    """Have a peer come and leave while the service is too busy to read what it leaves behind.

    :param leave_a_message: called with the endpoint; returns when the process has its message
    :returns: whether the honest client that kept the service busy had its reply
    """
    gate, entered = service.handler.gate, service.handler.entered
    with Peer(service.endpoint) as waiting:
        entered.clear()
        waiting.send(message('wait'))
        if not entered.wait(service.patience):
            # What was left behind in an earlier round has taken this message with it.
            return False
        honest = peers_of(service)
        leave_a_message(service.endpoint)
        wait_until(lambda: peers_of(service) <= honest)
        gate.set()
        return bool(waiting.socket.poll(service.patience * 1000)) and waiting.reply() == [200, None]


def first_reply_comes(service):
    """Whether a new caller has the reply to its first message; later ones show that it will not come."""
    with Peer(service.endpoint) as caller:
        for number in range(LATER):
            caller.send(message('echo', number))
        return bool(caller.socket.poll(service.patience * 1000)) and caller.reply() == [200, 0]


def replies_lost(service, wait_until, leave_a_message):
    """Count the rounds in which an honest client has no reply; a faulty service is given up at the first."""
    lost = 0
    for _ in range(ROUNDS):
        lost += not (send_unread(service, wait_until, leave_a_message) and first_reply_comes(service))
        if lost and service.faulty:
            break
    return lost


def without_delimiter(*frames):
    def leave_a_message(endpoint):
        with Peer(endpoint) as peer:
            peer.send_raw(*frames)

    return leave_a_message


def raw(data):
    """Write bytes on the TCP connection, as something that speaks another protocol does."""

    def leave_a_message(endpoint):
        port = int(endpoint.rpartition(':')[2])
        with sockets.create_connection(('127.0.0.1', port), timeout=10) as connection:
            assert connection.recv(1)  # 0MQ speaks first: it has accepted the connection
            connection.sendall(next(data))
            with suppress(OSError):  # it may have hung up already
                connection.shutdown(sockets.SHUT_WR)
                while connection.recv(4096):
                    pass

    return leave_a_message


@pytest.mark.parametrize(
    'leave_a_message',
    [
        pytest.param(without_delimiter(b'garbage'), id='one frame'),
        pytest.param(without_delimiter(b'a', b'b', b'c'), id='three frames'),
        pytest.param(without_delimiter(message('echo', 1)), id='a message'),
        pytest.param(raw(garbage.random_bytes()), id='random bytes'),
        pytest.param(raw(garbage.client_hello()), id='TLS'),
        pytest.param(raw(garbage.http_request()), id='HTTP'),
    ],
)
def test_a_message_without_delimiter_costs_nobody_the_reply(service, wait_until, leave_a_message):
    lost = replies_lost(service, wait_until, leave_a_message)
    if service.faulty:
        assert lost > 0
    else:
        assert lost == 0


def test_a_second_reply_reaches_nobody_else(service):
    leaked = 0
    for number in range(ROUNDS):
        with Peer(service.endpoint) as first, Peer(service.endpoint) as other:
            first.ask('twice', number)
            leaked += other.ask('echo', 'mine') != [200, 'mine']
    assert leaked > 0 if service.faulty else leaked == 0
