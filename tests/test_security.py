"""The door: who is let in, and what nobody gets to see."""

import os
import pickle
import shutil
import socket as sockets
import stat
import tempfile
import threading
import time
import traceback
import warnings
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

from pyams_zmq.client import ZMQClient
from pyams_zmq.credentials import parse_auth
from pyams_zmq.exceptions import ExitCode, ProcessStartError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.security import ZAP_DOMAIN, Authenticator, parse_clients, protect, resolve
from services import Echo, EchoHandler, Process

AUTH = 'user:pass:wörd'


@pytest.fixture(autouse=True, scope='module')
def _resource_tracker():
    """multiprocessing's helper for spawn, started here so that it outlives the test that needs it first."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # another module's tests may have ended it
        resource_tracker.ensure_running()


class Marking(Echo):
    """Leaves a mark where it is called."""

    def mark(self, path):
        Path(path).touch()
        return [200, 'marked']


class MarkingHandler(ZMQMessageHandler):
    handler = Marking


@pytest.mark.parametrize(
    'clients', ['256.1.1.1', '10.0.0.0/99', '*', '-x', 'a;b', '10.0.0', '127.0.0.1 not/a/host', '::1::']
)
def test_what_is_no_list(clients):
    with pytest.raises(ValueError, match='in clients is no IP address'):
        ZMQProcess('127.0.0.1', EchoHandler, None, clients)


def test_lists():
    assert parse_clients(' \n ') is None
    assert parse_clients(['127.0.0.1', '::1']) == ['127.0.0.1', '::1']
    assert parse_clients('a.example, b.example.') == ['a.example', 'b.example.']
    assert [str(network) for network in resolve('::ffff:10.0.0.0/104')] == ['10.0.0.0/8']
    assert [str(network) for network in resolve('::/0')] == ['::/0']


@pytest.mark.parametrize('clients', [' , ', ',', [','], 5, b'127.0.0.1'])
def test_a_list_that_names_nobody(clients):
    """Whoever wrote something meant somebody: that everybody gets in would be a surprise."""
    with pytest.raises(ValueError, match='clients'):
        ZMQProcess('127.0.0.1', EchoHandler, None, clients)


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
    assert ask(context, b'NULL', address='localhost:0:0:')[0] == '200'  # on macOS, which tells no process id
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
    (tmp_path / 'nothing').mkdir()
    authenticator.configure_curve(ZAP_DOMAIN, str(tmp_path / 'nothing'))
    assert ask(context, b'CURVE', known)[0] == '400'
    authenticator.configure_keys({b'k' * 32: 'web'})
    assert ask(context, b'CURVE', b'k' * 32)[:2] == ('200', 'web')
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


# The door of a process, from outside


def mark(process, path, auth, timeout=30):
    """Call with a side effect; returns the reply's status and whether there was one."""
    with ZMQClient(process.endpoint, auth=auth, timeout=timeout) as client:
        return client.call('mark', str(path)).status, path.exists()


@pytest.mark.parametrize(
    'auth', ['user:pass:word', 'user::', 'üser:pässwörd€', 'u:' + 'p' * 255, 'u:é\u0301\0x']
)
def test_passwords_that_are_let_in(start, tmp_path, auth):
    process = start('127.0.0.1', MarkingHandler, auth)
    assert mark(process, tmp_path / 'right', auth) == (200, True)


@pytest.mark.parametrize(
    'wrong',
    [
        'user:sesame ope',
        'user:sesame open ',
        'user:sesame open\0',
        'user:Sesame open',
        'user:s',
        'user:x',
        'user:é',
        'user:' + 's' * 255,
        'User:sesame open',
        'user\0:sesame open',
        'use:sesame open',
        'admin:sesame open',
        'sesame open:user',
        '*:sesame open',
    ],
)
def test_credentials_that_are_kept_out(start, tmp_path, wrong):
    process = start('127.0.0.1', MarkingHandler, 'user:sesame open')
    began = time.monotonic()
    assert mark(process, tmp_path / 'wrong', wrong) == (403, False)
    assert time.monotonic() - began < 5
    assert mark(process, tmp_path / 'right', 'user:sesame open') == (200, True)


