"""Keys: their files, the command that makes them, and who gets in with them."""

import json
import os
import stat
import traceback
from contextlib import suppress
from types import SimpleNamespace

import pytest
import zmq
import zmq.auth
from zmq.utils import z85

from chaos import zmtp
from pyams_zmq.client import ZMQClient
from pyams_zmq.curve import make_keys, read_client_keys, read_server_keys
from pyams_zmq.declaration import Declaration
from pyams_zmq.exceptions import ExitCode, SettingError
from pyams_zmq.process import ZMQProcess
from pyams_zmq.scripts import main
from pyams_zmq.socket import zmq_response, zmq_socket
from pyams_zmq.testing import running
from services import Echo, EchoHandler, Process


@pytest.fixture
def keys(tmp_path):
    """Keys of a process, of two clients that it lets in, and of others."""
    clients = tmp_path / 'clients'
    clients.mkdir(0o755)
    for path in tmp_path / 'medias', clients / 'web', clients / 'cron', tmp_path / 'other':
        make_keys(path)
    (clients / 'README').write_text('what is no key is none of our business')
    return SimpleNamespace(
        folder=tmp_path,
        clients=clients,
        secret=tmp_path / 'medias.key_secret',
        public=tmp_path / 'medias.key',
        web=clients / 'web.key_secret',
        cron=clients / 'cron.key_secret',
        other=tmp_path / 'other.key_secret',
        server={'curve_secret_key': tmp_path / 'medias.key_secret', 'curve_clients': clients},
    )


def reply(process, timeout=30, **options):
    with ZMQClient(process.endpoint, timeout=timeout, **options) as client:
        return client.call('echo', 1)


def test_who_gets_in(start, keys, log_file):
    process = start(**keys.server)
    for own in keys.web, keys.cron, str(keys.web):
        assert reply(process, curve=(keys.public, own)) == (200, 1)
    refused = reply(process, curve=(keys.public, keys.other))
    assert (refused.status, refused.delivered) == (403, False)
    assert reply(process).body == 'The process wants a key (curve)'
    assert reply(process, auth='web:web').status == 401
    wrong = reply(process, curve=(keys.folder / 'other.key', keys.web))
    assert wrong == (401, 'The process has another key than its public one given here')
    secrets = [
        line for path in (keys.secret, keys.web) for line in path.read_text().split('"') if len(line) == 40
    ]
    shown = (
        repr(process.curve_keys)
        + repr(vars(process))
        + log_file.read_text()
        + repr(read_client_keys((keys.public, keys.web)))
    )
    assert len(secrets) == 4
    assert [secret in shown for secret in secrets] == [True, False, True, False]


def test_the_classic_helpers(start, keys):
    process = start(**keys.server)
    for own, expected in ((keys.web, [200, 1]), (keys.other, [503, 'Connection timeout'])):
        with zmq_socket(process.endpoint, curve=(keys.public, own)) as socket:
            socket.send_json(['echo', 1])
            assert zmq_response(socket, timeout=30 if own == keys.web else 0.3) == expected


def test_the_list_of_clients_counts_as_well(start, keys):
    process = start(clients='192.0.2.1', **keys.server)
    assert reply(process, curve=(keys.public, keys.web)).status == 403


def test_a_single_client(start, keys):
    process = start(curve_secret_key=keys.secret, curve_clients=keys.clients / 'web.key')
    assert reply(process, curve=(keys.public, keys.web)).ok
    assert reply(process, curve=(keys.public, keys.cron)).status == 403


class Spawned(Process):
    start_method = 'spawn'


def test_a_spawned_process(start, keys):
    process = start(cls=Spawned, wait=False, **keys.server)
    process.endpoint = process.wait_ready(60)
    assert reply(process, curve=(keys.public, keys.web)).ok
    assert reply(process, curve=(keys.public, keys.other)).status == 403


def test_class_attributes(start, keys):
    process = start(cls=type('Keyed', (Process,), keys.server))
    assert reply(process, curve=(keys.public, keys.web)).ok
    assert reply(process).status == 401


