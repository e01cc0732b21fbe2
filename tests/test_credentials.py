"""Passwords and files of them: what is read, and what is refused with which words."""

import os
import socket as sockets
import traceback

import pytest

from pyams_zmq.client import ZMQClient
from pyams_zmq.credentials import read_passwords
from pyams_zmq.curve import _read_clients as read_clients
from pyams_zmq.curve import read_public
from pyams_zmq.declaration import Declaration
from pyams_zmq.exceptions import ExitCode, SettingError
from pyams_zmq.process import ZMQProcess
from pyams_zmq.scripts import main
from pyams_zmq.testing import running
from services import Echo, EchoHandler, Process

SECRET = 'topsecret'


@pytest.fixture
def write(tmp_path):
    """Write a file, for its owner alone."""

    def write(content, mode=0o600, name='passwords'):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return write


def test_a_file(write):
    path = write('# comment:x\n\nweb:pass:wörd\n   \n  # indented\ncron:#1\n')
    assert list(read_passwords(path).items()) == [('web', 'pass:wörd'), ('cron', '#1')]
    assert SECRET not in repr(read_passwords(write(f'web:{SECRET}')))


@pytest.mark.parametrize('content', [b'\xef\xbb\xbfweb:pw\r\n\r\n#x\r\nb:c\r\n', b'web:pw\nb:c'])
def test_files_of_other_editors(write, content):
    assert read_passwords(write(content)) == {'web': 'pw', 'b': 'c'}


def test_names_are_told_apart_byte_by_byte(write):
    """What looks alike is none the less another user."""
    path = write('\u00e9:composed\ne\u0301:decomposed\nE:upper\ne:lower')
    assert len(read_passwords(path)) == 4


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        (SECRET, 'is not user:password'),
        (f':{SECRET}', 'is not user:password'),
        (f'{SECRET}:', 'is not user:password'),
        (':', 'is not user:password'),
        (f'user:{SECRET} ', 'holds what cannot be seen'),
        (f' user:{SECRET}', 'holds what cannot be seen'),
        (f'user:{SECRET}\rroot:{SECRET}', 'holds what cannot be seen'),
        (f'user:{SECRET}\0', 'holds what cannot be seen'),
        (f'user:{SECRET}\u200b', 'holds what cannot be seen'),
        ('u' * 256 + f':{SECRET}', 'at most 255 bytes'),
        ('user:' + SECRET * 30, 'at most 255 bytes'),
        ('é' * 128 + f':{SECRET}', 'at most 255 bytes'),
        (f'web:{SECRET}', 'is about the same user as line 1'),
    ],
)
def test_a_bad_line_is_told_by_its_number(write, line, reason):
    path = write(f'web:{SECRET}\n#\n{line}\nother:{SECRET}')
    with pytest.raises(SettingError) as caught:
        read_passwords(path)
    text = ''.join(traceback.format_exception(caught.value))
    assert f'{path}, line 3' in text
    assert reason in text
    assert SECRET not in text


def test_the_longest_names(write):
    assert read_passwords(write('u' * 255 + ':' + 'p' * 255))


@pytest.mark.parametrize('content', ['', '\n', '# user:password\n'])
def test_a_file_that_names_nobody(write, content):
    with pytest.raises(SettingError, match='holds no user:password'):
        read_passwords(write(content))


@pytest.mark.parametrize('content', [b'user:\xff' + SECRET.encode(), 'user:é'.encode('utf-16')])
def test_what_is_no_text(write, content):
    with pytest.raises(SettingError) as caught:
        read_passwords(write(content))
    text = ''.join(traceback.format_exception(caught.value))
    assert 'is not written in UTF-8' in text
    assert SECRET not in text


def test_a_huge_file(write):
    with pytest.raises(SettingError, match='has more than 1048576 bytes'):
        read_passwords(write(b'u:p\n' * 300_000))


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o660, 0o602, 0o610, 0o644, 0o777])
def test_a_file_that_others_may_read(write, mode):
    path = write(f'user:{SECRET}', mode)
    with pytest.raises(SettingError) as caught:
        read_passwords(path)
    assert f'{path} has mode {mode:04o}' in str(caught.value)
    assert str(caught.value).endswith(f'chmod 600 {path}')


