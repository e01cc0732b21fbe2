"""Jobs in worker processes: time limits, ends by force, deaths."""

import errno
import multiprocessing
import os
import resource
import signal
import socket
import time

import psutil
import pytest

import work
from pyams_zmq.exceptions import ProcessStartError
from pyams_zmq.jobs.executor import ExecutorError
from pyams_zmq.jobs.nursery import _NUMBER, Nursery, _free_descriptors, _make, _tend
from pyams_zmq.jobs.processes import Processes
from pyams_zmq.jobs.work import Task

fork = multiprocessing.get_context('fork')


def workers(client):
    """The worker processes, by way of the nursery."""
    (nursery,) = children(client)
    return nursery, nursery.children()


def children(client):
    return psutil.Process(client.process.pid).children()


def test_a_timeout_ends_the_work(serve):
    client = serve(work.LimitedWork, executor='processes:1')
    client.submit('polite', id='one')
    assert client.wait('one', 30) == (504, 'TimeoutError: it took longer than 0.2 s')
    # On a busy machine it may not even have begun.
    assert work.cleaned.acquire(block=False) == work.begun.acquire(block=False)
    client.submit('fast', 1, id='two')
    assert client.wait('two', 30) == (200, 1)


def test_a_job_that_will_not_end_is_killed(serve, monkeypatch):
    monkeypatch.setattr('pyams_zmq.jobs.processes.GRACE', 0.1)
    client = serve(work.LimitedWork, executor='processes:1')
    client.submit('rude', id='one')
    assert client.wait('one', 30) == (504, 'TimeoutError: it took longer than 0.2 s')
    assert client.job('one').body['attempts'] == 2


def test_a_job_that_was_done_when_it_was_ended_is_done(serve, wait_until):
    client = serve(work.LimitedWork, executor='processes:1')
    client.submit('late', 1, id='one')
    status, body = client.wait('one', 30)
    # On a busy machine it may not even have begun.
    assert (status, body) == (200, 1) or not work.begun.acquire(block=False)
    client.submit('fast', 2, id='two')
    assert client.wait('two', 30) == (200, 2)


@pytest.mark.parametrize('executor', ['threads:4', 'threads:1'])
def test_a_timeout_that_could_not_be_kept_is_refused(serve, executor):
    with pytest.raises(ProcessStartError, match=rf"fast has a timeout, which executor='{executor}' cannot"):
        serve(work.LimitedWork, executor=executor)


def test_cancelling_ends_what_the_job_has_started(serve, wait_until):
    client = serve(executor='processes:1')
    client.submit('run', ['sleep', '600'], id='one')
    assert work.begun.acquire(timeout=30)
    _, (worker,) = workers(client)
    child = wait_until(worker.children, 30)[0]
    assert client.cancel('one').status == 202
    assert client.wait('one', 30).status == 410
    assert work.cleaned.acquire(timeout=30)
    wait_until(lambda: not child.is_running() or child.status() == 'zombie', 30)


def test_a_worker_that_dies_spares_the_other_jobs(serve):
    client = serve(executor='processes:2', max_interruptions=3)
    client.submit('stubborn', 1, id='other')
    assert work.begun.acquire(timeout=30)
    for how, end in (('exit', 'ended with exit code 3'), ('kill', 'was killed by signal 9')):
        client.submit('die', how, id=how)
        reason = f'Interrupted 3 times: its worker {end} while it ran'
        assert client.wait(how, 30) == (500, reason)
        assert client.job(how).body['attempts'] == 3
    work.gate.set()
    assert client.wait('other', 30) == (200, 1)
    assert client.job('other').body['attempts'] == 1


def test_a_job_whose_worker_was_killed_runs_again(serve):
    client = serve(executor='processes:1')
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    _, (worker,) = workers(client)
    worker.kill()
    assert work.begun.acquire(timeout=30)
    work.gate.set()
    assert client.wait('one', 30) == (200, 1)
    assert client.job('one').body['attempts'] == 2