def test_keys_on_ipc(start, keys, tmp_path):
    process = start(f'ipc://{tmp_path}/s', **keys.server)
    assert reply(process, curve=(keys.public, keys.web)).ok
    assert reply(process, curve=(keys.public, keys.other)).status == 403


def test_keys_that_pyzmq_makes_and_reads(keys, tmp_path):
    public, secret = zmq.auth.create_certificates(tmp_path, 'theirs', {'email': 'a = "b"'})
    with pytest.raises(SettingError, match='mode 0644, so others may read it: chmod 600'):
        read_client_keys((public, secret))
    os.chmod(secret, 0o600)
    theirs = zmq.auth.load_certificate(secret)
    assert tuple(read_client_keys((public, secret)).pair) == theirs
    ours = read_client_keys((keys.public, keys.web))
    assert zmq.auth.load_certificate(keys.web) == tuple(ours.pair)
    assert zmq.auth.load_certificate(keys.public) == (ours.server, None)
    assert len(zmq.auth.load_certificates(keys.clients)) == 2


def test_a_secret_key_alone(keys):
    pair = read_client_keys((keys.public, keys.web)).pair
    keys.web.write_bytes(b'curve\r\n\tsecret-key=%s\r\n' % pair.secret)
    assert read_client_keys((keys.public, keys.web)).pair == pair


# What is refused


def told(keys, **options):
    """Make a process; the error that it raises, without any secret."""
    with pytest.raises(SettingError) as caught:
        ZMQProcess('127.0.0.1', EchoHandler, **{**keys.server, **options})
    text = ''.join(traceback.format_exception(caught.value))
    assert SECRET.decode() not in text
    return str(caught.value)


PUBLIC, SECRET = zmq.curve_keypair()
ANOTHER = zmq.curve_keypair()[0]


def test_half_of_what_is_needed(keys):
    for option, path in keys.server.items():
        with pytest.raises(SettingError, match='curve_secret_key and curve_clients go together'):
            ZMQProcess('127.0.0.1', EchoHandler, **{option: path})


@pytest.mark.parametrize(
    ('lines', 'reason'),
    [
        ([], 'holds no secret key'),
        ([b'public-key = "%s"' % PUBLIC], 'holds no secret key: give the file that ends in .key_secret'),
        ([b'# secret-key = "%s"' % SECRET], 'holds no secret key'),
        ([b'secret-key'], 'line 1 is no secret key'),
        ([b'secret-key = ""'], 'line 1 is no secret key'),
        ([b'#', b'secret-key = "%s"' % SECRET[:-1]], 'line 2 is no secret key'),
        ([b'secret-key = "%s0"' % SECRET], 'line 1 is no secret key'),
        ([b'secret-key = "%s\\"' % SECRET[:-1]], 'line 1 is no secret key'),
        ([b'secret-key = "%s"' % (b'#' * 40)], 'line 1 is no secret key'),
        ([b'secret-key = "%s"' % b'\xc3\xa9' * 20], 'line 1 is no secret key'),
        ([b'secret-key = %s' % SECRET] * 2, 'line 2 is a second secret key'),
        ([b'public-key = %s' % ANOTHER, b'secret-key = %s' % SECRET], 'do not belong together'),
        ([b'\xff'], 'is not written in UTF-8'),
    ],
)
def test_secret_keys_that_are_none(keys, lines, reason):
    keys.secret.write_bytes(b'\n'.join(lines))
    text = told(keys)
    assert str(keys.secret) in text
    assert reason in text


def test_a_public_key_where_a_secret_one_is_wanted(keys):
    assert f'{keys.public} holds no secret key' in told(keys, curve_secret_key=keys.public)


def test_a_secret_key_where_a_public_one_is_wanted(keys):
    assert f'{keys.web} holds a secret key: a public one is wanted' in told(keys, curve_clients=keys.web)
    with pytest.raises(SettingError, match='holds a secret key'):
        ZMQClient('127.0.0.1:9', curve=(keys.secret, keys.web))
    (keys.clients / 'copied.key').write_bytes(keys.other.read_bytes())
    assert 'copied.key holds a secret key' in told(keys)


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o620])
def test_a_secret_key_that_others_may_read(keys, mode):
    keys.secret.chmod(mode)
    assert told(keys).endswith(f'has mode {mode:04o}, so others may read it: chmod 600 {keys.secret}')


