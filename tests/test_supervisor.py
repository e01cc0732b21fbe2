"""How a process waits for the end of the web workers that use it; see test_servers.py for all the rest."""

import errno
import math
import os
import sys
import threading

import pytest

from pyams_zmq.locks import FileLock
from pyams_zmq.rundir import RunDir
from pyams_zmq.supervisor import Supervisor, found_in_use, wait_for_end_of_users

FOREVER = 3600.0


@pytest.fixture
def run_dir(tmp_path):
    return RunDir('app.ini', 'medias', str(tmp_path)).make()


@pytest.fixture
def worker(run_dir):
    """A worker that uses the process, of the process group given."""
    locks = []

    def join(group):
        lock = FileLock.take(run_dir.users, shared=True, wait=True)
        lock.write(group)
        locks.append(lock)
        return lock

    yield join
    for lock in locks:
        lock.close()


@pytest.fixture
def waiting(run_dir):
    """A thread that waits for the end of the users."""

    def wait(grace):
        thread = threading.Thread(target=wait_for_end_of_users, args=[run_dir, grace], daemon=True)
        thread.start()
        return thread

    return wait


@pytest.mark.parametrize('group', ['', '0x', str(2**22 + 1)], ids=['none', 'no number', 'gone'])
def test_no_successor_is_expected(worker, waiting, group):
    first, second = worker(group), worker(group)
    thread = waiting(FOREVER)
    first.close()
    thread.join(0.2)
    assert thread.is_alive()
    second.close()
    thread.join(30)
    assert not thread.is_alive()


def test_a_successor_is_waited_for(worker, waiting):
    group = str(os.getpgrp())
    worker(group).close()
    thread = waiting(FOREVER)
    for _ in range(2):
        thread.join(0.2)
        assert thread.is_alive()
        one = worker(group)
        thread.join(0.2)
        one.close()
    # The last one is of a server that has ended.
    worker('').close()
    thread.join(30)
    assert not thread.is_alive()


def test_it_is_waited_for_no_longer_than_grace(worker, waiting):
    worker(str(os.getpgrp())).close()
    thread = waiting(0.3)
    thread.join(30)
    assert not thread.is_alive()


def test_the_group_may_be_another_users(worker, waiting, monkeypatch):
    def refuse(_group, _number):
        raise PermissionError

    monkeypatch.setattr(os, 'killpg', refuse)
    worker('1').close()
    thread = waiting(0.3)
    thread.join(0.1)
    assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()


def test_the_file_of_the_users_may_be_missing(run_dir, waiting):
    """Workers make it anew."""
    thread = waiting(FOREVER)
    thread.join(0.2)
    assert thread.is_alive()
    assert not run_dir.users.exists()
    FileLock.take(run_dir.users).close()
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def supervise(run_dir, monkeypatch):
    """A supervisor whose turns the test takes, instead of a thread."""
    monkeypatch.setattr('pyams_zmq.supervisor._BACK_OFF', 0.001)
    made = []

    def make(*command, max_crashes=5):
        made.append(Supervisor('medias', run_dir, command, max_crashes))
        return made[-1]

    yield make
    for one in made:
        if one._users is not None:
            one._users.close()


def turn(supervisor, times=1):
    for _ in range(times):
        supervisor._turn()
        if supervisor._child is not None:
            supervisor._child.wait(30)


def test_it_crashes_too_often(supervise, monkeypatch, caplog):
    """It is tried again, but not soon."""
    supervisor = supervise('false', max_crashes=2)
    turn(supervisor, 5)
    assert supervisor.problem.startswith(
        'medias has crashed 2 times in a row, and is not started again before'
    )
    levels = [record.levelname for record in caplog.records]
    assert (levels.count('CRITICAL'), levels.count('ERROR')) == (1, 2)
    with monkeypatch.context() as later:
        later.setattr('pyams_zmq.supervisor._LONG_PAUSE', 0)
        turn(supervisor)
    assert supervisor.problem is None
    turn(supervisor, 3)
    assert supervisor.problem.startswith('medias has crashed 3 times in a row')
    levels = [record.levelname for record in caplog.records]
    assert (levels.count('CRITICAL'), levels.count('ERROR')) == (2, 3)


