"""The door: who is let in, and what nobody gets to see."""

import os
import stat
import threading
from pathlib import Path

import pytest
import zmq
import zmq.auth

from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode, ProcessStartError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.security import ZAP_DOMAIN, Authenticator, parse_auth, parse_clients, protect, resolve
from services import Echo, EchoHandler, Process

AUTH = 'user:pass:wörd'


class Marking(Echo):
    """Leaves a mark where it is called."""

    def mark(self, path):
        Path(path).touch()
        return [200, 'marked']


class MarkingHandler(ZMQMessageHandler):
    handler = Marking


LISTS = {
    'everybody': ('127.0.0.1', '', True),
    'listed': ('127.0.0.1', '192.0.2.1, 127.0.0.1', True),
    'unlisted': ('127.0.0.1', '192.0.2.1', False),
    'network': ('127.0.0.1', '127.0.0.0/8', True),
    'other network': ('127.0.0.1', '10.0.0.0/8', False),
    'host name': ('127.0.0.1', 'localhost', True),
    'IPv6': ('[::1]', '::1', True),
    'IPv6 unlisted': ('[::1]', '2001:db8::1 127.0.0.1', False),
    'IPv6 network': ('[::1]', '::/64', True),
    'mapped': ('[::]', '127.0.0.1', True),
    'listed as mapped': ('127.0.0.1', '::ffff:127.0.0.1', True),
    'network as mapped': ('127.0.0.1', '::ffff:127.0.0.0/104', True),
    'mapped unlisted': ('[::]', '192.0.2.1', False),
}
CREDENTIALS = {'right': AUTH, 'wrong': 'user:pass', 'other user': 'root:pass:wörd', 'absent': None}


@pytest.mark.parametrize('who', LISTS)
@pytest.mark.parametrize('auth', [None, AUTH], ids=['NULL', 'PLAIN'])
def test_who_gets_in(start, tmp_path, who, auth):
    bind_addr, clients, welcome = LISTS[who]
    process = start(bind_addr, MarkingHandler, auth, clients)
    endpoint = process.endpoint.replace('[::]', '127.0.0.1')
    for name, ours in CREDENTIALS.items():
        mark = tmp_path / name
        expected = welcome and ((name == 'right') if auth else ours is None)
        with ZMQClient(endpoint, auth=ours, timeout=30) as client:
            reply = client.call('mark', str(mark))
        assert (reply.status == 200) == expected == mark.exists()
        if not expected:
            assert reply.status in ({401} if (auth is None) == (ours is not None) else {403})
            assert not reply.delivered


@pytest.mark.parametrize(
    'clients', ['256.1.1.1', '10.0.0.0/99', '*', '-x', 'a;b', '10.0.0', '127.0.0.1 not/a/host', '::1::']
)
def test_what_is_no_list(clients):
    with pytest.raises(ValueError, match='in clients is no IP address'):
        ZMQProcess('127.0.0.1', EchoHandler, None, clients)


def test_lists():
    assert parse_clients(' , ') is None
    assert parse_clients(['127.0.0.1', '::1']) == ['127.0.0.1', '::1']
    assert parse_clients('a.example, b.example.') == ['a.example', 'b.example.']
    assert [str(network) for network in resolve('::ffff:10.0.0.0/104')] == ['10.0.0.0/8']
    assert [str(network) for network in resolve('::/0')] == ['::/0']


@pytest.mark.parametrize('auth', ['secret', ':secret', 'secret:', 5, 'user:' + 'secret' * 99])
def test_what_is_no_auth(auth):
    with pytest.raises(ValueError) as caught:
        ZMQProcess('127.0.0.1', EchoHandler, auth)
    assert 'secret' not in str(caught.value)
    assert parse_auth('') is None


def test_a_name_that_cannot_be_resolved(start):
    process = start(clients='127.0.0.1 no-such-host.invalid', wait=False)
    with pytest.raises(
        ProcessStartError, match=r"'no-such-host\.invalid' in clients cannot be resolved"
    ) as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.SETUP