@pytest.mark.parametrize('name', ['clients', 'clients/web.key'])
@pytest.mark.parametrize('mode', [0o777, 0o775, 0o722])
def test_public_keys_that_others_may_change(keys, name, mode):
    path = keys.folder / name
    path.chmod(mode)
    assert told(keys).endswith(f'has mode {mode:04o}, so others may change it: chmod go-w {path}')


def test_nobody_could_get_in(keys):
    empty = keys.folder / 'empty'
    empty.mkdir(0o700)
    (empty / '.#web.key').symlink_to('editor')
    (empty / 'web.key_secret').write_bytes(keys.web.read_bytes())
    assert f'{empty} holds no key of a client' in told(keys, curve_clients=empty)
    assert 'no-such cannot be read: No such file' in told(keys, curve_clients=keys.folder / 'no-such')


def test_each_key_of_a_folder_counts(keys):
    """One that is skipped would be a client who wonders."""
    for make, reason in (
        (lambda path: path.write_text('curve\n'), 'holds no key'),
        (lambda path: path.mkdir(), 'cannot be read: Is a directory'),
        (os.mkfifo, 'is no file'),
        (lambda path: path.symlink_to('nothing'), 'cannot be read: No such file'),
        (
            lambda path: path.write_bytes((keys.clients / 'web.key').read_bytes()),
            'holds the same key as web.key',
        ),
    ):
        path = keys.clients / 'xx.key'
        make(path)
        assert f'{path} {reason}' in told(keys)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_names_that_are_no_text(keys):
    path = os.fsencode(keys.clients) + b'/\xff.key'
    with open(path, 'wb') as file:
        file.write((keys.folder / 'other.key').read_bytes())
    assert 'the name of a client is text that can be shown' in told(keys)


def test_one_mechanism(keys):
    assert 'give auth or keys (curve_secret_key), not both' in told(keys, auth='user:password')
    with pytest.raises(SettingError, match='give auth or curve, not both'):
        ZMQClient('127.0.0.1:9', auth='user:password', curve=(keys.public, keys.web))
    with pytest.raises(SettingError, match='give auth or curve, not both'):
        zmq_socket('127.0.0.1:9', auth='user:password', curve=(keys.public, keys.web))


@pytest.mark.parametrize('curve', ['', 'ab', b'ab', (), ('a',), ('a', 'b', 'c'), 5, True, {'a': 'b'}])
def test_what_is_no_pair(curve):
    with pytest.raises(SettingError, match='curve is a pair'):
        ZMQClient('127.0.0.1:9', curve=curve)


def test_a_pair_the_wrong_way_round(keys):
    with pytest.raises(SettingError, match='holds a secret key: a public one is wanted'):
        ZMQClient('127.0.0.1:9', curve=(keys.web, keys.public))


def test_a_libzmq_without_curve(keys, monkeypatch):
    monkeypatch.setattr(zmq, 'has', lambda feature: feature != 'curve')
    assert 'was built without CURVE' in told(keys)
    for use in (lambda: read_client_keys((keys.public, keys.web)), lambda: make_keys(keys.folder / 'new')):
        with pytest.raises(SettingError, match='was built without CURVE'):
            use()
    assert read_server_keys(None, None) is None


# Keys that no honest peer has

