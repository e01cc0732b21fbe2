"""Jobs from the outside: submitted, run, asked for, cancelled and tried again."""

import asyncio
import math
import multiprocessing
import re
import socket
import threading
from contextlib import suppress

import pytest
from pyramid.registry import Registry

import work
from peers import Peer, handler_of, message
from pyams_zmq.address import parse_address
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ProcessStartError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.interfaces import IZMQProcessStartedEvent
from pyams_zmq.jobs import job
from pyams_zmq.jobs.journal import Journal
from pyams_zmq.jobs.progress import Progress
from pyams_zmq.jobs.store import Store
from pyams_zmq.jobs.threads import Threads
from pyams_zmq.jobs.work import Task
from pyams_zmq.process import ZMQProcess
from services import Echo, Process

fork = multiprocessing.get_context('fork')

EXECUTORS = ['threads:2', 'processes:2']


@pytest.mark.parametrize('executor', EXECUTORS)
def test_a_job_is_accepted_and_run(serve, executor):
    client = serve(executor=executor)
    reply = client.submit('double', 21)
    assert reply.status == 202
    assert reply.body['state'] == 'queued'
    assert client.wait(reply.body['job'], 30) == (200, 42)
    record = client.job(reply.body['job']).body
    assert (record['state'], record['attempts'], record['body']) == ('done', 1, 42)
    assert record['submitted'] <= record['started'] <= record['ended']


@pytest.mark.parametrize(
    ('job_type', 'data', 'outcome'),
    [
        ('static', 5, (200, 5)),
        ('later', 5, (201, 5)),
        ('static', None, (200, None)),
        ('static', [True, 1], (200, [True, 1])),
        ('status', 204, (204, 'body')),
        ('status', 404, (404, 'body')),
        ('status', 99, (200, [99, 'body'])),
        ('status', 10**400, (200, [10**400, 'body'])),
        ('recover', 3, (200, 3)),
        ('recover', 5, (500, 'ValueError: not yet')),
        ('fail', 'why', (500, 'ValueError: why')),
        ('decide', 409, (409, 'decided')),
        ('decide', 503, (503, 'decided')),
        ('decide_unfit', None, (500, 'TypeError: Object of type set is not JSON serializable')),
        ('unfit', None, (500, 'TypeError: Object of type set is not JSON serializable')),
        ('leave', 5, (500, 'SystemExit: 5')),
        ('copy', None, (200, 'the original')),
    ],
)
@pytest.mark.parametrize('executor', EXECUTORS)
def test_outcomes(serve, executor, job_type, data, outcome):
    client = serve(executor=executor)
    client.submit(job_type, data, id='one')
    assert client.wait('one', 30) == outcome
    assert client.job('one').body['state'] == ('done' if outcome[0] < 400 else 'failed')


@pytest.mark.parametrize(
    ('job_type', 'data', 'runs'), [('fail', '', 3), ('decide', 409, 1), ('decide', 503, 3)]
)
def test_what_is_tried_again(serve, job_type, data, runs):
    client = serve()
    client.submit(job_type, data, id='one')
    client.wait('one', 30)
    assert client.job('one').body['attempts'] == runs
    for _ in range(runs):
        assert work.begun.acquire(block=False)
    assert not work.begun.acquire(block=False)


@pytest.mark.parametrize('executor', EXECUTORS)
def test_where_jobs_run(serve, executor):
    client = serve(executor=executor)
    client.submit('pid', id='one')
    _, (pid, has_process) = client.wait('one', 30)
    assert (pid == client.process.pid) == has_process == (executor == 'threads:2')


def test_a_plain_message_to_a_job_is_a_job(serve):
    client = serve()
    with Peer(client.process.endpoint) as peer:
        status, body = peer.ask('double', 4)
    assert status == 202
    assert client.wait(body['job'], 30) == (200, 8)
    assert client.call('plain', 1) == (200, 1)