def test_an_empty_password_is_kept_out(context, authenticator):
    """Which libzmq does not send, but others may."""
    authenticator.configure_plain('*', {'user': 'sesame'})
    for user, password in ((b'user', b''), (b'', b'sesame'), (b'', b''), (b'\xff', b'\xff')):
        assert ask(context, b'PLAIN', user, password)[0] == '400'


SHAKEN = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


def shake_hands(socket, endpoint):
    """Connect; returns the event that tells how it went."""
    with socket.get_monitor_socket(SHAKEN) as monitor:
        socket.connect(endpoint)
        try:
            assert monitor.poll(20_000)
            return recv_monitor_message(monitor)['event']
        finally:
            socket.disable_monitor()


def test_messages_sent_before_the_refusal_are_never_executed(start, tmp_path):
    """Messages wait in the client while the door is asked, a hundred of them."""
    process = start('127.0.0.1', MarkingHandler, 'user:sesame', '127.0.0.1')
    for options in ({}, {'plain_username': b'user', 'plain_password': b'wrong'}):
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            for name, value in options.items():
                setattr(socket, name, value)
            socket.connect(process.endpoint)
            for number in range(100):
                with suppress(zmq.Again):  # refused meanwhile
                    frames = [b'', b'["mark", "%s"]' % os.fsencode(tmp_path / f'{number}')]
                    socket.send_multipart(frames, zmq.NOBLOCK)
            assert mark(process, tmp_path / 'right', 'user:sesame') == (200, True)
            assert not socket.poll(100)
            (tmp_path / 'right').unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'clients', ['127.0.0.1,10.0.0.1', ' 10.0.0.1\n\t127.0.0.1 ', '10.0.0.1 , 127.0.0.1/32,']
)
def test_separators_of_clients(start, tmp_path, clients):
    process = start('127.0.0.1', MarkingHandler, None, clients)
    assert mark(process, tmp_path / 'in', None) == (200, True)


@pytest.mark.parametrize(
    'clients', ['a b;c', '10.0.0', '10.0.0.1-10.0.0.9', 'http://a', '1.2.3.4:80', '[::1]', 'a..b']
)
def test_the_error_names_the_culprit(clients):
    culprit = clients.split()[-1]
    with pytest.raises(ValueError) as error:
        ZMQProcess('127.0.0.1', EchoHandler, None, f'127.0.0.1, {clients}')
    assert repr(culprit) in str(error.value)


@pytest.mark.parametrize('clients', [5, b'127.0.0.1', [5], object()])
def test_clients_of_a_wrong_type(clients):
    with pytest.raises((TypeError, ValueError)):
        ZMQProcess('127.0.0.1', EchoHandler, None, clients)


class Domains(Process):
    """Uses the authenticator as it would be used on pyzmq's."""

    def setup(self):
        super().setup()
        self.auth_thread.configure_plain('*', {'second': 'sesame'})


def test_a_subclass_lets_more_users_in(start, tmp_path):
    """The domain '*' covers ours, whatever was configured before."""
    process = start('127.0.0.1', MarkingHandler, 'first:sesame', cls=Domains)
    assert mark(process, tmp_path / 'second', 'second:sesame') == (200, True)
    assert mark(process, tmp_path / 'third', 'third:sesame') == (403, False)


class Narrow(Process):
    """Lets nobody in, once it is set up."""

    def setup(self):
        super().setup()
        self.auth_thread.deny('127.0.0.0/8')


def test_a_subclass_denies(start, tmp_path):
    process = start('127.0.0.1', MarkingHandler, 'user:sesame', cls=Narrow)
    assert mark(process, tmp_path / 'denied', 'user:sesame') == (403, False)


class Later(Process):
    """Binds another socket when it has long been running."""


class LaterDelegate(Marking):
    def bind(self, data):
        stream, port = self.process.stream(zmq.REP, '127.0.0.1', True)
        stream.on_recv(LaterHandler(self.process, stream, self.process.stop))
        return [200, port]


