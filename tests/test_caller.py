"""Who called: what a delegate's method is told of the sender of a message, and what nobody can pretend."""

import asyncio
import json
import os
import threading
from contextvars import copy_context

import pytest
import zmq

from chaos import zmtp
from peers import message
from pyams_zmq.caller import Caller, current_caller
from pyams_zmq.client import ZMQClient
from pyams_zmq.curve import make_keys
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.jobs import job
from pyams_zmq.process import ZMQProcess
from pyams_zmq.testing import ZMQStub
from services import Process


class Delegate:
    process = None

    def who(self, data):
        return [200, list(current_caller())]

    async def later(self, data):
        await asyncio.sleep(0)
        return [200, list(current_caller())]

    def thread(self, data):
        """Ask in a thread of one's own, with the context or without."""
        found = []
        context = copy_context()
        for target in (lambda: context.run(ask, found), lambda: ask(found)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        return [200, found]

    @job
    def work(self, data):
        return [200, list(current_caller())]


def ask(found):
    found.append(list(current_caller()))


class Handler(ZMQMessageHandler):
    handler = Delegate


USERS = {'web': 'one', 'crön': 'two'}


@pytest.fixture
def ask_as():
    def ask_as(process, message_type='who', **options):
        with ZMQClient(process.endpoint.replace('[::]', '127.0.0.1'), timeout=30, **options) as client:
            reply = client.call(message_type)
            assert reply.ok, reply
            return reply.body

    return ask_as


@pytest.fixture
def serve_jobs(start, tmp_path):
    def serve_jobs(address='127.0.0.1', auth=None, workers=0, **options):
        attributes = {'journal': str(tmp_path / 'journal'), 'workers': workers}
        return start(address, Handler, auth, cls=type('Jobs', (Process,), attributes), **options)

    return serve_jobs


def test_the_user_of_a_password(serve_jobs, ask_as):
    process = serve_jobs(auth=USERS)
    for user, password in USERS.items():
        assert ask_as(process, auth={user: password}) == [user, '127.0.0.1']


@pytest.mark.parametrize('workers', [0, 2])
def test_wherever_a_method_runs(serve_jobs, ask_as, workers):
    process = serve_jobs(auth=USERS, workers=workers)
    for message_type in 'who', 'later':
        assert ask_as(process, message_type, auth='web:one') == ['web', '127.0.0.1']
    assert ask_as(process, 'thread', auth='web:one') == [['web', '127.0.0.1'], [None, None]]


def test_two_callers_at_once(serve_jobs):
    process = serve_jobs(auth=USERS, workers=4)
    found = {user: set() for user in USERS}

    def calls(user):
        with ZMQClient(process.endpoint, {user: USERS[user]}, 30) as client:
            for number in range(100):
                found[user].add(client.call('who' if number % 2 else 'later').body[0])

    threads = [threading.Thread(target=calls, args=(user,)) for user in USERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {user: {user} for user in USERS}


def test_the_name_of_a_key(serve_jobs, ask_as, tmp_path):
    clients = tmp_path / 'clients'
    clients.mkdir(0o700)
    for path in tmp_path / 'medias', clients / 'wéb', clients / 'cron':
        make_keys(path)
    process = serve_jobs(curve_secret_key=tmp_path / 'medias.key_secret', curve_clients=clients)
    for name in 'wéb', 'cron':
        curve = tmp_path / 'medias.key', clients / f'{name}.key_secret'
        assert ask_as(process, curve=curve) == [name, '127.0.0.1']


def test_nobody_is_asked(serve_jobs, ask_as):
    assert ask_as(serve_jobs()) == [None, '127.0.0.1']


def test_the_list_of_clients_alone_tells_no_name(serve_jobs, ask_as):
    assert ask_as(serve_jobs(clients='127.0.0.1')) == [None, '127.0.0.1']


@pytest.mark.parametrize(('address', 'expected'), [('[::1]', '::1'), ('[::]', '127.0.0.1')])
def test_addresses(serve_jobs, ask_as, address, expected):
    assert ask_as(serve_jobs(address)) == [None, expected]


def test_an_ipc_socket(serve_jobs, ask_as, tmp_path):
    user, address = ask_as(serve_jobs(f'ipc://{tmp_path}/s', 'web:one'), auth='web:one')
    assert user == 'web'
    assert address == f'localhost:{os.getuid()}:{os.getgid()}:{os.getpid()}'


@pytest.mark.parametrize(
    ('options', 'user'), [({}, None), ({'clients': '127.0.0.1'}, None), ({'auth': 'web:one'}, 'web')]
)
def test_what_a_peer_says_of_itself_is_not_believed(serve_jobs, options, user):
    """0MQ lets a peer name its properties as it likes, and tells them like its own."""
    process = serve_jobs(**options)
    process.auth = options.get('auth')
    with zmtp.shake_hands(process, User_Id=b'admin', Peer_Address=b'192.0.2.1') as connection:
        text = message('who')
        connection.sendall(zmtp.header(0, more=True) + zmtp.header(len(text)) + text)
        zmtp.receive(connection, 2)
        reply = zmtp.receive(connection, zmtp.receive(connection, 2)[1])
    assert json.loads(reply) == [200, [user, '127.0.0.1']]


def test_a_job_has_no_caller(serve_jobs):
    with ZMQClient(serve_jobs(auth=USERS).endpoint, 'web:one', 30) as client:
        assert client.wait(client.submit('work').body['job']) == (200, [None, None])


def test_outside_of_messages():
    assert current_caller() == Caller(None, None)


def test_a_stub_has_no_address():
    with ZMQStub(ZMQProcess('127.0.0.1', type('Plain', (Handler,), {'handler': Plain}))) as stub:
        assert stub.call('who').body == [None, None]


class Plain:
    process = None
    who = Delegate.who


def test_other_kinds_of_sockets(start, tmp_path, wait_until):
    """With a queue of messages that nobody replies to, the first frame is the message."""

    class Pull(Process):
        socket_type = zmq.PULL

    class Marks:
        process = None

        def mark(self, path):
            (tmp_path / 'mark.tmp').write_text(repr(current_caller()))
            (tmp_path / 'mark.tmp').rename(tmp_path / 'mark')

    process = start('127.0.0.1', type('H', (ZMQMessageHandler,), {'handler': Marks}), 'web:one', cls=Pull)
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.plain_username, socket.plain_password = b'web', b'one'
        socket.connect(process.endpoint)
        socket.send(message('mark'))
        wait_until((tmp_path / 'mark').exists)
    assert (tmp_path / 'mark').read_text() == "Caller(user='web', address='127.0.0.1')"
