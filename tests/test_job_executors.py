"""Jobs in executors that somebody else has made."""

import json
import multiprocessing
import pickle
import re
import socket
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.thread import _worker

import psutil
import pytest

import work
from pyams_zmq.exceptions import ProcessStartError, SettingError
from pyams_zmq.jobs.elsewhere import perform_packed
from pyams_zmq.jobs.executor import ExecutorError
from pyams_zmq.jobs.executors import parse_executor
from pyams_zmq.jobs.line import Line, calling
from pyams_zmq.jobs.progress import Report
from pyams_zmq.jobs.submission import submit
from pyams_zmq.jobs.work import Task
from pyams_zmq.metrics import version
from pyams_zmq.process import ZMQProcess
from services import EchoHandler

POOLS = ['concurrent.futures.ThreadPoolExecutor:1', 'concurrent.futures.ProcessPoolExecutor:1']


def broken_at_first():
    """An executor that was shut down before the first job, then one that works, then none."""
    made.append(1)
    if len(made) > 2:
        raise OSError('no more of them')
    pool = ThreadPoolExecutor(2)
    if len(made) == 1:
        pool.shutdown()
    return pool


made = []


def nothing():
    return 'nothing'


def processes():
    # Not by fork, which may take a locked lock along.
    return ProcessPoolExecutor(2, multiprocessing.get_context('spawn'))


@pytest.mark.parametrize('executor', POOLS)
def test_where_they_run_and_how_they_end(serve, executor):
    client = serve(executor=executor)
    client.submit('pid', id='one')
    _, (pid, has_process) = client.wait('one', 30)
    assert not has_process
    assert (pid == client.process.pid) == ('Thread' in executor)
    client.submit('fail', 'why', id='two')
    assert client.wait('two', 30) == (500, 'ValueError: why')
    assert client.job('two').body['attempts'] == 3


@pytest.mark.parametrize('executor', POOLS)
def test_progress_and_cancelling(serve, wait_until, executor):
    client = serve(executor=executor)
    client.submit('block', None, id='first')
    progress = wait_until(lambda: client.job('first').body['progress'], 30)
    assert progress == {'done': 1, 'total': 2, 'message': 'half'}
    assert client.cancel('first').status == 202
    assert client.cancel('first').status in (200, 202)
    assert client.wait('first', 30).status == 410
    client.submit('double', 2, id='second')
    assert client.wait('second', 30) == (200, 4)


def test_a_pool_whose_worker_dies_is_made_anew(serve):
    client = serve(executor=f'{__name__}.processes', max_interruptions=2)
    client.submit('die', 'kill', id='one')
    status, body = client.wait('one', 30)
    assert status == 500
    assert body.startswith('Interrupted 2 times: ')
    client.submit('double', 2, id='two')
    assert client.wait('two', 30) == (200, 4)


def test_an_executor_that_cannot_be_had_is_no_fault_of_the_job(serve, monkeypatch, wait_until):
    monkeypatch.setattr('pyams_zmq.jobs.verdict._PAUSE', 0.01)
    made.clear()
    client = serve(executor=f'{__name__}.broken_at_first', max_interruptions=1)
    client.submit('leave', 7, id='one')
    assert client.wait('one', 30) == (500, 'SystemExit: 7')


def test_one_that_is_gone_for_good_is_asked_again_and_again(serve, monkeypatch, wait_until, log_file):
    monkeypatch.setattr('pyams_zmq.jobs.verdict._PAUSE', 0.01)
    made[:] = [1, 1]
    with pytest.raises(ProcessStartError, match=r"broken_at_first': OSError: no more of them"):
        serve(executor=f'{__name__}.broken_at_first')
    made.clear()
    monkeypatch.setattr(f'{__name__}.ThreadPoolExecutor', ShutDown)
    client = serve(executor=f'{__name__}.broken_at_first', max_interruptions=1)
    client.submit('double', 7, id='one')
    wait_until(lambda: client.job('one').body['attempts'] > 3, 30)
    assert 'no more of them' in log_file.read_text()
    assert client.cancel('one').status in (200, 202)
    assert client.wait('one', 30).status == 410


@pytest.mark.parametrize('executor', ['threads:2', 'processes:2', POOLS[0].replace('1', '2')])
def test_no_thread_to_be_had_is_no_fault_of_the_job(serve, monkeypatch, wait_until, executor):
    monkeypatch.setattr('pyams_zmq.jobs.verdict._PAUSE', 0.01)
    start, missing = threading.Thread.start, multiprocessing.get_context('fork').Semaphore(0)

    def starting(thread):
        if thread._target is _worker and missing.acquire(block=False):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, 'start', starting)
    client = serve(executor=executor, max_interruptions=1)
    for _ in range(4):
        missing.release()
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    assert client.job('one').body['attempts'] > 1
    client.submit('double', 2, id='two')  # by the thread that would run the first one again
    assert client.wait('two', 30) == (200, 4)
    work.gate.set()
    assert client.wait('one', 30) == (200, 1)
    assert not work.begun.acquire(block=False)


class Unable(ThreadPoolExecutor):
    def submit(self, *arguments):
        future = Future()
        future.set_exception(ValueError('it was lost'))
        return future


def test_what_an_executor_tells_is_the_outcome(serve, log_file):
    client = serve(executor=f'{__name__}.Unable:1')
    client.submit('double', 7, id='one')
    assert client.wait('one', 30) == (500, 'ValueError: it was lost')
    assert 'The executor could not run the job one (double)' in log_file.read_text()