class LaterHandler(ZMQMessageHandler):
    handler = LaterDelegate


def test_sockets_bound_later_are_protected(start, tmp_path):
    process = start('127.0.0.1', LaterHandler, 'user:sesame', cls=Later)
    with ZMQClient(process.endpoint, auth='user:sesame') as client:
        port = client.call('bind').body
    process.endpoint = f'tcp://127.0.0.1:{port}'
    assert mark(process, tmp_path / 'in', 'user:sesame') == (200, True)
    assert mark(process, tmp_path / 'out', 'user:wrong') == (403, False)


@pytest.mark.parametrize('socket_type', [zmq.PULL, zmq.SUB, zmq.ROUTER, zmq.DEALER])
def test_other_socket_types_are_protected(start, socket_type):
    peers = {zmq.PULL: zmq.PUSH, zmq.SUB: zmq.PUB, zmq.ROUTER: zmq.DEALER, zmq.DEALER: zmq.DEALER}
    process = start(
        '127.0.0.1', cls=type('Other', (Process,), {'socket_type': socket_type}), clients='192.0.2.1'
    )
    with zmq.Context() as context, context.socket(peers[socket_type]) as socket:
        socket.linger = 0
        assert shake_hands(socket, process.endpoint) == zmq.EVENT_HANDSHAKE_FAILED_AUTH


# Secrets


class Spawned(Process):
    start_method = 'spawn'


@pytest.mark.parametrize('cls', [Process, Spawned])
def test_what_other_users_of_the_host_see(start, cls):
    process = start(auth='user:topsecret', cls=cls)
    folder = Path(f'/proc/{process.pid}')
    if not folder.exists():
        pytest.skip('this system has no /proc')
    assert b'topsecret' not in (folder / 'cmdline').read_bytes()
    assert b'topsecret' not in (folder / 'environ').read_bytes()
    assert 'topsecret' not in os.environ


@pytest.mark.parametrize(
    'auth', ['topsecret', ':topsecret', 'topsecret:', 5, 'u:topsecret' * 99, 'u:topsecret\ud800']
)
def test_secrets_in_tracebacks(auth):
    for make in (
        lambda: ZMQProcess('127.0.0.1', EchoHandler, auth),
        lambda: ZMQClient('127.0.0.1:5555', auth=auth),
    ):
        with pytest.raises(ValueError) as error:
            make()
        shown = ''.join(traceback.format_exception(error.value)) + repr(error.value) + repr(error.value.args)
        assert 'topsecret' not in shown


def test_secrets_in_errors_of_the_start(start, log_file):
    """A port in use, a name without an address: the traceback is in the log, the password is not."""
    first = start(auth='user:topsecret')
    for bind_addr, clients in ((first.endpoint, None), ('127.0.0.1', 'no-such-host.invalid')):
        process = start(bind_addr, auth='user:topsecret', clients=clients, wait=False)
        with pytest.raises(ProcessStartError) as error:
            process.wait_ready()
        assert 'topsecret' not in str(error.value)
    assert 'topsecret' not in log_file.read_text()


def test_pickles_keep_the_passwords():
    """Else a spawned child would let nobody in, or everybody."""
    passwords = parse_auth('user:pass:word')
    assert pickle.loads(pickle.dumps(passwords)) == {'user': 'pass:word'}


def test_a_spawned_process_enforces_as_well(start, tmp_path):
    process = start('127.0.0.1', MarkingHandler, 'user:sesame', '127.0.0.1', cls=Spawned)
    assert mark(process, tmp_path / 'in', 'user:sesame') == (200, True)
    assert mark(process, tmp_path / 'out', 'user:wrong') == (403, False)


# The authenticator on its own, with sockets


@pytest.fixture
def guarded(context, authenticator):
    """Bind a ROUTER behind the authenticator; returns its address."""
    bound = []

    def guarded(**options):
        socket = context.socket(zmq.ROUTER)
        bound.append(socket)
        socket.zap_domain = ZAP_DOMAIN.encode()
        for name, value in options.items():
            setattr(socket, name, value)
        return f'tcp://127.0.0.1:{socket.bind_to_random_port("tcp://127.0.0.1")}'

    yield guarded
    for socket in bound:
        socket.close(0)


