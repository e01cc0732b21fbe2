"""The journal: files that cannot be used, disks that fail, ends at the worst moment, other versions."""

import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
import threading
from contextlib import closing

import pytest

import work
from pyams_zmq.exceptions import ExitCode, ProcessStartError, ReplyError
from pyams_zmq.jobs import job, journal, runner, schema
from pyams_zmq.jobs.decorator import MAX_DELAY, job_options
from pyams_zmq.jobs.journal import Journal
from pyams_zmq.jobs.runner import Runner
from pyams_zmq.jobs.schema import JournalError, open_database
from pyams_zmq.jobs.store import Store
from pyams_zmq.process import ZMQProcess
from services import EchoHandler

fork = multiprocessing.get_context('fork')


def restart(serve, client, delegate=work.Work, how='kill', **options):
    """End a client's process, and start one with the same journal."""
    getattr(client.process, how)()
    client.process.join(30)
    return serve(delegate, **options)


class Fewer:
    """An older or newer version of the delegate, which has other jobs."""

    process = None

    @job
    def static(self, data):
        return data


# Files that cannot be used


def of_something_else(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript('CREATE TABLE job (id TEXT); INSERT INTO job VALUES (1)')


def of_a_newer_version(path):
    with closing(open_database(str(path), True)) as connection:
        connection.execute('PRAGMA user_version = 99')


def of_another_application(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('PRAGMA application_id = 7')


def damaged_at_the_start(path):
    open_database(str(path), True).close()
    path.write_bytes(b'\x00' * 16 + path.read_bytes()[16:])


def damaged_tables(path):
    open_database(str(path), True).close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b'\xa5' * (len(content) - 4096))


def cut_off(path):
    open_database(str(path), True).close()
    path.write_bytes(path.read_bytes()[:5000])


UNUSABLE = {
    'garbage': (lambda path: path.write_bytes(os.urandom(10_000)), 'cannot be used: file is not a database'),
    'a text': (lambda path: path.write_text('[app:main]\n' * 100), 'cannot be used: file is not a database'),
    'of something else': (of_something_else, 'is the database of something else, and no journal'),
    'of another application': (of_another_application, 'is the database of something else, and no journal'),
    'of a newer version': (
        of_a_newer_version,
        'was written by a newer version of pyams_zmq: its schema is 99, and this one knows up to 1',
    ),
    'damaged at the start': (damaged_at_the_start, 'cannot be used: file is not a database'),
    'damaged tables': (damaged_tables, 'cannot be used: database disk image is malformed'),
    'cut off': (cut_off, 'cannot be used: '),
    'a folder': (lambda path: path.mkdir(), 'cannot be opened: '),
    'a link to nowhere': (lambda path: path.symlink_to('no/where'), 'cannot be locked: '),
    'a device': (lambda path: path.symlink_to('/dev/null'), 'journal'),
    'lock is a folder': (lambda path: path.with_name('journal.lock').mkdir(), 'cannot be locked: '),
}


@pytest.mark.parametrize('name', UNUSABLE)
def test_what_is_no_journal(serve, tmp_path, name):
    make, reason = UNUSABLE[name]
    path = tmp_path / 'journal'
    make(path)
    before = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    with pytest.raises(ProcessStartError, match=reason) as raised:
        serve()
    assert str(path) in str(raised.value)
    if before is not None:
        assert path.read_bytes() == before


@pytest.mark.parametrize('path', ['no/such/folder/journal', 'x' * 300])
def test_paths_that_cannot_be(serve, tmp_path, path):
    with pytest.raises(ProcessStartError, match='the journal .* cannot be locked: '):
        serve(journal=f'{tmp_path}/{path}')


def test_a_file_that_can_only_be_read():
    folder = tempfile.mkdtemp()
    try:
        path = f'{folder}/journal'
        open_database(path, True).close()
        os.chmod(path, 0o444)
        os.chmod(folder, 0o777)
        reader, writer = fork.Pipe(False)

        def child():
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                Journal(path)
            except JournalError as error:
                writer.send(str(error))

        process = fork.Process(target=child)
        process.start()
        assert reader.poll(30)
        assert 'it has to be read and written by user' in reader.recv()
        process.join(30)
    finally:
        shutil.rmtree(folder)


def test_one_process_for_a_journal(serve, tmp_path):
    client = serve()
    (tmp_path / 'link').symlink_to('journal')
    for name in ('journal', 'link'):
        with pytest.raises(ProcessStartError, match=f'{name} is in use by process {client.process.pid}'):
            serve(journal=str(tmp_path / name))
    # What it has started does not keep it.
    restart(serve, client, executor='processes:1')


def test_one_that_somebody_else_is_writing(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, 'BUSY', 0.1)
    path = tmp_path / 'journal'
    open_database(str(path), True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute('BEGIN IMMEDIATE')
        with pytest.raises(ProcessStartError, match='cannot be used: database is locked'):
            serve()
        other.execute('ROLLBACK')
        client = serve()
        client.submit('stubborn', 1, id='one')
        assert work.begun.acquire(timeout=30)
        other.execute('BEGIN IMMEDIATE')
        assert client.submit('static', 1, id='two') == (
            503,
            'The journal cannot be written: database is locked',
        )
        work.gate.set()
        other.execute('ROLLBACK')
        assert client.wait('one', 30) == (200, 1)
        assert client.submit('static', 1, id='two').status == 202


def test_those_who_meet_a_journal_in_use_wait_together(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, 'BUSY', 0.1)
    tries, transaction = [], Store.transaction
    monkeypatch.setattr(Store, 'transaction', lambda store: (tries.append(1), transaction(store))[1])

    async def write():
        journal = Journal(str(tmp_path / 'journal'))
        with closing(sqlite3.connect(tmp_path / 'journal', isolation_level=None)) as other:
            other.execute('BEGIN IMMEDIATE')
            steps = [journal.do(lambda store: store.accept('one', 'note', [b'x'], 60, 10)) for _ in range(20)]
            replies = await asyncio.gather(*steps, return_exceptions=True)
        journal.close()
        return replies

    replies = asyncio.run(write())
    assert [str(reply) for reply in replies] == ['503 The journal cannot be written: database is locked'] * 20
    assert len(tries) == 1


# Disks that fail


def test_a_full_disk(serve, monkeypatch):
    def open_small(path, durable):
        connection = open_database(path, durable)
        connection.execute('PRAGMA max_page_count = 60')
        return connection

    monkeypatch.setattr(journal, 'open_database', open_small)
    client = serve(executor='threads:1')
    client.submit('stubborn', 'x', id='first')
    assert work.begun.acquire(timeout=30)
    accepted = []
    for number in range(100):
        reply = client.submit('pid', 'x' * 10_000, id=str(number))
        if reply.status != 202:
            break
        accepted.append(str(number))
    assert reply == (507, 'The journal cannot be written: database or disk is full')
    assert len(accepted) > 5
    # Others are not to suffer from one that is too large.
    assert client.cancel(accepted.pop()).status == 200
    work.gate.set()
    for name in ('first', *accepted):
        assert client.wait(name, 30).ok
    assert client.submit('pid', 'x' * 10_000, id='last').status == 202


@pytest.mark.skipif(not hasattr(resource, 'prlimit'), reason="Linux alone limits another process")
def test_what_has_ended_is_written_down_when_the_disk_lets_it(
    serve, tmp_path, monkeypatch, log_file, wait_until
):
    monkeypatch.setattr('pyams_zmq.jobs.runner._PAUSE', 0.01)
    client = serve()
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    most = (tmp_path / 'journal-wal').stat().st_size
    limit = resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    assert client.submit('static', 1, id='two').status in (503, 507)
    work.gate.set()
    wait_until(lambda: 'The journal cannot be written, and is tried again' in log_file.read_text(), 30)
    assert client.job('one').body['state'] == 'running'
    resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, limit)
    assert client.wait('one', 30) == (200, 1)
    assert client.job('one').body['attempts'] == 1
    assert client.job('two').status == 404


def test_an_outcome_that_does_not_fit(serve, monkeypatch, log_file):
    def open_picky(path, durable):
        connection = open_database(path, durable)
        connection.execute(
            "CREATE TEMP TRIGGER picky BEFORE UPDATE ON job WHEN new.body LIKE '%xxxx%'"
            " BEGIN SELECT RAISE(ABORT, 'it is too large'); END"
        )
        return connection

    monkeypatch.setattr(journal, 'open_database', open_picky)
    client = serve()
    client.submit('static', 'xxxx', id='one')
    reason = 'The outcome cannot be written: JournalFault: 413 The journal cannot be written: it is too large'
    assert client.wait('one', 30) == (500, reason)
    assert 'The outcome of the job one (static) cannot be written' in log_file.read_text()
    client.submit('static', 'x', id='two')
    assert client.wait('two', 30) == (200, 'x')


# Memory that is short


def fails_once(monkeypatch, owner, method, error=MemoryError, when='after'):
    """Let a method raise once, before or after it has done its work, when what is returned is released."""
    original, armed = getattr(owner, method), fork.Semaphore(0)

    def failing(*arguments, **options):
        if when == 'before' and armed.acquire(block=False):
            raise error
        result = original(*arguments, **options)
        if when == 'after' and armed.acquire(block=False):
            raise error
        return result

    monkeypatch.setattr(owner, method, failing)
    return armed


@pytest.mark.parametrize(
    ('owner', 'method', 'when', 'told'),
    [
        # What failed together with something else is tried again at once, and not logged.
        (Store, 'claim', 'after', ''),
        (Store, 'end', 'after', ''),
        (Store, 'remove_expired', 'after', ''),
        (Store, 'counts', 'before', ''),
        (Journal, '_commit', 'before', 'The journal is held up, and goes on'),
        (Journal, '_pass', 'before', 'The journal is held up, and goes on'),
        (Journal, '_pass', 'after', 'The journal is held up, and goes on'),
        (Runner, '_begin', 'before', 'Jobs are held up, and go on'),
        (runner, 'judge', 'before', 'Jobs are held up, and go on'),
        (Runner, '_look', 'before', 'Jobs are held up, and go on'),
        (Runner, '_remove_expired', 'before', 'Jobs are held up, and go on'),
    ],
)
def test_a_moment_without_memory(serve, monkeypatch, log_file, wait_until, owner, method, when, told):
    for pause in ('jobs.runner._PAUSE', 'jobs.journal._PAUSE', 'jobs.runner._HOUSEKEEPING'):
        monkeypatch.setattr(f'pyams_zmq.{pause}', 0.01)
    armed = fails_once(monkeypatch, owner, method, when=when)
    client = serve(executor='threads:1')
    armed.release()
    for number in range(3):
        wait_until(lambda number=number: client.submit('double', number, id=str(number)).ok, 30)
        assert client.wait(str(number), 30) == (200, 2 * number)
        assert client.job(str(number)).body['attempts'] == 1
    wait_until(lambda: told in log_file.read_text(), 30)
    assert not armed.acquire(block=False)
    client.process.stop()
    client.process.join(30)
    assert client.process.exitcode == ExitCode.OK


def test_what_shares_a_commit_with_a_failure_is_done_nevertheless():
    def fail(store):
        store.accept('half', 'note', [b'x'], 60, 10)
        raise ZeroDivisionError

    async def write():
        journal = Journal(':memory:')
        steps = [lambda store: store.accept('one', 'note', [b'x'], 60, 10), fail, Store.counts]
        try:
            return await asyncio.gather(*map(journal.do, steps), return_exceptions=True)
        finally:
            journal.close()

    accepted, failed, counts = asyncio.run(write())
    assert accepted[0] == 202
    assert isinstance(failed, ZeroDivisionError)
    assert counts['queued'] == 1


def test_a_transaction_that_could_not_be_rolled_back_is_rolled_back_later(store):
    store._execute('BEGIN')
    store.accept('half', 'note', [b'x'], 60, 10)
    with store.transaction():
        store.accept('one', 'note', [b'x'], 60, 10)
    assert store.counts()['queued'] == 1


def test_what_nobody_waits_for_any_more_is_written_nevertheless():
    async def write():
        gate, journal = threading.Event(), Journal(':memory:')
        blocked = journal.do(lambda store: gate.wait(30))
        await asyncio.sleep(0)
        forgotten = journal.do(lambda store: store.accept('one', 'note', [b'x'], 60, 10))
        blocked.cancel()
        forgotten.cancel()
        gate.set()
        try:
            return await journal.do(lambda store: store.read('one'))
        finally:
            journal.close()

    assert asyncio.run(write())['job'] == 'one'


# Ends at the worst moment


def dies_at(monkeypatch, method, when):
    """Let the process be killed before or after a method accepts a job, once what is returned is released."""
    original, armed = getattr(Journal, method), fork.Semaphore(0)

    def dying(self, *arguments):
        steps = arguments[0]
        result = original(self, *arguments) if when == 'after' else None
        if any('accept' in getattr(step[0], '__qualname__', '') for step in steps) and armed.acquire(
            block=False
        ):
            os.kill(os.getpid(), signal.SIGKILL)
        return result if when == 'after' else original(self, *arguments)

    monkeypatch.setattr(Journal, method, dying)
    return armed


@pytest.mark.parametrize('when', ['before', 'after'])
def test_killed_around_the_commit(serve, monkeypatch, when):
    armed = dies_at(monkeypatch, '_commit', when)
    client = serve()
    client.submit('static', 0, id='before')
    assert client.wait('before', 30).ok
    armed.release()
    work.gate.set()
    assert client.submit('stubborn', 1, id='one').status in (503, 504)
    client.process.join(30)
    client = serve()
    assert client.job('one').status == (200 if when == 'after' else 404)
    assert client.submit('stubborn', 1, id='one').status in (200, 202)
    assert client.wait('one', 30) == (200, 1)
    assert work.begun.acquire(block=False)
    assert not work.begun.acquire(block=False)


def test_killed_before_the_end_is_written_down(serve, monkeypatch):
    original, armed = Store.end, fork.Semaphore(1)

    def end(*arguments):
        if armed.acquire(block=False):
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)

    monkeypatch.setattr(Store, 'end', end)
    client = serve()
    client.submit('static', 1, id='one')
    client.process.join(30)
    client = serve()
    assert client.wait('one', 30) == (200, 1)
    assert client.job('one').body['attempts'] == 2


