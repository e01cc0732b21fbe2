"""How a process waits for the end of the web workers that use it; see test_servers.py for all the rest."""

import os
import threading

import pytest

from pyams_zmq.locks import FileLock
from pyams_zmq.rundir import RunDir
from pyams_zmq.supervisor import Supervisor, wait_for_end_of_users

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


def test_it_is_given_up_once(run_dir, monkeypatch, caplog):
    monkeypatch.setattr('pyams_zmq.supervisor._BACK_OFF', 0.001)
    supervisor = Supervisor('medias', run_dir, ['false'], 2)
    supervisor._users = supervisor._join()
    for _ in range(5):
        supervisor._look()
        if supervisor._child is not None:
            supervisor._child.wait(30)
    supervisor._users.close()
    assert supervisor.problem.startswith('medias has crashed 2 times in a row, and is not started again')
    assert [record.levelname for record in caplog.records].count('CRITICAL') == 1
    assert [record.levelname for record in caplog.records].count('ERROR') == 2