@pytest.fixture
def enter(context):
    """Whether a client with these options gets in."""

    def enter(address, **options):
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            for name, value in options.items():
                setattr(socket, name, value)
            return shake_hands(socket, address) == zmq.EVENT_HANDSHAKE_SUCCEEDED

    return enter


def test_users_added_while_it_runs(authenticator, guarded, enter):
    address = guarded(plain_server=True)
    user = {'plain_username': b'user', 'plain_password': b'sesame'}
    assert not enter(address, **user)
    authenticator.configure_plain('*', {'user': 'sesame'})
    assert enter(address, **user)
    assert not enter(address, **{**user, 'plain_password': b'other'})
    authenticator.configure_plain('*', {'user': 'other'})
    assert not enter(address, **user)


def test_addresses_allowed_while_it_runs(authenticator, guarded, enter):
    address = guarded()
    assert enter(address)
    authenticator.allow('192.0.2.1')
    assert not enter(address)
    authenticator.allow('127.0.0.0/8')
    assert enter(address)


def test_addresses_denied_while_it_runs(authenticator, guarded, enter):
    address = guarded()
    authenticator.deny('localhost')
    assert not enter(address)


@pytest.fixture
def keys(tmp_path):
    """Key pairs of a server and two clients, the first of whom is in the folder of certificates."""
    folder, elsewhere = tmp_path / 'known', tmp_path / 'unknown'
    folder.mkdir()
    elsewhere.mkdir()
    pairs = {}
    for place, name in ((elsewhere, 'server'), (folder, 'known'), (elsewhere, 'unknown')):
        _public, secret = zmq.auth.create_certificates(place, name)
        pairs[name] = zmq.auth.load_certificate(secret)
    return folder, pairs


def curve(pairs, name):
    public, secret = pairs[name]
    return {'curve_publickey': public, 'curve_secretkey': secret, 'curve_serverkey': pairs['server'][0]}


def test_curve_with_sockets(authenticator, guarded, enter, keys):
    folder, pairs = keys
    public, secret = pairs['server']
    address = guarded(curve_server=True, curve_publickey=public, curve_secretkey=secret)
    assert not enter(address, **curve(pairs, 'known'))
    authenticator.configure_curve('*', folder)
    assert enter(address, **curve(pairs, 'known'))
    assert not enter(address, **curve(pairs, 'unknown'))
    authenticator.configure_curve('*', zmq.auth.CURVE_ALLOW_ANY)
    assert enter(address, **curve(pairs, 'unknown'))
    # Addresses count for keys too.
    authenticator.allow('192.0.2.1')
    assert not enter(address, **curve(pairs, 'known'))


def test_a_decision_that_raises(authenticator, guarded, enter, keys):
    """It costs its own connection, and nobody else's."""
    _folder, pairs = keys
    public, secret = pairs['server']
    address = guarded(curve_server=True, curve_publickey=public, curve_secretkey=secret)

    class Provider:
        raises = True

        def callback(self, domain, key):
            if self.raises:
                raise LookupError('the database is away')
            return key == pairs['known'][0]

    provider = Provider()
    authenticator.configure_curve_callback('*', provider)
    for _ in range(3):
        assert not enter(address, **curve(pairs, 'known'))
    assert authenticator.is_alive()
    provider.raises = False
    assert enter(address, **curve(pairs, 'known'))
    assert not enter(address, **curve(pairs, 'unknown'))


def test_a_decision_that_is_awaited(context, authenticator):
    class Provider:
        async def callback(self, domain, key):
            return key == zmq.utils.z85.encode(b'k' * 32)

    authenticator.configure_curve_callback('*', Provider())
    assert ask(context, b'CURVE', b'k' * 32)[0] == '200'
    assert ask(context, b'CURVE', b'l' * 32)[0] == '400'


