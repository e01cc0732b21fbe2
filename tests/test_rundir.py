"""The private folder of a process, and the locks in it."""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pyams_zmq.exceptions import SettingError
from pyams_zmq.locks import FileLock
from pyams_zmq.rundir import RunDir


def test_its_key(tmp_path, monkeypatch):
    ini = tmp_path / 'app.ini'
    ini.touch()
    link = tmp_path / 'link.ini'
    link.symlink_to(ini)
    path = RunDir(str(ini), 'medias').path
    assert path.name.startswith('medias-')
    assert path.parent == Path(tempfile.gettempdir(), f'pyams_zmq-{os.getuid()}')
    assert RunDir(str(link), 'medias').path == path
    monkeypatch.chdir(tmp_path)
    assert RunDir('app.ini', 'medias').path == path
    others = {
        RunDir(str(ini), 'other').path,
        RunDir(f'{ini}#admin', 'medias').path,
        RunDir('myapp:factory', 'medias').path,
        RunDir(str(tmp_path / 'none.ini'), 'medias').path,
    }
    assert len(others | {path}) == 5
    assert RunDir(f'{link}#admin', 'medias').path in others


def test_it_is_private(tmp_path):
    folder = RunDir('a.ini', 'medias', str(tmp_path / 'a' / 'run'))
    old = os.umask(0)
    try:
        assert folder.make() is folder
    finally:
        os.umask(old)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.make().path == folder.path
    assert folder.socket.parent == folder.owner.parent == folder.users.parent == folder.path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, where everybody may write."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    return tmp_path / f'pyams_zmq-{os.getuid()}'


def test_somebody_else_has_made_the_folder(temporary, tmp_path):
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir(mode=0o700)
    temporary.symlink_to(elsewhere)
    with pytest.raises(SettingError, match=f'pyams_zmq.run_dir: this user owns no such folder: {temporary}$'):
        RunDir('a.ini', 'medias').make()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give a folder away')
def test_somebody_else_owns_the_folder(temporary):
    temporary.mkdir(mode=0o700)
    os.chown(temporary, 12345, 12345)
    with pytest.raises(SettingError, match='this user owns no such folder'):
        RunDir('a.ini', 'medias').make()


def test_others_may_enter(temporary):
    temporary.mkdir(mode=0o755)
    with pytest.raises(SettingError, match=r'others may enter it \(chmod 700\): '):
        RunDir('a.ini', 'medias').make()


def test_it_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SettingError, match='pyams_zmq.run_dir: Not a directory: .*file'):
        RunDir('a.ini', 'medias', str(tmp_path / 'file' / 'run')).make()


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give a folder away')
@pytest.mark.parametrize(('mode', 'made'), [(0o755, False), (0o1777, True)])
def test_a_client_does_not_make_what_is_another_users_to_make(tmp_path, mode, made):
    """As a health check of root's, before the first start, would; that start would fail then."""
    parent = tmp_path / 'run'
    parent.mkdir()
    os.chown(parent, 12345, 12345)
    parent.chmod(mode)
    folder = RunDir('a.ini', 'medias', str(parent))
    folder.claim()
    assert folder.path.exists() == made


def test_a_client_makes_the_folder_so_that_nobody_else_can(tmp_path, temporary):
    for folder in RunDir('a.ini', 'medias', str(tmp_path / 'none')), RunDir('a.ini', 'medias'):
        folder.claim()
        assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.path.chmod(0o755)
    with pytest.raises(SettingError, match='others may enter it'):
        folder.claim()


def test_the_path_of_the_socket_may_be_too_long(tmp_path):
    with pytest.raises(SettingError, match='too long for a socket; let pyams_zmq.run_dir be'):
        _ = RunDir('a.ini', 'medias', str(tmp_path / ('x' * 100))).socket


# Locks


def test_one_holds_it(tmp_path):
    path = tmp_path / 'lock'
    first = FileLock.take(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert FileLock.take(path) is None
    assert FileLock.take(path, shared=True) is None
    first.close()
    first.close()
    FileLock.take(path).close()


def test_several_share_it(tmp_path):
    path = tmp_path / 'lock'
    first = FileLock.take(path)
    first.share()
    second = FileLock.take(path, shared=True, wait=True)
    assert FileLock.take(path) is None
    first.close()
    assert FileLock.take(path) is None
    second.close()
    FileLock.take(path, wait=True).close()


def test_what_its_file_says(tmp_path):
    lock = FileLock.take(tmp_path / 'lock')
    assert lock.read() == ''
    lock.write('some text')
    lock.write('less')
    assert lock.read() == 'less'
    lock.close()
    (tmp_path / 'lock').write_bytes(b'\xff' * 5000)
    lock = FileLock.take(tmp_path / 'lock')
    assert len(lock.read()) == 4096
    lock.close()


def test_it_is_handed_over(tmp_path):
    """There is no moment at which nobody has it, and the giver does not keep it."""
    path = tmp_path / 'lock'
    lock = FileLock.take(path)
    code = (
        'import sys, subprocess\n'
        'from pyams_zmq.locks import FileLock\n'
        'lock = FileLock.adopt(int(sys.argv[1]))\n'
        'child = subprocess.Popen(["sleep", "60"])\n'
        'print(child.pid, flush=True)\n'
        'sys.stdin.read()'
    )
    with subprocess.Popen(
        [sys.executable, '-c', code, str(lock.fileno())],
        pass_fds=[lock.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        lock.close()
        grandchild = int(holder.stdout.readline())
        assert FileLock.take(path) is None
        holder.kill()
        holder.wait()
        # What the holder has executed goes on, and has no part of it.
        FileLock.take(path).close()
        os.kill(grandchild, 9)


def test_what_is_no_lock_cannot_be_taken_over():
    with pytest.raises(OSError):
        FileLock.adopt(9999)


def test_it_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileLock.take(tmp_path / 'none' / 'lock')


def test_an_interrupted_wait_leaves_nothing_open(tmp_path, monkeypatch):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, 'flock', interrupt)
    before = len(os.listdir('/dev/fd'))
    with pytest.raises(KeyboardInterrupt):
        FileLock.take(tmp_path / 'lock')
    assert len(os.listdir('/dev/fd')) == before


def test_a_forked_process_has_no_part_of_it(tmp_path):
    path = tmp_path / 'lock'
    lock = FileLock.take(path)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    lock.close()
    again = FileLock.take(path, wait=True)
    os.close(writer)
    os.waitpid(pid, 0)
    again.close()