@pytest.mark.parametrize(
    ('command', 'data', 'status'),
    [
        *(
            ('_submit', data, 400)
            for data in (None, 'static', [], {}, {'data': 1}, {'type': 'static', 'x': 1})
        ),
        *(('_submit', {'type': job_type}, 404) for job_type in (None, 1, [], 'plain', '__init__', 'nothing')),
        *(
            ('_submit', {'type': 'static', 'id': job}, 400)
            for job in ('', 'é', 'a b', 'x' * 129, 1, [], False)
        ),
        *(
            (command, job, 400)
            for command in ('_job', '_cancel', '_retry')
            for job in (None, '', 1, {}, 'a\n')
        ),
        *((command, 'nobody', 404) for command in ('_job', '_cancel', '_retry')),
        *(('_jobs', wanted, 400) for wanted in ([], 'done', {'x': 1}, {'state': 'gone'}, {'state': []})),
        *(('_jobs', {'limit': limit}, 400) for limit in (0, -1, 1001, True, 1.0, '9', None)),
        *(('_jobs', {'before': before}, 400) for before in (-1, 2**63, 1.5, '1', False)),
    ],
)
def test_bad_commands(shared, command, data, status):
    assert shared.call(command, data).status == status


@pytest.fixture(scope='module')
def shared():
    process = ZMQProcess('127.0.0.1', handler_of(work.Work()))
    process.configure(journal=':memory:', stop_timeout=5.0)
    process.start()
    with ZMQClient(process.wait_ready()) as client:
        yield client
    process.stop()
    process.join()


@pytest.mark.parametrize('executor', EXECUTORS)
def test_all_frames_are_written_down(serve, executor):
    client = serve(executor=executor)
    with Peer(client.process.endpoint) as peer:
        peer.send(b'\xff\x00', message('frames', 1))
        plain = peer.reply()[1]['job']
        peer.send(b'', message('_submit', {'type': 'frames', 'data': 2}))
        submitted = peer.reply()[1]['job']
        peer.send(b'1', b'2', message('frames', 1))
        assert peer.reply() == [400, 'Wrong number of frames for frames: 3']
    assert client.wait(plain, 30) == (200, ['ff00', 1])
    assert client.wait(submitted, 30) == (200, ['', 2])


def test_a_job_whose_signature_cannot_be_read(serve):
    """It is not refused for that: what it is called with may well fit."""

    def unreadable(self, data):
        return [200, data]

    unreadable.__signature__ = 5
    client = serve(type('Delegate', (), {'process': None, 'unreadable': job(unreadable)}))
    assert client.wait(client.call('unreadable', 1).body['job'], 30) == (200, 1)


def test_the_same_id_is_the_same_job(serve):
    client = serve()
    assert client.submit('static', {'n': [1]}, id='one').status == 202
    client.wait('one', 30)
    assert client.submit('static', {'n': [1]}, id='one') == (200, {'job': 'one', 'state': 'done'})
    assert client.submit('static', {'n': [2]}, id='one').status == 409
    assert client.submit('later', {'n': [1]}, id='one').status == 409
    assert client.job('one').body['attempts'] == 1


@pytest.mark.parametrize('executor', ['threads:1', 'processes:1'])
def test_progress_and_cancelling(serve, wait_until, executor):
    client = serve(executor=executor)
    client.submit('block', None, id='first')
    client.submit('block', None, id='second')
    progress = wait_until(lambda: client.job('first').body['progress'], 30)
    assert progress == {'done': 1, 'total': 2, 'message': 'half'}
    assert client.cancel('second') == (200, {'job': 'second', 'state': 'cancelled'})
    assert client.cancel('first') == (202, {'job': 'first', 'state': 'running'})
    assert client.wait('first', 30) == (410, 'The job first was cancelled')
    assert client.wait('second', 30).status == 410
    assert client.job('second').body['attempts'] == 0
    assert client.retry('second').status == 202
    assert client.retry('first').status == 202
    assert work.begun.acquire(timeout=30)
    work.gate.set()
    assert client.wait('first', 30).ok
    assert client.wait('second', 30).ok
    assert client.cancel('second') == (409, 'The job second is done already')
    assert client.retry('second') == (409, 'The job second is done already')