def test_what_waits_survives_and_keeps_its_order(serve):
    client = serve(executor='threads:1')
    client.submit('stubborn', 0, id='0')
    for number in range(1, 20):
        assert client.submit('static', number, id=str(number)).status == 202
    assert work.begun.acquire(timeout=30)
    client = restart(serve, client, executor='threads:1')
    work.gate.set()
    assert [client.wait(str(number), 30) for number in range(20)] == [(200, number) for number in range(20)]
    started = [client.job(str(number)).body['started'] for number in range(20)]
    assert started == sorted(started)


def test_a_job_that_brings_its_process_down_has_failed_in_the_end(serve):
    client = serve(max_interruptions=3)
    client.submit('die', 'kill', id='one')
    for _ in range(2):
        client.process.join(30)
        client = serve(max_interruptions=3)
    client.process.join(30)
    client = serve(max_interruptions=3)
    assert client.wait('one', 30) == (500, 'Interrupted 3 times: the process died while it ran')
    assert client.job('one').body['attempts'] == 3
    assert client.process.is_alive()


def test_a_job_that_brings_its_process_down_takes_no_other_along_for_ever(serve, wait_until):
    options = {'executor': 'threads:3', 'max_interruptions': 4}
    client = serve(**options)
    client.submit('stubborn', 1, id='innocent')
    assert work.begun.acquire(timeout=30)
    client.submit('die', 'kill', id='poison')
    for _ in range(2):
        client.process.join(30)
        client = serve(**options)
    wait_until(lambda: client.job('innocent').body['state'] == 'running', 30)
    assert client.submit('static', 1, id='new').status == 202
    assert client.wait('new', 30) == (200, 1)
    assert client.job('poison').body['state'] == 'queued'
    work.gate.set()
    for _ in range(2):
        client.process.join(30)
        client = serve(**options)
    assert client.wait('innocent', 30) == (200, 1)
    assert client.wait('poison', 30) == (500, 'Interrupted 4 times: the process died while it ran')