@pytest.mark.parametrize(
    ('sender', 'remark'),
    [(None, ''), ('9.9', rf' \(pyams_zmq is {re.escape(version())} there, and 9.9 in the process\)')],
)
def test_a_job_that_cannot_be_loaded_where_it_is_to_run(sender, remark):
    packed = pickle.dumps((sender or version(), b'garbage'))
    status, body = perform_packed(packed, print, bool)
    assert status == 500
    told = json.loads(body)
    assert re.fullmatch(f'The job cannot be loaded where it is to run: UnpicklingError: .*{remark}', told)
    assert sender or 'there' not in told


def test_a_job_that_is_submitted_anew_while_it_runs():
    foreign = parse_executor('concurrent.futures.ThreadPoolExecutor:1').make(bool)
    task = Task('one', 'stubborn', 1, [b'["stubborn", 1]'], -1, work.Work)
    work.reset()
    first = foreign.submit(task, print)
    second = foreign.submit(task._replace(attempt=2), print)
    work.gate.set()
    assert [first.result(30), second.result(30)] == [(200, '1')] * 2
    foreign.close()
    assert foreign._tickets == {}


def test_a_broken_pool_of_threads():
    def fail():
        raise ValueError('no initializer')

    with ThreadPoolExecutor(1, initializer=fail) as pool:
        with pytest.raises(BrokenExecutor):
            submit(pool, print).result(30)
        with pytest.raises(ExecutorError, match='BrokenThreadPool'):
            submit(pool, print)


class ShutDown(ThreadPoolExecutor):
    def __init__(self, slots):
        super().__init__(slots)
        self.shutdown()


@pytest.mark.parametrize(
    ('executor', 'reason'),
    [
        ('no_such_module.factory', "ModuleNotFoundError: No module named 'no_such_module'"),
        (f'{__name__}.no_such_factory', 'AttributeError: '),
        (f'{__name__}.made', 'it cannot be called to make an executor'),
        (f'{__name__}.nothing', 'TypeError: it gives a str, and no concurrent.futures.Executor'),
        (f'{__name__}.nothing:3', r'TypeError: nothing\(\) takes 0 positional arguments but 1 was given'),
        (f'{__name__}:nothing', 'TypeError: it gives a str'),
    ],
)
def test_what_makes_no_executor(serve, executor, reason):
    with pytest.raises(ProcessStartError, match=f'executor=.*: {reason}'):
        serve(executor=executor)


@pytest.mark.parametrize(
    'text',
    [
        *('', 'threads', 'threads:', 'threads:0', 'threads:1001', 'threads:-1', 'threads: 1', 'threads:١'),
        *('thread', 'processes:99999999999999999999', 'processes:four', 'threads:4:4', 'dask', 'dask:'),
        *(
            'dask:scheduler:8786',
            'dask:tcp://',
            'dask:tcp://a b',
            'a.b:0',
            'a.b:1001',
            'a..b',
            '.a',
            'a.',
            'a',
        ),
        *('a.b:4\n', 'a.b; import os', 'a.b(1)', '1a.b', None, 4, b'threads:4', ['threads:4']),
    ],
)
def test_what_is_no_setting(text):
    process = ZMQProcess('127.0.0.1', EchoHandler)
    with pytest.raises(SettingError, match=r"^executor is 'threads:N' or 'processes:N'"):
        process.configure(executor=text)


@pytest.mark.parametrize(
    'text', ['dask:tcp://10.0.0.1:8786', 'dask:tls://[::1]:8786', 'a.b', 'a.b.c:4', 'a:b:9']
)
def test_only_worker_processes_end_work_by_force(text):
    assert not parse_executor(text).forceful
    assert parse_executor('processes:1').forceful


def test_a_timeout_that_could_not_be_kept_is_refused(serve):
    with pytest.raises(ProcessStartError, match='fast has a timeout, which executor='):
        serve(work.LimitedWork, executor=POOLS[0])


def test_who_has_no_ticket_is_not_heard():
    reports = []
    line = Line()
    ticket = line.expect(reports.append)
    for hello in (
        b'',
        b'\n',
        b'\xff\xfe\n',
        b'x' * 100_000,
        ticket[:-1].encode() + b'\n',
        b'GET / HTTP/1.1\r\n',
    ):
        with socket.create_connection(line.server_address, 10) as stranger:
            stranger.sendall(hello + b'[1, 2, "no"]\n')
            stranger.shutdown(socket.SHUT_WR)
            assert _hung_up(stranger)
    assert reports == []
    line.close()


def _hung_up(connection):
    try:
        return connection.recv(1) == b''
    except ConnectionResetError:
        return True


def test_a_call_is_cancelled_when_it_comes(wait_until):
    reports = []
    line = Line()
    ticket = line.expect(reports.append)
    line.cancel(ticket)
    with calling(line.server_address, ticket) as (report, cancelled):
        wait_until(cancelled)
        report(Report(1, None, '\x00"é' * 100))
        wait_until(lambda: reports)
    assert reports == [Report(1, None, '\x00"é' * 100)]
    line.forget(ticket)
    line.cancel(ticket)
    line.close()
    with calling(line.server_address, ticket) as (report, cancelled):
        report(Report(1, None, ''))
        assert not cancelled()


def test_the_longest_report_fits_on_a_line(wait_until):
    reports = []
    line = Line()
    told = Report(2**1000, 1e-300, '\U0001f600' * 500)
    with calling(line.server_address, line.expect(reports.append)) as (report, _):
        report(told)
        wait_until(lambda: reports)
    assert reports == [told]
    assert len(json.dumps(told)) < 16 * 1024
    line.close()


def test_a_job_notices_the_end_of_the_process(serve):
    client = serve(executor='concurrent.futures.ProcessPoolExecutor:1')
    client.submit('block', id='one')
    assert work.begun.acquire(timeout=30)
    (worker,) = psutil.Process(client.process.pid).children()
    client.process.kill()
    assert work.cleaned.acquire(timeout=30)
    worker.kill()  # it would wait for its next job for ever