def test_a_job_that_fails_when_it_is_cancelled_is_cancelled(serve):
    client = serve()
    client.submit('careless', id='one')
    assert work.begun.acquire(timeout=30)
    assert client.cancel('one').status == 202
    assert client.wait('one', 30).status == 410
    assert client.job('one').body['attempts'] == 1


def test_a_job_that_does_not_care_is_done_nevertheless(serve):
    client = serve()
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    assert client.cancel('one').status == 202
    assert client.job('one').body['cancelling'] is True
    work.gate.set()
    assert client.wait('one', 30) == (200, 1)
    assert client.job('one').body['cancelling'] is False


def claims_wait_for_a_cancel(monkeypatch):
    """Let the journal take claims together with a cancel only.

    :returns: what tells that one is waiting while a job is there, and the gate that ends it
    """
    original, waiting, free = Journal._send, fork.Semaphore(0), work.Gate()

    def send(journal):
        steps = journal._batch
        claims = [step for step in steps if getattr(step[0], 'func', None) is Store.claim]
        cancels = [step for step in steps if 'cancel' in getattr(step[0], '__qualname__', '')]
        if not claims or cancels or free.wait(0):
            original(journal)
            return
        journal._batch = [step for step in steps if step not in claims]
        original(journal)
        journal._batch = claims
        if journal.counts['queued']:
            waiting.release()
        asyncio.get_running_loop().call_later(0.001, send, journal)

    monkeypatch.setattr(Journal, '_send', send)
    return waiting, free


@pytest.mark.parametrize('executor', [*EXECUTORS, 'concurrent.futures.ThreadPoolExecutor:2'])
def test_cancelled_in_the_moment_when_it_is_taken(serve, monkeypatch, executor):
    waiting, free = claims_wait_for_a_cancel(monkeypatch)
    client = serve(executor=executor)
    client.submit('block', id='one')
    assert waiting.acquire(timeout=30)
    assert client.cancel('one') == (202, {'job': 'one', 'state': 'running'})
    free.set()
    assert client.wait('one', 30).status == 410


def test_a_cancel_that_crosses_with_the_end_of_an_attempt_does_not_spoil_the_next_one():
    executor, task = Threads(1, bool), Task('one', 'double', 1, [b'["double", 1]'], -1, Careful)
    executor.cancel('one')
    assert executor.submit(task, print).result(30) == (200, '"wanted"')
    executor.cancel('one')
    assert executor.submit(task, print).result(30) == (200, '"wanted"')
    executor.close()


class Careful:
    @job
    def double(self, number, progress):
        progress.check()
        return [200, 'wanted']


def test_first_come_first_started(serve):
    client = serve(executor='threads:1')
    client.submit('block', id='block')
    for number in range(20):
        client.submit('static', number, id=f'{20 - number}')
    work.gate.set()
    client.wait('1', 30)
    jobs = client.jobs().body['jobs']
    assert [job['job'] for job in jobs] == [*(str(number) for number in range(1, 21)), 'block']
    assert [job['started'] for job in jobs] == sorted((job['started'] for job in jobs), reverse=True)


def test_jobs_are_looked_for_where_there_may_be_one_only(serve, monkeypatch):
    looks, claim = fork.Semaphore(0), Store.claim

    def counted(*arguments, **options):
        looks.release()
        return claim(*arguments, **options)

    monkeypatch.setattr(Store, 'claim', counted)
    client = serve()
    client.submit('static', 1, id='one')
    assert client.wait('one', 30).ok
    for _ in range(20):
        assert client.jobs().ok
    # With the start, the job's acceptance, and its end.
    for _ in range(3):
        looks.acquire(block=False)
    assert not looks.acquire(block=False)