def test_cancelled_while_it_ran_and_the_process_died(serve):
    client = serve()
    client.submit('stubborn', id='one')
    assert work.begun.acquire(timeout=30)
    assert client.cancel('one').status == 202
    client = restart(serve, client)
    assert client.wait('one', 30).status == 410
    assert not work.begun.acquire(block=False)


def test_asked_to_end_it_lets_running_jobs_end_and_begins_no_more(serve):
    client = serve(executor='threads:1')
    client.submit('stubborn', 1, id='one')
    client.submit('static', 2, id='two')
    assert work.begun.acquire(timeout=30)
    client.process.terminate()
    work.gate.set()
    client.process.join(30)
    assert client.process.exitcode == ExitCode.OK
    client = serve(executor='threads:1')
    assert client.wait('one', 30) == (200, 1)
    assert client.wait('two', 30) == (200, 2)
    assert [client.job(name).body['attempts'] for name in ('one', 'two')] == [1, 1]


@pytest.mark.parametrize('executor', ['threads:1', 'processes:1'])
def test_what_does_not_end_in_time_runs_again_and_is_not_blamed(serve, executor):
    options = {'executor': executor, 'max_interruptions': 1}
    client = serve(stop_timeout=0.1, **options)
    client.submit('stubborn', 1, id='one')
    assert work.begun.acquire(timeout=30)
    client.process.terminate()
    client.process.join(30)
    assert client.process.exitcode == ExitCode.STOP_TIMEOUT
    client = serve(**options)
    assert work.begun.acquire(timeout=30)
    work.gate.set()
    assert client.wait('one', 30) == (200, 1)