def test_every_bound_socket_is_protected(start, wait_until):
    """And no connecting one: it would check the peer that it dials."""
    context = zmq.Context()
    publisher = context.socket(zmq.XPUB)
    port = publisher.bind_to_random_port('tcp://127.0.0.1')

    class More(Process):
        heard = None

        def setup(self):
            super().setup()
            self.stream(zmq.SUB, ('127.0.0.1', port), bind=False, callback=self.hear)
            stream, self.second = self.stream(zmq.REP, '127.0.0.1', bind=True)
            stream.on_recv(EchoHandler(self, stream, self.stop))

        def hear(self, frames):
            self.heard = frames[0].decode()

    class Delegate(Echo):
        def second(self, data):
            return [200, self.process.second]

        def heard(self, data):
            return [200, self.process.heard]

    process = start('127.0.0.1', type('H', (ZMQMessageHandler,), {'handler': Delegate}), AUTH, cls=More)
    with ZMQClient(process.endpoint, auth=AUTH) as client:
        second = client.call('second').body
        assert publisher.poll(10_000)  # the subscription is there
        publisher.send(b'news')
        wait_until(lambda: client.call('heard') == (200, 'news'))
    assert ZMQClient(('127.0.0.1', second), timeout=30).call('echo').status == 401
    assert ZMQClient(('127.0.0.1', second), auth=AUTH).call('echo').ok
    publisher.close()
    context.term()


def test_passwords_show_nowhere(start, call, log_file):
    process = start(auth='user:topsecret')
    assert call(process, 'echo', 1, auth='user:topsecret').ok
    assert call(process, 'echo', 1, auth='user:wrongsecret').status == 403
    assert call(process, 'fail', 'x', auth='user:topsecret').status == 500
    shown = repr(process) + repr(process.passwords) + repr(vars(process)) + log_file.read_text()
    if os.path.exists('/proc'):
        shown += (
            Path(f'/proc/{process.pid}/cmdline').read_text()
            + Path(f'/proc/{process.pid}/environ').read_text()
        )
    assert 'topsecret' not in shown
    assert 'wrongsecret' not in shown
    assert 'refused' in log_file.read_text()


# The authenticator on its own


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def authenticator(context):
    authenticator = Authenticator(context)
    authenticator.start()
    yield authenticator
    authenticator.stop()
    authenticator.stop()
    assert not authenticator.is_alive()


def judge(context, *question):
    """Ask as libzmq does; returns the status code, the user's name and the text."""
    with context.socket(zmq.REQ) as socket:
        socket.connect('inproc://zeromq.zap.01')
        socket.send_multipart(question)
        assert socket.poll(10_000)
        _version, _id, code, text, user, _metadata = socket.recv_multipart()
    return code.decode(), user.decode(), text.decode()


def ask(context, mechanism, *credentials, address='127.0.0.1', domain=ZAP_DOMAIN):
    return judge(context, b'1.0', b'7', domain.encode(), address.encode(), b'', mechanism, *credentials)


def test_addresses(context, authenticator):
    assert ask(context, b'NULL')[0] == '200'
    authenticator.allow('10.0.0.0/8', 'localhost')
    assert ask(context, b'NULL')[:2] == ('200', 'anonymous')
    assert ask(context, b'NULL', address='10.1.2.3')[0] == '200'
    assert ask(context, b'NULL', address='::ffff:10.1.2.3')[0] == '200'
    assert ask(context, b'NULL', address='fe80::1%eth0')[0] == '400'
    assert ask(context, b'NULL', address='localhost:0:0:7')[0] == '200'  # an ipc peer
    with pytest.raises(ValueError):
        authenticator.deny('10.0.0.1')
    with pytest.raises(OSError):
        authenticator.allow('no-such-host.invalid')


def test_deny(context, authenticator):
    authenticator.deny('10.0.0.0/8')
    assert ask(context, b'NULL')[0] == '200'
    assert ask(context, b'NULL', address='10.1.2.3')[0] == '400'
    with pytest.raises(ValueError):
        authenticator.allow('10.0.0.1')