@pytest.mark.parametrize(
    'question',
    [
        [b''],
        [b'x'],
        [b'1.0', b'7'],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b''],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b'PLAIN'],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b'PLAIN', b'user', b'sesame', b'more'],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b'PLAIN', b'\xff', b'\xff'],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b'CURVE', b'short'],
        [b'1.0', b'7', b'\xff', b'127.0.0.1', b'', b'CURVE', b'k' * 32],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b''],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b'plain', b'user', b'sesame'],
        [b'1.0', b'7', b'domain', b'127.0.0.1', b'', b'GSSAPI', b'me'],
        [b'x'] * 300,
        [b'x' * 100_000] * 7,
    ],
    ids=lambda frames: f'{len(frames)}-{frames[-1][:10]!a}',
)
def test_malformed_questions_are_refused(context, authenticator, question):
    authenticator.configure_plain('*', {'user': 'sesame'})
    assert judge(context, *question)[0] in {'400', '500'}
    assert ask(context, b'PLAIN', b'user', b'sesame')[0] == '200'
    assert authenticator.is_alive()


@pytest.mark.parametrize('address', ['', 'nonsense', '127.0.0.1.1', '\xff', '127.0.0.1:5555', 'localhost'])
def test_an_address_that_cannot_be_read_is_not_among_the_clients(context, authenticator, address):
    """As it is where a peer has left so fast that the system does not know it any more."""
    authenticator.allow('10.0.0.0/8')
    assert ask(context, b'NULL', address=address)[0] != '200'
    authenticator.configure_plain('*', {'user': 'sesame'})
    assert ask(context, b'PLAIN', b'user', b'sesame', address=address)[0] != '200'


def test_another_version_of_the_protocol(context, authenticator):
    assert judge(context, b'2.0', b'7', b'', b'127.0.0.1', b'', b'NULL')[0] != '200'


def test_nobody_gets_in_once_it_is_stopped(context):
    authenticator = Authenticator(context)
    authenticator.start()
    socket = context.socket(zmq.ROUTER)
    protect(socket, plain=False)
    address = f'tcp://127.0.0.1:{socket.bind_to_random_port("tcp://127.0.0.1")}'
    client = context.socket(zmq.DEALER)
    assert shake_hands(client, address) == zmq.EVENT_HANDSHAKE_SUCCEEDED
    authenticator.stop()
    assert not authenticator.is_alive()
    late = context.socket(zmq.DEALER)
    late.connect(address)
    late.send(b'late')
    # What was let in before stays in, and shows that the other would have had its time.
    client.send(b'early')
    assert socket.poll(10_000)
    assert socket.recv_multipart()[1] == b'early'
    assert not socket.poll(300)
    for one in (socket, client, late):
        one.close(0)


def test_started_again(context, enter):
    authenticator = Authenticator(context)
    for _ in range(3):
        authenticator.stop()
        authenticator.start()
        assert authenticator.is_alive()
        assert ask(context, b'NULL')[0] == '200'
        authenticator.stop()
        assert not authenticator.is_alive()


def test_threads_of_the_authenticator_end(context):
    before = threading.active_count()
    for _ in range(5):
        authenticator = Authenticator(context)
        authenticator.start()
        authenticator.stop()
    assert threading.active_count() == before


# More of ipc


def test_modes_of_an_ipc_socket_from_the_start(start, tmp_path):
    """No moment, not even under the most generous umask."""
    path = tmp_path / 's'
    modes, done = set(), threading.Event()

    def look():
        while not done.is_set():
            try:
                modes.add(stat.S_IMODE(path.stat().st_mode))
            except FileNotFoundError:
                continue

    looking = threading.Thread(target=look)
    looking.start()
    old = os.umask(0)
    try:
        for _ in range(5):
            process = start(f'ipc://{path}')
            process.kill()
            process.join()
            path.unlink()
        (tmp_path / 'made').mkdir()
        assert stat.S_IMODE((tmp_path / 'made').stat().st_mode) == 0o777
    finally:
        os.umask(old)
        done.set()
        looking.join()
    assert modes <= {0o600}