def test_idle_workers_that_were_killed_cost_a_job_nothing(serve, wait_until):
    client = serve(executor='processes:3', max_interruptions=1)
    for number in range(3):
        client.submit('stubborn', number, id=str(number))
    for _ in range(3):
        assert work.begun.acquire(timeout=30)
    work.gate.set()
    for number in range(3):
        assert client.wait(str(number), 30).ok
    _, idle = workers(client)
    assert len(idle) == 3
    for worker in idle:
        worker.kill()
        wait_until(lambda worker=worker: worker.status() == 'zombie', 30)
    client.submit('double', 2, id='one')
    assert client.wait('one', 30) == (200, 4)
    assert client.job('one').body['attempts'] == 1


def test_a_nursery_that_was_killed_is_made_anew(serve, wait_until):
    client = serve(executor='processes:2')
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    nursery, _ = workers(client)
    nursery.kill()
    wait_until(lambda: not nursery.is_running() or nursery.status() == 'zombie', 30)
    client.submit('pid', id='two')
    assert client.wait('two', 30).ok
    # What it was running goes on, and can still be ended by force.
    assert client.cancel('one').status == 202
    assert client.wait('one', 30).status == 410


class Barren(Nursery):
    failures = fork.Semaphore(0)

    def hire(self):
        if self.failures.acquire(block=False):
            raise OSError('no more processes')
        return super().hire()


def test_no_worker_to_be_had_is_no_fault_of_the_job(serve, monkeypatch, log_file):
    monkeypatch.setattr('pyams_zmq.jobs.processes.Nursery', Barren)
    monkeypatch.setattr('pyams_zmq.jobs.verdict._PAUSE', 0.01)
    client = serve(executor='processes:1', max_interruptions=1)
    for _ in range(2):
        Barren.failures.release()
    client.submit('double', 2, id='one')
    assert client.wait('one', 30) == (200, 4)
    assert client.job('one').body['attempts'] == 3
    told = 'The job one (double) is tried again: ExecutorError: there is no worker process to be had: no more'
    assert told in log_file.read_text()