def test_plain(context, authenticator):
    assert ask(context, b'PLAIN', b'user', b'')[0] == '400'
    authenticator.configure_plain('*', {'user': 'secret'})
    assert ask(context, b'PLAIN', b'user', b'secret')[:2] == ('200', 'user')
    assert ask(context, b'PLAIN', b'user', b'secre')[0] == '400'
    assert ask(context, b'PLAIN', b'nobody', b'')[0] == '400'
    authenticator.configure_plain(ZAP_DOMAIN, {'other': 'word'})
    assert ask(context, b'PLAIN', b'user', b'secret')[0] == '400'
    assert ask(context, b'PLAIN', b'other', b'word')[0] == '200'
    assert ask(context, b'PLAIN', b'user', b'secret', domain='elsewhere')[0] == '200'


def test_curve(context, authenticator, tmp_path):
    public, _ = zmq.auth.create_certificates(tmp_path, 'client')
    known = zmq.utils.z85.decode(zmq.auth.load_certificate(public)[0])
    assert ask(context, b'CURVE', known)[0] == '400'
    authenticator.configure_curve('*', str(tmp_path))
    assert ask(context, b'CURVE', known)[0] == '200'
    assert ask(context, b'CURVE', b'\0' * 32)[0] == '400'
    authenticator.configure_curve(ZAP_DOMAIN, zmq.auth.CURVE_ALLOW_ANY)
    assert ask(context, b'CURVE', b'\0' * 32)[0] == '200'


def test_questions_that_make_no_sense(context, authenticator):
    """Each is refused, and the next one answered."""
    assert ask(context, b'GSSAPI', b'me')[0] == '400'
    assert ask(context, b'PLAIN', b'user')[0] == '500'
    assert ask(context, b'CURVE')[0] == '500'
    assert judge(context, b'1.0')[0] == '500'
    authenticator.passwords = None
    assert ask(context, b'PLAIN', b'user', b'secret')[0] == '500'
    assert ask(context, b'NULL')[0] == '200'


def test_the_context_ends_first(context):
    authenticator = Authenticator(context)
    authenticator.stop()
    authenticator.start()
    assert authenticator.is_alive()
    term = threading.Thread(target=context.term, daemon=True)
    term.start()
    term.join(10)
    assert not term.is_alive()
    authenticator.stop()


def test_a_plain_socket_has_a_domain(context):
    with context.socket(zmq.ROUTER) as socket:
        protect(socket, plain=True)
        assert socket.zap_domain == ZAP_DOMAIN.encode()
        assert socket.plain_server


# ipc


def test_an_ipc_socket_is_its_owners_alone(start, tmp_path):
    process = start(f'ipc://{tmp_path}/s', auth=AUTH)
    assert stat.S_IMODE((tmp_path / 's').stat().st_mode) == 0o600
    assert ZMQClient(process.endpoint, auth=AUTH).call('echo', 1).ok
    second = start(f'ipc://{tmp_path}/s', wait=False)
    with pytest.raises(ProcessStartError, match='Address already in use'):
        second.wait_ready()
    assert ZMQClient(process.endpoint, auth=AUTH).call('echo', 2).ok
    process.kill()
    process.join()
    assert (tmp_path / 's').exists()
    assert ZMQClient(start(f'ipc://{tmp_path}/s').endpoint).call('echo', 3).ok


def test_a_file_that_is_no_socket_stays(start, tmp_path):
    (tmp_path / 'file').write_text('precious')
    process = start(f'ipc://{tmp_path}/file', wait=False)
    with pytest.raises(ProcessStartError, match='File exists') as caught:
        process.wait_ready()
    assert caught.value.exitcode == ExitCode.ADDRESS
    assert (tmp_path / 'file').read_text() == 'precious'


def test_lists_of_hosts_make_no_sense_for_ipc():
    with pytest.raises(ValueError, match='ipc'):
        ZMQProcess('ipc:///tmp/s', EchoHandler, None, '127.0.0.1')