# Versions


def test_jobs_of_unknown_type_are_kept(serve, log_file, wait_until):
    client = serve(executor='threads:1')
    client.submit('stubborn', id='running')
    client.submit('double', 1, id='first')
    client.submit('double', 2, id='second')
    client.submit('static', 3, id='third')
    assert work.begun.acquire(timeout=30)
    client = restart(serve, client, Fewer)
    assert client.wait('third', 30) == (200, 3)
    for name in ('running', 'first', 'second'):
        record = client.job(name).body
        assert (record['state'], record['unknown'], record['retry_at']) == ('queued', True, None)
    assert client.submit('double', 1, id='first').status == 404
    assert client.cancel('second').status == 200
    client = restart(serve, client, Fewer, how='stop')
    told = "1 jobs wait for a method 'double', which the delegate does not have"
    wait_until(lambda: told in log_file.read_text(), 30)
    client = restart(serve, client, how='stop')
    work.gate.set()
    assert client.wait('first', 30) == (200, 2)
    assert client.wait('running', 30).ok
    assert client.wait('second', 30).status == 410


def test_an_older_file_is_brought_up_to_date(tmp_path, monkeypatch):
    path = str(tmp_path / 'journal')
    with closing(open_database(path, True)) as connection:
        Store(connection).accept('one', 'note', [b'x'], 60, 10)
    newer = (*schema.MIGRATIONS, "ALTER TABLE job ADD COLUMN colour TEXT NOT NULL DEFAULT 'red';")
    monkeypatch.setattr(schema, 'MIGRATIONS', newer)
    for _ in range(2):
        with closing(open_database(path, True)) as connection:
            assert connection.execute('PRAGMA user_version').fetchone() == (2,)
            assert connection.execute('SELECT id, colour FROM job').fetchall() == [('one', 'red')]