#: Points of small order: with them each shared secret is known beforehand.
WEAK = [
    bytes(32),
    b'\1' + bytes(31),
    bytes.fromhex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
    bytes.fromhex('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
]


@pytest.mark.parametrize('size', [200, 199, 10])
@pytest.mark.parametrize('name', [b'HELLO', b'WELCOME', b'INITIATE', b'READY', b'MESSAGE', b'ERROR'])
def test_words_that_open_no_door(start, keys, name, size):
    process = start(**keys.server)
    for key in [*WEAK, os.urandom(32)]:
        # https://rfc.zeromq.org/spec/26/: version, filler, the client's key, a counter, and a box.
        body = bytes([len(name)]) + name + b'\1\0' + bytes(72) + key + (1).to_bytes(8, 'big') + os.urandom(80)
        with zmtp.dial(process) as connection, suppress(ConnectionError):
            connection.sendall(zmtp.greeting(b'CURVE'))
            zmtp.receive(connection, 64)
            connection.sendall(zmtp.header(size, flags=4) + body[:size].ljust(size, b'x'))
            assert connection.recv(100) == b''
    assert reply(process, curve=(keys.public, keys.web)).ok


def test_a_weak_key_for_the_process_s(start, keys):
    process = start(**keys.server)
    for key in WEAK:
        keys.public.write_bytes(b'public-key = %s' % z85.encode(key))
        assert reply(process, curve=(keys.public, keys.web)).status == 401


# Where settings tell of the keys


def declare(keys, port=9, **options):
    paths = {'curve_secret_key': keys.secret, 'curve_clients': keys.clients, 'curve_key': keys.web, **options}
    settings = {f'pyams_zmq.medias.{name}': str(path) for name, path in paths.items() if path}
    settings['pyams_zmq.medias.address'] = f'127.0.0.1:{port}'
    settings['pyams_zmq.ini'] = 'app.ini'
    return Declaration('medias', settings, {'delegate': Echo})


@pytest.fixture
def port():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        return socket.bind_to_random_port('tcp://127.0.0.1')


def test_a_declared_process_and_its_client(keys, port):
    """Who has the secret key of the process knows its public one."""
    declaration = declare(keys, port)
    with running(declaration.make_process(None)) as client:
        assert client.call('echo', 1).ok
        assert declaration.client.call('echo', 1).ok
        declaration.client.close()
        elsewhere = declare(
            keys, port, curve_secret_key=None, curve_clients=None, curve_server_key=keys.public
        )
        assert elsewhere.client.call('echo', 1).ok
        elsewhere.client.close()


@pytest.mark.parametrize(
    'options',
    [
        {'curve_key': None},
        {'curve_secret_key': None, 'curve_clients': None},
        {'curve_secret_key': None, 'curve_clients': None, 'curve_key': None, 'curve_server_key': 'a'},
    ],
)
def test_a_client_that_lacks_a_key(keys, options):
    with pytest.raises(SettingError, match='^pyams_zmq.medias: clients need curve_key'):
        declare(keys, **options).client  # noqa: B018


def test_a_declared_process_whose_keys_are_refused(keys):
    declaration = declare(keys)
    keys.secret.chmod(0o644)
    for use in (lambda: declaration.make_process(None), lambda: declaration.client):
        with pytest.raises(SettingError, match=r'^pyams_zmq\.medias: .*chmod 600'):
            use()


@pytest.mark.parametrize('missing', ['curve_secret_key', 'curve_clients'])
def test_a_process_that_lacks_a_key_is_told_of_before_it_is_started(keys, missing):
    declaration = declare(keys, **{missing: None, 'curve_server_key': keys.public})
    with pytest.raises(
        SettingError, match='^pyams_zmq.medias: curve_secret_key and curve_clients go together'
    ):
        declaration.supervise()


@pytest.mark.parametrize('option', ['auth', 'auth_file'])
def test_one_mechanism_in_settings(keys, option):
    with pytest.raises(SettingError, match=f'pyams_zmq.medias: give only one of {option}, curve_secret_key'):
        declare(keys, **{option: 'user:password'})


# The command line


def test_the_command_line(start, keys, capsys):
    process = start(**keys.server)
    ping = ['ping', '--address', process.endpoint, '--timeout', '30']
    own, server = ['--curve-key', str(keys.web)], ['--curve-server-key', str(keys.public)]
    assert main([*ping, *own, *server]) == ExitCode.OK
    assert main([*ping]) == ExitCode.ERROR
    assert 'The process wants a key (curve)' in capsys.readouterr().out
    for words, text in (
        ([*ping, *own], '--curve-server-key and --curve-key go together'),
        ([*ping, *own, '--curve-server-key', str(keys.web)], 'holds a secret key'),
        (['ping', 'app.ini', *own, *server], 'go with --address'),
    ):
        assert main(words) == ExitCode.USAGE
        assert text in capsys.readouterr().err


@pytest.fixture
def umask():
    old = os.umask(0)
    yield os.umask
    os.umask(old)


@pytest.mark.parametrize('mask', [0, 0o022, 0o077])
def test_keys_are_made(tmp_path, capsys, umask, mask):
    umask(mask)
    path = tmp_path / 'web'
    assert main(['keys', str(path)]) == ExitCode.OK
    output = capsys.readouterr().out
    public, secret = tmp_path / 'web.key', tmp_path / 'web.key_secret'
    assert [stat.S_IMODE(file.stat().st_mode) for file in (public, secret)] == [0o644, 0o600]
    keys = zmq.auth.load_certificate(secret)
    assert zmq.curve_public(keys[1]) == keys[0] == zmq.auth.load_certificate(public)[0]
    assert f'curve_secret_key = {secret}' in output
    assert keys[1].decode() not in output
    assert sorted(os.listdir(tmp_path)) == ['web.key', 'web.key_secret']


def test_keys_for_scripts(tmp_path, capsys):
    assert main(['keys', str(tmp_path / 'web'), '--json']) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {'public', 'secret', 'public_key'}
    assert told['public_key'].encode() == zmq.auth.load_certificate(told['public'])[0]
    assert len(z85.decode(told['public_key'])) == 32


@pytest.mark.parametrize('taken', ['web.key', 'web.key_secret'])
@pytest.mark.parametrize('kind', ['file', 'dangling link', 'folder'])
def test_nothing_is_overwritten(tmp_path, capsys, taken, kind):
    path = tmp_path / taken
    if kind == 'file':
        path.write_text('precious')
    elif kind == 'folder':
        path.mkdir()
    else:
        path.symlink_to(tmp_path / 'elsewhere')
    assert main(['keys', str(tmp_path / 'web')]) == ExitCode.USAGE
    assert capsys.readouterr().err == f'pyams_zmq: {path} cannot be made: File exists\n'
    assert os.listdir(tmp_path) == [taken]


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('', 'ends in no name of a key'),
        ('.web', 'ends in no name of a key'),
        ('web.key', 'ends in no name of a key'),
        ('web.key_secret', 'ends in no name of a key'),
        ('no/such/folder/web', 'cannot be made: No such file or directory'),
        ('w' * 256, 'File name too long'),
        ('web\nroot', 'the name of a client is text that can be shown'),
        ('web\udcff', 'the name of a client is text that can be shown'),
    ],
)
def test_names_of_keys_that_are_none(tmp_path, capsys, name, reason):
    assert main(['keys', f'{tmp_path}/{name}']) == ExitCode.USAGE
    assert reason in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


# What is exposed


@pytest.mark.parametrize(
    ('address', 'warned'),
    [
        ('127.0.0.1', False),
        ('[::1]', False),
        ('localhost', False),
        ('*', True),
        ('[::]', True),
        ('0.0.0.0', True),
    ],
)
def test_passwords_in_clear_text_are_warned_of(start, log_file, address, warned):
    start(address, auth='user:topsecret')
    text = log_file.read_text()
    assert ('whoever is on the way there can read them' in text) == warned
    assert 'topsecret' not in text


def test_what_is_not_warned_of(start, keys, log_file, tmp_path):
    start('*', **keys.server)
    start('*', clients='10.0.0.1')
    start(f'ipc://{tmp_path}/s', auth='user:password')
    start('127.0.0.1')
    text = log_file.read_text()
    assert 'whoever is on the way' not in text
    assert 'lets everybody in' not in text


def test_a_door_that_stands_open_to_other_hosts_is_warned_of(start, log_file):
    process = start('*')
    assert f'{process.name} lets everybody in who reaches tcp://0.0.0.0:' in log_file.read_text()