def test_lists(serve):
    client = serve()
    for number in range(7):
        client.submit('static' if number % 2 else 'fail', number, id=str(number))
    for number in range(7):
        client.wait(str(number), 30)
    counts = {'queued': 0, 'running': 0, 'done': 3, 'failed': 4, 'cancelled': 0}
    whole = client.jobs().body
    assert [job['job'] for job in whole['jobs']] == list('6543210')
    assert (whole['next'], whole['counts']) == (None, counts)
    assert [job['error'] for job in client.jobs('failed').body['jobs']] == [
        f'ValueError: {number}' for number in (6, 4, 2, 0)
    ]
    seen, before = [], None
    while True:
        page = client.jobs('done', 2, before).body
        seen += [job['job'] for job in page['jobs']]
        before = page['next']
        if before is None:
            break
    assert seen == list('531')
    assert client.call('_status').body['jobs'] == counts


def test_too_many(serve):
    client = serve(max_pending=2, executor='threads:1')
    assert client.submit('block', id='1').status == 202
    assert client.submit('block', id='2').status == 202
    assert client.submit('block', id='3') == (
        429,
        '2 jobs are waiting or running, as many as may be (max_pending)',
    )
    assert client.submit('block', id='2').status == 202
    assert client.cancel('2').status == 200
    assert client.submit('block', id='3').status == 202
    assert client.retry('2').status == 429
    work.gate.set()
    client.wait('3', 30)


def test_a_process_with_jobs_needs_a_journal(start):
    with pytest.raises(ProcessStartError, match=r'Work has jobs \(.*\), but the process has no journal: set'):
        start(handler=handler_of(work.Work()))


def test_a_process_without_jobs_needs_none(start, call):
    process = start()
    for command in ('_submit', '_job', '_jobs', '_cancel', '_retry'):
        assert call(process, command).status == 404