def test_what_cannot_be_brought_up_to_date_stays_as_it_is(tmp_path, monkeypatch):
    path = str(tmp_path / 'journal')
    open_database(path, True).close()
    with monkeypatch.context() as patch:
        newer = (*schema.MIGRATIONS, 'ALTER TABLE job ADD COLUMN colour TEXT; DROP TABLE missing;')
        patch.setattr(schema, 'MIGRATIONS', newer)
        with pytest.raises(JournalError, match='cannot be used: no such table: missing'):
            open_database(path, True)
    with closing(open_database(path, True)) as connection:
        assert connection.execute('PRAGMA user_version').fetchone() == (1,)
        assert 'colour' not in [row[1] for row in connection.execute('PRAGMA table_info(job)')]


@pytest.mark.parametrize(('durable', 'level'), [(True, 2), (False, 1)])
def test_durability(tmp_path, durable, level):
    with closing(open_database(str(tmp_path / 'journal'), durable)) as connection:
        assert connection.execute('PRAGMA synchronous').fetchone() == (level,)
        assert connection.execute('PRAGMA journal_mode').fetchone() == ('wal',)


def test_a_relaxed_journal_survives_a_kill(serve):
    client = serve(durable=False)
    client.submit('stubborn', 1, id='one')
    client = restart(serve, client, durable=False)
    work.gate.set()
    assert client.wait('one', 30) == (200, 1)


# What is kept


@pytest.fixture
def store():
    store = Store(open_database(':memory:', False))
    yield store
    store.close()


def ended(store, *jobs, keep=60):
    for name in jobs:
        store.accept(name, 'note', [b'x'], keep, 100)
    for claim in store.claim(100, ['note'])[0]:
        store.end(claim.seq, 'done', 200, 'null')


