"""One process for each name, however many web workers there are: real servers."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from pyams_zmq.locks import FileLock
from servers import TESTS, Caller, alive, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")


@pytest.mark.parametrize('options', [(), ('--preload',)], ids=['', 'preload'])
@pytest.mark.parametrize('kind', ['sync', pytest.param('gthread', marks=pytest.mark.slow)])
def test_gunicorn_recycles_its_workers(site, kind, options):
    server = site().gunicorn('--workers=4', f'--worker-class={kind}', '--max-requests=20', *options)
    answers = server.load(150)
    assert {answer['status'] for answer in answers} == {200}
    assert sorted(answer['body']['data'] for answer in answers) == list(range(150))
    assert len({answer['worker'] for answer in answers}) > 4
    assert len({answer['body']['pid'] for answer in answers}) == 1
    [process] = server.processes()
    # Its own session, and none of the web server's descriptors.
    assert os.getsid(process.pid) == process.pid
    assert server.end() == 0


def test_a_single_worker_is_recycled(site):
    """There is no worker at all for a while, and the process waits for the next."""
    server = site().gunicorn('--workers=1', '--max-requests=10')
    answers = server.load(40)
    assert {answer['status'] for answer in answers} == {200}
    assert len({answer['worker'] for answer in answers}) >= 4
    assert len({answer['body']['pid'] for answer in answers}) == 1
    assert server.end() == 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_waitress(site, number):
    server = site().pserve()
    assert server.processes() == []
    server.get()
    wait_for(server.processes)
    pid = server.tell()['pid']
    assert [process.pid for process in server.processes()] == [pid]
    server.end(number)


def test_no_workers_exit_is_held_up(site):
    """Also where a method of the process takes long: the process ends when that has ended."""
    server = site().pserve()
    server.tell()
    [process] = server.processes()
    release = server.folder / 'release'
    with Caller(server, '/medias/hold', str(release)):
        server.server.terminate()
        server.server.wait(30)
        assert alive(process)
        release.touch()
    wait_for(lambda: not server.processes(), log=server.log)


def test_a_process_that_crashed_is_started_again(site):
    server = site().gunicorn('--workers=2')
    first = server.tell()['pid']
    assert server.get('/medias/crash')['status'] == 504
    server.renewed(first)
    server.logged('medias has crashed, and is started again')
    assert server.end() == 0


def test_a_process_that_was_asked_to_end_is_started_again(site):
    """So it can be renewed, without the web server."""
    server = site(**{'medias.max_crashes': 1}).gunicorn('--workers=2')
    first = server.tell()['pid']
    os.kill(first, signal.SIGTERM)
    server.renewed(first)
    assert server.end() == 0


def test_a_process_that_crashes_again_and_again_is_given_up(site):
    settings = {'processes': 'failing', 'failing.delegate': 'webapp.Failing', 'failing.max_crashes': 2}
    server = site(**settings).gunicorn()
    server.get()
    server.logged('failing has crashed 2 times in a row')
    answer = server.get('/failing/anything')
    assert answer['status'] == 503
    assert answer['body'].startswith('failing has crashed 2 times in a row')
    assert server.output.count('could not start: RuntimeError: no such disk') == 2
    assert server.tell()
    assert server.end() == 0


def test_a_worker_that_cannot_start_it_says_so(site):
    settings = {'medias.address': '127.0.0.1:9', 'run_dir': '/dev/null/run'}
    server = site(**settings).gunicorn()
    server.get()
    server.logged('medias cannot be started')
    answer = server.get('/medias/tell')
    assert answer['status'] == 503
    assert answer['body'].startswith('medias cannot be started: pyams_zmq.run_dir: Not a directory: ')
    assert server.end() == 0


@pytest.mark.skipif(not hasattr(psutil, 'RLIMIT_NOFILE'), reason='limits of other processes are of Linux')
def test_descriptors_are_short_for_a_while(site):
    """Neither worker nor process stops looking after the other."""
    server = site().pserve()
    first = server.tell()['pid']
    worker = server.get()['worker']
    for pid, line in (
        (worker, 'medias cannot be started, or'),
        (first, 'It cannot be seen whether there are'),
    ):
        limited = psutil.Process(pid)
        limits = limited.rlimit(psutil.RLIMIT_NOFILE)
        limited.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
        server.logged(line)
        limited.rlimit(psutil.RLIMIT_NOFILE, limits)
    assert server.tell()['pid'] == first
    os.kill(first, signal.SIGTERM)
    server.renewed(first)
    server.end()


@pytest.mark.slow
@pytest.mark.parametrize('what', ['owner', 'users', 'socket', '.'])
def test_files_of_the_process_are_removed(site, what):
    """As they may be in a folder for temporary files."""
    server = site().gunicorn('--workers=2')
    first = server.tell()['pid']
    [folder] = (server.folder / 'run').iterdir()
    if what == '.':
        shutil.rmtree(folder)
    else:
        (folder / what).unlink()
    if what == 'users':
        wait_for((folder / what).exists)
        assert server.tell()['pid'] == first
    else:
        server.renewed(first)
    wait_for(lambda: len(server.processes()) == 1)
    assert server.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize('what', ['address', 'journal'])
def test_what_the_process_needs_is_in_use(site, what):
    """By a process of an earlier release, for example, which has jobs to end."""
    with socket.socket() as busy:
        busy.bind(('127.0.0.1', 0))
        busy.listen()
        place = site()
        journal = place.folder / 'jobs'
        value = f'127.0.0.1:{busy.getsockname()[1]}' if what == 'address' else journal
        lock = FileLock.take(place.folder / 'jobs.lock')
        server = site(**{'medias.max_crashes': 1, f'medias.{what}': value}).gunicorn()
        server.get()
        server.logged('medias has found what it needs in use, and is started again in 2 s')
    lock.close()
    wait_for(lambda: server.get('/medias/tell')['status'] == 200, log=server.log)
    assert server.end() == 0


def test_start_with_the_application(site):
    """In the master, where that builds the application for its workers."""
    server = site(**{'medias.start': 'app'}).gunicorn('--workers=2', '--preload')
    [process] = wait_for(server.processes)
    assert server.tell()['pid'] == process.pid
    process.kill()
    server.renewed(process.pid)
    assert server.end() == 0


def test_an_application_without_an_ini_file(site):
    server = site()
    server.serve('gunicorn', '--bind=127.0.0.1:0', 'webapp:without_ini()')
    assert server.tell(1)['data'] == 1
    assert len(server.processes()) == 1
    assert server.end() == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason='Python has had an option for it since 3.11')
def test_modules_of_the_working_directory_are_not_looked_for(site):
    """Where the web worker does not look for them either."""
    place = site()
    stray = place.folder / 'stray'
    stray.mkdir()
    (stray / 'queue.py').write_text('raise SystemExit("this is not the one of the standard library")')
    worker = place.folder / 'worker.py'
    worker.write_text(
        'from pyramid.paster import bootstrap\n'
        f'with bootstrap({str(place.ini)!r}) as environment:\n'
        '    print(*environment["request"].zmq("medias").call("tell", timeout=30))\n'
    )
    done = subprocess.run(
        [sys.executable, worker],
        cwd=stray,
        env={**os.environ, 'PYTHONPATH': str(TESTS), 'TMPDIR': str(place.folder)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith('200 '), done.stderr
    pid = int(re.search("'pid': ([0-9]+)", done.stdout)[1])
    wait_for(lambda: not any(one.pid == pid and alive(one) for one in psutil.process_iter()))


def test_a_reloaded_server_has_a_process_with_the_new_code(site):
    server = site(processes='fresh', **{'fresh.delegate': 'fresh.Delegate'})
    module = server.folder / 'fresh.py'
    code = 'class Delegate:\n    def version(self, data):\n        return [200, {}]\n'
    module.write_text(code.format(1))
    server.pserve('--reload')
    assert server.get('/fresh/version')['body'] == 1

    def changed():
        # More than once: it may be that it is not watched yet. Once it is seen, no more, or it never ends.
        (server.folder / 'new').write_text(code.format('"two"'))
        (server.folder / 'new').replace(module)
        return 'fresh.py changed' in server.output

    def renewed():
        with suppress(OSError):
            server.url = server.output.rpartition('Serving on ')[2].split()[0]
            return server.get('/fresh/version')['body'] == 'two'

    wait_for(changed, log=server.log)
    wait_for(renewed, log=server.log)
    server.end()


@pytest.mark.parametrize(
    'command', [['pshell'], ['proutes'], ['pviews', '/'], ['ptweens']], ids=lambda command: command[0]
)
def test_other_commands_start_nothing(site, command):
    place = site()
    name, *arguments = command
    assert place.popen(f'pyramid.scripts.{name}', place.ini, *arguments).wait(30) == 0, place.output
    assert not (place.folder / 'run').exists()
    assert place.processes() == []