def test_the_mode_that_counts_is_the_one_of_the_file(write, tmp_path):
    """A link has none; who follows one gets what it leads to."""
    link = tmp_path / 'link'
    link.symlink_to(write('user:password', 0o400))
    assert read_passwords(link) == {'user': 'password'}
    (tmp_path / 'passwords').chmod(0o644)
    with pytest.raises(SettingError, match=f'chmod 600 {link}'):
        read_passwords(link)


def test_what_is_no_file(tmp_path):
    """Nor is any waited for."""
    os.mkfifo(tmp_path / 'pipe', 0o600)
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'dangling').symlink_to(tmp_path / 'nothing')
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    for name, reason in (
        ('pipe', 'is no file'),
        ('folder', 'cannot be read: Is a directory'),
        ('dangling', 'cannot be read: No such file'),
        ('loop', 'cannot be read: '),
        ('n' * 300, 'cannot be read: File name too long'),
    ):
        with pytest.raises(SettingError, match=f'{name} {reason}'):
            read_passwords(tmp_path / name)
    with pytest.raises(SettingError, match='is no file'):
        read_passwords('/dev/null')


@pytest.mark.parametrize('path', ['', 0, True, b'passwords', 'a\0b', '\ud800', ['a'], object()])
def test_what_is_no_path(path):
    with pytest.raises(SettingError, match='is no path of a file'):
        ZMQProcess('127.0.0.1', EchoHandler, auth_file=path)


# Keys of 40 characters, and what else is mistaken for the path of a file.
KEYS = ['Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID', 'D/)Q[ILCUQxkqn{M>8gK1s(qnUvf6QG$%kWD@x!a']


@pytest.mark.parametrize(
    'secret',
    [
        f'user:{SECRET}',
        f'us/er:{SECRET}/',
        f'user:{SECRET * 30}',
        f'# passwords\nuser {SECRET}\n',
        f'user:{SECRET}\0',
        f'user:{SECRET}'.encode(),
        {'user': SECRET},
        *KEYS,
        *(f' "{key}"' for key in KEYS),
        *(key.encode() for key in KEYS),
    ],
)
def test_a_secret_in_place_of_a_path_is_not_shown(secret):
    for make in (
        lambda: ZMQProcess('127.0.0.1', EchoHandler, auth_file=secret),
        lambda: ZMQProcess('127.0.0.1', EchoHandler, curve_secret_key=secret, curve_clients='.'),
        lambda: read_clients(secret),
        lambda: ZMQClient('127.0.0.1:9', curve=(secret, secret)),
    ):
        with pytest.raises(SettingError) as caught:
            make()
        text = str(caught.value)
        assert 'what is given' in text
        assert not [part for part in (SECRET, *KEYS) if part in text]


@pytest.mark.parametrize(
    'name', ['medias.key', 'k' * 39, '/srv/keys/medias_of_the_other_host.key', f'/no-such/{"k" * 40}.key']
)
def test_a_mistyped_path_is_shown(name):
    for read in read_passwords, read_public, read_clients:
        with pytest.raises(SettingError, match=f'^{name} cannot be read: No such file'):
            read(name)


def test_the_path_of_a_file_is_shown_whatever_it_looks_like(write):
    path = write(f'user:{SECRET}', 0o644, name='a:b')
    with pytest.raises(SettingError, match=f'^{path} has mode 0644'):
        read_passwords(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingError, match=f'^{path} cannot be read: Is a directory'):
        read_passwords(path)


# Several users


@pytest.mark.parametrize(
    'auth',
    [
        {},
        {'': SECRET},
        {'user': ''},
        {'user': None},
        {5: SECRET},
        {'user': 5},
        {'us:er': SECRET},
        {'user': SECRET * 30},
        {'good': SECRET, 'bad': ''},
        {'user': SECRET + '\ud800'},
        [('user', SECRET)],
        b'user:' + SECRET.encode(),
    ],
)
def test_what_is_no_mapping_of_users(auth):
    for make in (lambda: ZMQProcess('127.0.0.1', EchoHandler, auth), lambda: ZMQClient('127.0.0.1:9', auth)):
        with pytest.raises(ValueError) as caught:
            make()
        assert SECRET not in ''.join(traceback.format_exception(caught.value))