def test_ended_jobs_are_removed_when_their_time_is_over(store):
    ended(store, 'a', keep=0)
    ended(store, 'b', keep=60)
    store.accept('c', 'note', [b'x'], 0, 100)
    assert store.remove_expired(100)
    assert not store.remove_expired(100)
    assert store.counts() == {'queued': 1, 'running': 0, 'done': 1, 'failed': 0, 'cancelled': 0}
    with pytest.raises(ReplyError, match='404 No such job: a'):
        store.read('a')
    assert store.accept('a', 'note', [b'other'], 60, 100)[0] == 202


def test_the_oldest_ended_jobs_are_removed_where_there_are_too_many(store):
    ended(store, *'abcde')
    store.accept('f', 'note', [b'x'], 0, 100)
    assert store.remove_expired(2)
    assert not store.remove_expired(2)
    assert [one['job'] for one in store.list(('queued', 'done'), None, 10)[0]] == ['f', 'e', 'd']


def test_a_clock_that_was_set_back_keeps_no_job_waiting(store):
    store.accept('a', 'note', [b'x'], 60, 100)
    (claim,), _ = store.claim(1, ['note'])
    store.put_back(claim.seq, 500, '"no"', MAX_DELAY + 100)
    (claim,), _ = store.claim(1, ['note'])
    assert (claim.id, claim.failures) == ('a', 1)
    store.put_back(claim.seq, 500, '"no"', MAX_DELAY - 100)
    claims, due = store.claim(1, ['note'])
    assert claims == []
    assert MAX_DELAY - 110 < due <= MAX_DELAY - 100


def test_what_waits_for_a_method_lets_others_pass(store):
    store.accept('a', 'gone', [b'x'], 60, 100)
    store.accept('b', 'note', [b'x'], 60, 100)
    (claim,), due = store.claim(1, ['note'])
    assert (claim.id, due) == ('b', None)
    assert store.unknown() == {'gone': 1}
    store.resume(['note', 'gone'], 5)
    assert [claim.id for claim in store.claim(2, ['note', 'gone'])[0]] == ['a', 'b']


def test_what_has_not_ended_is_not_tried_again(store):
    store.accept('a', 'note', [b'x'], 60, 100)
    assert store.retry('a', 100) == (202, {'job': 'a', 'state': 'queued'})
    store.claim(1, ['note'])
    assert store.retry('a', 0) == (202, {'job': 'a', 'state': 'running'})


def test_one_at_a_time_of_those_that_were_interrupted_twice(store):
    for name in 'abcd':
        store.accept(name, 'note', [b'x'], 60, 100)
    for _ in range(2):
        assert len(store.claim(3, ['note'])[0]) == 3
        store.resume(['note'], 5)
    first, second = store.claim(3, ['note'])[0]
    assert (first.id, second.id) == ('a', 'd')
    store.accept('e', 'note', [b'x'], 60, 100)
    assert [claim.id for claim in store.claim(3, ['note'])[0]] == ['e']
    store.end(first.seq, 'done', 200, 'null')
    assert [claim.id for claim in store.claim(3, ['note'])[0]] == ['b']


def test_a_digest_tells_frames_apart(store):
    store.accept('a', 'note', [b'12', b'3'], 60, 100)
    assert store.accept('a', 'note', [b'12', b'3'], 60, 100)[0] == 202
    for job_type, frames in (
        ('note', [b'1', b'23']),
        ('note', [b'123']),
        ('other', [b'12', b'3']),
        ('note', []),
    ):
        with pytest.raises(ReplyError, match='409 The id a belongs to a job with another content'):
            store.accept('a', job_type, frames, 60, 100)


def test_the_delay_doubles_up_to_an_hour():
    options = job_options(job(backoff=2)(lambda: None))
    assert [options.delay(failures) for failures in (1, 2, 3, 11, 12, 10**6)] == [2, 4, 8, 2048, 3600, 3600]


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        *(('journal', value) for value in ('', 4, b'journal', 'null\x00byte')),
        *(('durable', value) for value in ('true', 1, None)),
        *(('max_pending', value) for value in (0, -1, 1.5, '9', None, True, 2**40)),
        *(('max_interruptions', value) for value in (0, None)),
        *(('max_kept', value) for value in (-1, None)),
    ],
)
def test_options_that_make_no_sense(option, value):
    process = ZMQProcess('127.0.0.1', EchoHandler)
    with pytest.raises(ValueError, match=f'^{option} is '):
        process.configure(**{option: value})