class Nobody(Process):
    """Is not root, to whom no mode means anything."""

    def run(self):
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        super().run()


def test_a_path_that_0mq_chooses(start, monkeypatch, tmp_path):
    folder = Path(tempfile.mkdtemp(prefix='ipc-'))  # whose path is short enough, and which others may enter
    folder.chmod(0o777)
    monkeypatch.chdir(tmp_path)
    (tmp_path / '*').touch()
    monkeypatch.setenv('TMPDIR', str(folder))
    try:
        process = start('ipc://*', cls=Nobody)
        path = Path(process.endpoint.removeprefix('ipc://'))
        assert path.is_relative_to(folder)
        for one in path, path.parent:
            assert stat.S_IMODE(one.stat().st_mode) == 0o700
        with ZMQClient(process.endpoint) as client:
            assert client.call('echo', 1).ok
        process.stop()
        process.join(10)
        assert not list(folder.iterdir())
    finally:
        shutil.rmtree(folder)


def test_the_umask_of_the_process_stays(start, tmp_path):
    class Umask(Echo):
        def umask(self, data):
            current = os.umask(0)
            os.umask(current)
            return [200, current]

    old = os.umask(0o027)
    try:
        process = start(f'ipc://{tmp_path}/s', type('H', (ZMQMessageHandler,), {'handler': Umask}))
        assert ZMQClient(process.endpoint).call('umask') == (200, 0o027)
    finally:
        os.umask(old)


def test_credentials_on_ipc(start, tmp_path):
    process = start(f'ipc://{tmp_path}/s', MarkingHandler, 'user:sesame')
    assert mark(process, tmp_path / 'right', 'user:sesame') == (200, True)
    assert mark(process, tmp_path / 'wrong', 'user:wrong') == (403, False)


def refused(start, path):
    process = start(f'ipc://{path}', wait=False)
    with pytest.raises(ProcessStartError) as error:
        process.wait_ready()
    assert error.value.exitcode == ExitCode.ADDRESS
    assert str(path) in str(error.value)


@pytest.mark.parametrize('kind', [sockets.SOCK_STREAM, sockets.SOCK_DGRAM, sockets.SOCK_SEQPACKET])
def test_a_socket_that_lives_stays(start, tmp_path, kind):
    """Whatever kind it is of: a system's log listens on one that is no stream."""
    path = tmp_path / 's'
    with sockets.socket(sockets.AF_UNIX, kind) as living:
        living.bind(os.fspath(path))
        if kind != sockets.SOCK_DGRAM:
            living.listen(1)
        inode = path.stat().st_ino
        refused(start, path)
        assert path.stat().st_ino == inode


def test_a_socket_whose_owner_is_busy_stays(start, tmp_path):
    """So busy that it accepts nobody more: it is asked, but not waited for."""
    path = tmp_path / 's'
    with sockets.socket(sockets.AF_UNIX) as living:
        living.bind(os.fspath(path))
        living.listen(0)
        waiting = []
        while True:
            waiting.append(sockets.socket(sockets.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(os.fspath(path))
            except BlockingIOError:
                break
        try:
            refused(start, path)
            assert path.exists()
        finally:
            for one in waiting:
                one.close()


def test_a_stale_socket_is_replaced(start, tmp_path):
    path = tmp_path / 's'
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    process = start(f'ipc://{path}')
    assert ZMQClient(process.endpoint).call('echo', 1) == (200, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_files_stay(start, tmp_path):
    folder, pipe, link = tmp_path / 'folder', tmp_path / 'pipe', tmp_path / 'link'
    folder.mkdir()
    os.mkfifo(pipe)
    (tmp_path / 'precious').write_text('precious')
    link.symlink_to(tmp_path / 'precious')
    for path in (folder, pipe, link):
        refused(start, path)
        assert path.exists()
    assert link.is_symlink()
    assert (tmp_path / 'precious').read_text() == 'precious'


def test_a_folder_that_is_not_there(start, tmp_path):
    refused(start, tmp_path / 'no' / 'such' / 's')