def statuses(process, *auths):
    found = []
    for auth in auths:
        with ZMQClient(process.endpoint, auth=auth, timeout=30) as client:
            found.append(client.call('echo', 1).status)
    return found


def test_several_users_of_a_mapping(start):
    process = start('127.0.0.1', EchoHandler, {'web': 'one', 'cron': 'two'})
    given = ['web:one', {'cron': 'two'}, 'web:two', 'cron:one', 'other:one', None]
    assert statuses(process, *given) == [200, 200, 403, 403, 403, 401]


class FromFile(Process):
    """Its class tells the file."""


class Configured(Process):
    """Its file is set before the start."""

    path = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.path is not None:
            self.configure(auth_file=self.path)


@pytest.mark.parametrize('way', ['keyword', 'attribute', 'configure'])
def test_several_users_of_a_file(start, write, way):
    path = write(f'web:{SECRET}\ncron:two')
    options = {'keyword': {}, 'attribute': {'auth_file': str(path)}, 'configure': {'path': path}}[way]
    process = start(
        cls=type('FromFile', (Configured,), options), **({'auth_file': path} if way == 'keyword' else {})
    )
    given = [f'web:{SECRET}', read_passwords(path), 'cron:two', f'cron:{SECRET}', None]
    assert statuses(process, *given) == [200, 200, 200, 403, 401]
    assert SECRET not in repr(vars(process))


def test_a_file_that_was_refused_changes_nothing(write):
    process = ZMQProcess('127.0.0.1', EchoHandler)
    with pytest.raises(SettingError, match='chmod 600'):
        process.configure(auth_file=write('web:one', 0o644))
    assert process.passwords is None
    assert process.auth_file is None


def test_either_a_file_or_the_text(write):
    with pytest.raises(SettingError, match='auth or auth_file, not both'):
        ZMQProcess('127.0.0.1', EchoHandler, 'user:password', auth_file=write('web:one'))


# Where settings tell of the file


@pytest.fixture
def declared(write):
    """A process whose settings tell of a file, and the file."""
    with sockets.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    path = write('web:one\ncron:two')
    settings = {'pyams_zmq.medias.address': address, 'pyams_zmq.medias.auth_file': f' {path} '}
    return Declaration('medias', settings, {'delegate': Echo}), path


def test_a_declared_process_and_its_client(declared):
    """The first user of the file is the application itself."""
    declaration, _ = declared
    process = declaration.make_process(None)
    assert process.passwords == {'web': 'one', 'cron': 'two'}
    with running(process) as client:
        assert client.call('echo', 1).ok
        assert declaration.client.call('echo', 1).ok
        declaration.client.close()


def test_a_declared_process_whose_file_is_refused(declared):
    declaration, path = declared
    path.chmod(0o644)
    for use in (lambda: declaration.make_process(None), lambda: declaration.client):
        with pytest.raises(SettingError, match=r'^pyams_zmq\.medias.*chmod 600'):
            use()


def test_either_a_setting_of_a_file_or_of_the_text():
    settings = {'pyams_zmq.medias.auth_file': 'file', 'pyams_zmq.medias.auth': 'user:password'}
    with pytest.raises(SettingError, match='pyams_zmq.medias: give only one of auth, auth_file'):
        Declaration('medias', settings)


def test_a_mapping_in_code():
    declaration = Declaration('medias', {}, {'delegate': Echo, 'auth': {'web': 'one'}, 'address': 'a:1'})
    assert declaration.make_process(None).passwords == {'web': 'one'}
    with pytest.raises(SettingError, match='^pyams_zmq.medias.auth: '):
        Declaration('medias', {}, {'auth': {'web': ''}})


def test_files_on_the_command_line(start, write, capsys):
    process = start(auth_file=write('web:one'))
    ping = ['ping', '--address', process.endpoint, '--timeout', '30', '--auth-file']
    assert main([*ping, str(write('web:one', name='own'))]) == ExitCode.OK
    assert main([*ping, str(write('web:two', name='own'))]) == ExitCode.ERROR
    assert ': 403 ' in capsys.readouterr().out
    assert main([*ping, str(write('web:two', 0o644, name='own'))]) == ExitCode.USAGE
    assert main(['ping', 'app.ini', '--auth-file', 'own']) == ExitCode.USAGE
    assert 'go with --address' in capsys.readouterr().err