def test_a_journal_in_memory(serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = serve(journal=':memory:')
    client.submit('static', 1, id='one')
    assert client.wait('one', 30) == (200, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_journal_is_its_owner_s(serve, tmp_path):
    serve()
    names = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert names == dict.fromkeys(('journal', 'journal-wal', 'journal-shm', 'journal.lock'), 0o600)


class WithJournal(Process):
    journal = ':memory:'
    executor = 'processes:1'


class Two(ZMQMessageHandler):
    handler = work.Work

    def __init__(self, process, stream, stop):
        super().__init__(process, stream, stop)
        ZMQMessageHandler(process, stream, stop, work.LimitedWork())


class Besides(ZMQMessageHandler):
    handler = work.Work

    def __init__(self, process, stream, stop):
        ZMQMessageHandler(process, stream, stop, Echo())
        super().__init__(process, stream, stop)
        ZMQMessageHandler(process, stream, stop, Echo())


def test_delegates_without_jobs_besides(start):
    with ZMQClient(start(handler=Besides, cls=WithJournal).endpoint) as client:
        client.submit('double', 4, id='one')
        assert client.wait('one', 30) == (200, 8)


def test_one_delegate_with_jobs(start):
    with pytest.raises(ProcessStartError, match='Only one delegate of a process may have jobs'):
        start(handler=Two, cls=WithJournal)


# Waiting


def test_a_wait_tells_what_has_changed(serve):
    client = serve(executor='threads:1')
    client.submit('block', 5, id='one')
    seen = []

    def note(record):
        seen.append((record['state'], record['progress']))
        if record['progress']:
            work.gate.set()

    assert client.wait('one', 30, note) == (200, 5)
    assert seen[-2:] == [('running', {'done': 1, 'total': 2, 'message': 'half'}), ('done', None)]
    assert len(set(map(str, seen))) == len(seen)


def test_a_wait_that_takes_too_long(serve):
    client = serve()
    client.submit('stubborn', 5, id='one')
    with pytest.raises(TimeoutError, match=r'^the job one has not ended within 0\.05 s$'):
        client.wait('one', 0.05)
    work.gate.set()
    assert client.wait('one', 30) == (200, 5)


class Relay:
    """Passes on to a process, until it is silent: then the connections that it has stay, and tell nothing."""

    def __init__(self, endpoint):
        self._target = parse_address(endpoint)
        self._server = socket.create_server(('127.0.0.1', 0))
        self.endpoint = f'127.0.0.1:{self._server.getsockname()[1]}'
        self._ends = []
        self._silent = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                theirs, _ = self._server.accept()
                ours = socket.create_connection((self._target.host, self._target.port), 10)
                self._ends += [theirs, ours]
                for ends in (theirs, ours), (ours, theirs):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silent:
                    sink.sendall(data)

    def be_silent(self):
        self._silent.update(self._ends)

    def close(self):
        for end in (self._server, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_a_wait_survives_a_connection_that_has_gone_silent(serve, monkeypatch):
    monkeypatch.setattr('pyams_zmq.jobs.client._PATIENCE', 0.2)
    client = serve()
    relay = Relay(client.process.endpoint)
    with ZMQClient(relay.endpoint) as far:
        assert far.submit('stubborn', 5, id='one').status == 202
        relay.be_silent()
        work.gate.set()
        assert far.wait('one', 30) == (200, 5)
    relay.close()


# How jobs are declared, and what they tell


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        *(('retries', value) for value in (-1, 1.5, True, '3', None)),
        *(('timeout', value) for value in (0, -1, math.nan, math.inf, 10**400, True, '5')),
        *(('keep', value) for value in (-1, math.nan, math.inf, 10**400, None, '5')),
        *(('backoff', value) for value in (0, -0.5, math.nan, math.inf, 10**400, False, None)),
    ],
)
def test_options_of_jobs_that_make_no_sense(option, value):
    with pytest.raises(ValueError, match=rf'^{option} is a number of .*, not {re.escape(repr(value))}$'):
        job(**{option: value})


@pytest.mark.parametrize('method', [staticmethod(print), classmethod(print), property(print), Echo, 5])
def test_what_can_be_no_job(method):
    with pytest.raises(TypeError, match='^@job belongs on a function, below @staticmethod'):
        job(method)


@pytest.mark.parametrize(
    'told',
    [(math.nan,), (1, math.inf), (-math.inf, 1), (10**400,), (None,), ('1',), (1, '2'), (1j,)],
)
def test_progress_that_makes_no_sense(told):
    reports = []
    with pytest.raises(ValueError, match='^progress is told in finite numbers, not '):
        Progress('one', 'note', 1, reports.append, bool)(*told)
    assert reports == []


def test_a_job_s_logger_tells_which_one_it_is(caplog):
    caplog.set_level('INFO')
    Progress('one', 'note', 1, print, bool).log.info('page %d', 3, extra={'page': 3})
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ('pyams_zmq.jobs.note', '[one] page 3')
    assert (record.job, record.page) == ('one', 3)


# The end of the process, and of the journal's patience


def test_a_stop_before_the_jobs_begin(start):
    registry = Registry()
    registry.registerHandler(lambda event: event.object.stop(), [IZMQProcessStartedEvent])

    process = start(handler=handler_of(work.Work()), cls=WithJournal, registry=registry)
    process.join(30)
    assert process.exitcode == 0


def test_what_has_expired_is_removed(serve, monkeypatch, wait_until):
    monkeypatch.setattr('pyams_zmq.jobs.runner._HOUSEKEEPING', 0.01)
    client = serve()
    for number in range(3):
        assert client.submit('brief', number, id=str(number)).status == 202
        wait_until(lambda number=number: client.job(str(number)).status == 404, 30)
    assert client.jobs().body['jobs'] == []
