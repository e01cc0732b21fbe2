"""``pyams_zmq run``: a process in the foreground, with real signals."""

import os
import signal
import socket
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from pyams_zmq.exceptions import ExitCode
from pyams_zmq.locks import FileLock
from pyams_zmq.notify import notify
from pyams_zmq.scripts.run import _keep_new
from servers import Caller, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")


@pytest.fixture
def place(site):
    """A site whose processes the web server does not start, and what systemd hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:

        def make(factory='webapp:main', **settings):
            made = site(factory=factory, **{'medias.start': 'false', **settings})
            listener.bind(str(made.folder / 'notify'))
            listener.settimeout(30)
            made.listener = listener
            return made

        yield make


def run(place, source=None, name='medias', *options):
    """Run a process as systemd does."""
    environment = {'NOTIFY_SOCKET': str(place.folder / 'notify')}
    return place.popen('pyams_zmq', 'run', source or place.ini, name, *options, **environment)


def ready(place, *arguments):
    process = run(place, *arguments)
    assert place.listener.recv(100) == b'READY=1'
    return process


def test_run_under_systemd_for_a_web_server(place):
    medias = place()
    process = ready(medias)
    medias.pserve()
    assert medias.tell()['pid'] == process.pid
    release = medias.folder / 'release'
    with Caller(medias, '/medias/hold', str(release)) as caller:
        process.terminate()
        assert medias.listener.recv(100) == b'STOPPING=1'
        release.touch()
    assert caller.answer['body'] == 'held'
    assert process.wait(30) == ExitCode.OK
    assert medias.get('/medias/tell?timeout=0.5')['status'] == 503
    medias.end()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_application_is_built(place, number):
    medias = place('webapp:slow')
    process = run(medias)
    wait_for((medias.folder / 'mark').exists)
    process.send_signal(number)
    assert process.wait(30) == ExitCode.OK


def test_one_process_of_a_name(place):
    medias = place()
    process = ready(medias)
    assert run(medias).wait(30) == ExitCode.RUNNING
    assert 'medias runs already: its lock is ' in medias.output
    # The first one is not disturbed, and the lock is free when it is gone, however that was.
    medias.pserve()
    assert medias.tell()['pid'] == process.pid
    process.kill()
    process.wait(30)
    again = ready(medias)
    again.terminate()
    assert again.wait(30) == ExitCode.OK
    medias.end()


def test_the_address_is_busy(place):
    with socket.socket() as busy:
        busy.bind(('127.0.0.1', 0))
        busy.listen()
        medias = place(**{'medias.address': f'127.0.0.1:{busy.getsockname()[1]}'})
        assert run(medias).wait(30) == ExitCode.ADDRESS
    assert 'Address already in use' in medias.output


@pytest.mark.parametrize(
    ('factory', 'name', 'code', 'text'),
    [
        ('webapp:main', 'media', ExitCode.USAGE, "declares no process 'media'; the nearest is medias"),
        ('webapp:main', 'failing', ExitCode.SETUP, 'failing could not start: RuntimeError: no such disk'),
        ('webapp:broken', 'medias', ExitCode.SETUP, 'ZeroDivisionError: division by zero'),
        ('webapp:mistaken', 'medias', ExitCode.USAGE, "pyams_zmq: pyams_zmq.medias.workers: 'x' is not"),
    ],
)
def test_it_cannot_start(place, factory, name, code, text):
    medias = place(factory, processes='failing', **{'failing.delegate': 'webapp.Failing'})
    assert run(medias, None, name).wait(30) == code
    assert text in medias.output
    assert ('Traceback' in medias.output) == (code == ExitCode.SETUP)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({}, 'pyams_zmq: pyams_zmq.works: Work has jobs ('),
        ({'works.journal': ':memory:', 'works.executor': 'nothing.there:2'}, 'nothing.there'),
        ({'works.journal': '/dev/null'}, 'so others may change it'),
    ],
)
def test_a_setting_that_makes_no_sense_to_the_delegate(place, settings, text):
    """Some are found when the process is set up only."""
    medias = place(processes='works', **{'works.delegate': 'work.Work', **settings})
    assert run(medias, None, 'works').wait(30) == ExitCode.USAGE
    assert text in medias.output
    assert settings or 'Traceback' not in medias.output


@pytest.mark.parametrize('source', ['none.ini', 'nowhere:main', '--'])
def test_there_is_no_such_application(place, source):
    assert run(place(), source).wait(30) == ExitCode.USAGE


@pytest.mark.parametrize('fd', ['99', '-1', '9' * 30, 'x'])
def test_the_lock_is_none(place, fd):
    medias = place()
    assert run(medias, None, 'medias', f'--lock={fd}').wait(30) == ExitCode.USAGE
    assert '--lock' in medias.output


def test_what_handlers_leave_behind_is_cut_off_in_time(place):
    medias = place(**{'medias.stop_timeout': 1})
    process = ready(medias)
    medias.pserve()
    medias.get('/medias/linger')
    process.terminate()
    assert process.wait(30) == ExitCode.STOP_TIMEOUT
    medias.end()


def test_the_web_server_does_not_hear_of_codes_that_mean_something_to_it(place):
    """The code of a process of its own that cannot start."""
    medias = place(processes='failing', **{'failing.delegate': 'webapp.Failing'})
    lock = FileLock.take(medias.folder / 'lock')
    os.set_inheritable(lock.fileno(), True)
    process = medias.popen(
        'pyams_zmq', 'run', medias.ini, 'failing', '--lock', lock.fileno(), pass_fds=[lock.fileno()]
    )
    lock.close()
    assert process.wait(30) == ExitCode.ERROR


def test_its_lock_looks_new(tmp_path):
    """Again and again."""
    lock = FileLock.take(tmp_path / 'lock')
    os.utime(tmp_path / 'lock', (0, 0))
    calls = []
    _keep_new(lock, SimpleNamespace(call_later=lambda *call: calls.append(call)))
    assert (tmp_path / 'lock').stat().st_mtime > 0
    [(seconds, function, *_)] = calls
    assert (seconds, function) == (3600, _keep_new)
    lock.close()


@pytest.mark.skipif(sys.platform != 'linux', reason='systemd and abstract sockets are of Linux')
def test_systemd_listens_at_an_abstract_socket(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind('\0pyams_zmq-test')
        listener.settimeout(30)
        monkeypatch.setenv('NOTIFY_SOCKET', '@pyams_zmq-test')
        notify('READY=1')
        assert listener.recv(100) == b'READY=1'


def test_the_module_may_be_imported():
    assert import_module('pyams_zmq.__main__').main is import_module('pyams_zmq.scripts').main


def test_systemd_does_not_listen(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv('NOTIFY_SOCKET', raising=False)
    notify('READY=1')
    assert not caplog.records
    monkeypatch.setenv('NOTIFY_SOCKET', str(tmp_path / 'none'))
    notify('READY=1')
    assert 'systemd cannot be told READY=1: ' in caplog.text