def limit(pid, descriptors):
    """Limit how many descriptors a process may have; returns what it could have before."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, hard))
    return soft


@pytest.mark.skipif(not hasattr(resource, 'prlimit'), reason='Linux alone limits another process')
@pytest.mark.parametrize('who', ['nursery', 'process'])
def test_a_worker_that_cannot_be_made_costs_no_other_job(serve, wait_until, monkeypatch, log_file, who):
    monkeypatch.setattr('pyams_zmq.jobs.verdict._PAUSE', 0.01)
    client = serve(executor='processes:2', max_interruptions=1)
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    nursery, _ = workers(client)
    pid = nursery.pid if who == 'nursery' else client.process.pid
    used = {int(number) for number in os.listdir(f'/proc/{pid}/fd')}
    before = limit(pid, min({*range(len(used) + 1)} - used))
    client.submit('double', 2, id='two')
    wait_until(lambda: log_file.read_text().count('there is no worker process to be had: [Errno 24]') > 2, 30)
    assert client.job('one').body['state'] == 'running'
    limit(pid, before)
    assert client.wait('two', 30) == (200, 4)
    work.gate.set()
    assert client.wait('one', 30) == (200, 1)
    assert client.job('one').body['attempts'] == 1
    assert workers(client)[0] == nursery


def test_a_fork_that_fails_leaves_no_descriptor_behind(monkeypatch):
    def fail():
        raise BlockingIOError(errno.EAGAIN, 'no more processes')

    def child():
        monkeypatch.setattr(os, 'fork', fail)
        control, _other = socket.socketpair()
        before = _free_descriptors(10)
        for _ in range(20):
            with pytest.raises(BlockingIOError):
                _make(control)
        assert _free_descriptors(10) == before

    process = fork.Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0


class Slow(Nursery):
    asked, answers = fork.Semaphore(0), fork.Semaphore(0)

    def hire(self):
        self.asked.release()
        self.answers.acquire(timeout=30)
        return super().hire()


def test_cancelled_before_there_is_a_worker(serve, monkeypatch):
    monkeypatch.setattr('pyams_zmq.jobs.processes.Nursery', Slow)
    client = serve(executor='processes:1')
    client.submit('stubborn', 2, id='one')
    assert Slow.asked.acquire(timeout=30)
    assert client.cancel('one').status == 202
    Slow.answers.release()
    assert client.wait('one', 30).status == 410


def test_a_nursery_that_dies_while_it_is_asked(monkeypatch):
    def dies(control, others):
        others.close()
        control.recv(_NUMBER.size)

    monkeypatch.setattr('pyams_zmq.jobs.nursery._tend', dies)
    nursery = Nursery()
    with pytest.raises(ConnectionResetError, match='the nursery has died'):
        nursery.hire()
    nursery.close()


def test_no_nursery_is_made_anew_at_the_end():
    executor = Processes(1, bool)
    executor._closing = True
    executor._nursery._control.shutdown(socket.SHUT_RDWR)
    executor.cancel('nobody')
    waiting = executor.submit(Task('one', 'note', 1, [b'["note", 1]'], -1, work.Work), print)
    with pytest.raises(ExecutorError, match='there is no worker process to be had'):
        waiting.result(30)
    executor.close()


def test_a_process_dies_while_it_hires(wait_until, capfd):
    """The answer of the nursery reaches nobody."""
    ours, theirs = socket.socketpair()
    nursery = fork.Process(target=_tend, args=(theirs, ours))
    nursery.start()
    theirs.close()
    ours.sendall(_NUMBER.pack(0))
    wait_until(lambda: ours.recv(_NUMBER.size, socket.MSG_PEEK))
    (worker,) = psutil.Process(nursery.pid).children()
    ours.close()
    nursery.join(30)
    assert nursery.exitcode == 0
    assert not worker.is_running()
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('victims', ['process', 'process and nursery'])
def test_workers_end_with_their_process(serve, wait_until, victims):
    client = serve(executor='processes:1')
    client.submit('run', ['sleep', '600'], id='one')
    assert work.begun.acquire(timeout=30)
    nursery, (worker,) = workers(client)
    child = wait_until(worker.children, 30)[0]
    if victims != 'process':
        nursery.kill()
    client.process.kill()
    for one in (nursery, worker, child):
        wait_until(lambda one=one: not one.is_running() or one.status() == 'zombie', 30)


class Forking(work.Work):
    def fork(self, seconds):
        """Start a process as applications do."""
        process = fork.Process(target=time.sleep, args=(seconds,))
        process.start()
        return [200, process.pid]


def test_what_a_delegate_has_forked_does_not_keep_the_workers(serve, wait_until):
    client = serve(Forking, executor='processes:1')
    client.submit('pid', id='first')
    assert client.wait('first', 30).ok
    grandchild = psutil.Process(client.call('fork', 120).body)
    try:
        client.submit('stubborn', id='one')
        assert work.begun.acquire(timeout=30)
        (nursery,) = (one for one in children(client) if one != grandchild)
        (worker,) = nursery.children()
        client.process.kill()
        for one in (nursery, worker):
            wait_until(lambda one=one: not one.is_running() or one.status() == 'zombie', 30)
        assert grandchild.is_running()
    finally:
        grandchild.kill()


def test_ctrl_c_is_for_the_process_alone(serve):
    client = serve(executor='processes:1')
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    nursery, _ = workers(client)
    os.kill(nursery.pid, signal.SIGINT)
    client.submit('static', 1, id='two')
    work.gate.set()
    assert client.wait('two', 30).ok


def test_a_delegate_that_cannot_be_made_elsewhere_is_refused(serve):
    class Nested(work.Work):
        pass

    with pytest.raises(ProcessStartError, match='Nested cannot be imported elsewhere by its name'):
        serve(Nested, executor='processes:1')