def test_it_is_left_alone_for_as_long_by_all_workers(supervise, run_dir, monkeypatch):
    first, second = supervise('false', max_crashes=1), supervise('false', max_crashes=1)
    turn(first, 2)
    text = run_dir.owner.read_text()
    turn(second)
    assert second.problem == first.problem
    assert second._child is None
    assert run_dir.owner.read_text() == text


def test_what_it_needs_has_been_in_use_for_hours(supervise, run_dir, monkeypatch):
    monkeypatch.setattr('pyams_zmq.supervisor._LONGEST_BACK_OFF', 0.001)
    other = FileLock.take(run_dir.users, shared=True)
    run_dir.owner.write_text('{"crashes": 0, "busy": 5000}')
    supervisor = supervise('true')
    turn(supervisor)
    assert supervisor._child is not None
    other.close()


def test_a_worker_that_cannot_join_keeps_nothing_open(supervise, run_dir, monkeypatch):
    def refuse(_lock, _text):
        raise OSError(errno.ENOSPC, 'No space left on device')

    supervisor = supervise('true')
    with monkeypatch.context() as full:
        full.setattr(FileLock, 'write', refuse)
        with pytest.raises(OSError, match='No space left'):
            supervisor._turn()
    FileLock.take(run_dir.users).close()
    turn(supervisor)
    assert supervisor._child is not None


@pytest.mark.parametrize('text', ['', 'x', '[]', '{}', '{"crashes": "x"}', '{"crashes": 9, "again": 1e400}'])
def test_what_the_file_says_makes_no_sense(supervise, run_dir, text):
    other = FileLock.take(run_dir.users, shared=True)
    run_dir.owner.write_text(text)
    supervisor = supervise('true')
    turn(supervisor)
    assert supervisor._child is not None
    other.close()


def test_what_it_needs_is_in_use(supervise, run_dir):
    """That is no crash, however often it is so."""
    supervisor = supervise('false', max_crashes=1)
    for count in range(1, 4):
        supervisor._turn()
        supervisor._child.wait(30)
        owner = FileLock.take(run_dir.owner)
        found_in_use(owner)
        assert f'"busy": {count}' in owner.read()
        owner.close()
        assert supervisor.problem is None
    turn(supervisor, 3)
    assert supervisor.problem.startswith('medias has crashed 1 times in a row')


def test_it_cannot_be_executed(supervise, run_dir):
    supervisor = supervise('/no/such/program', max_crashes=1)
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            supervisor._turn()
    assert supervisor.problem.startswith('medias cannot be started: ')
    assert run_dir.owner.read_text() == ''
    supervisor._command = ['true']
    turn(supervisor)
    assert supervisor.problem is None


def test_the_system_has_no_thread(supervise, monkeypatch, caplog):
    supervisor = supervise('true')
    watched = threading.Event()
    supervisor._watch = watched.set

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as none:
        none.setattr(threading.Thread, 'start', refuse)
        supervisor.start()
    assert "can't start new thread" in caplog.text
    assert supervisor.problem is None
    supervisor.start()
    assert watched.wait(30)


def test_its_files_look_new(supervise, run_dir):
    supervisor = supervise('true')
    turn(supervisor)
    for path in (run_dir.users, run_dir.owner):
        os.utime(path, (0, 0))
    turn(supervisor)
    assert run_dir.users.stat().st_mtime == 0
    supervisor._touched = -math.inf
    turn(supervisor)
    assert run_dir.users.stat().st_mtime > 0
    assert run_dir.owner.stat().st_mtime > 0


def test_the_file_of_the_users_is_removed(supervise, run_dir):
    supervisor = supervise('true')
    turn(supervisor)
    run_dir.users.unlink()
    turn(supervisor)
    assert FileLock.take(run_dir.users) is None


def test_it_does_not_start_a_second_one(supervise, run_dir):
    supervisor = supervise(sys.executable, '-c', 'import time; time.sleep(600)')
    supervisor._turn()
    child = supervisor._child
    run_dir.owner.unlink()
    supervisor._turn()
    assert supervisor._child is child
    child.kill()
    child.wait(30)
    supervisor._turn()
    assert supervisor._child is not child
    supervisor._child.kill()
    supervisor._child.wait(30)
