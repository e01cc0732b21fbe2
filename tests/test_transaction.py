"""Messages that are sent when the transaction commits: under pyramid_tm, with a real database beside."""

import logging
import multiprocessing
import os
import signal
import threading

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.request import Request, apply_request_extensions
from pyramid_retry import mark_error_retryable
from sqlalchemy import Column, Integer, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import declarative_base, sessionmaker
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from webtest import TestApp
from zope.interface.verify import verifyObject
from zope.sqlalchemy import mark_changed, register

from peers import handler_of
from pyams_zmq.calls import remember
from pyams_zmq.exceptions import NoTransactionError, ReplyError
from pyams_zmq.jobs import job
from pyams_zmq.transaction import join
from services import Process, running

Base = declarative_base()

fork = multiprocessing.get_context('fork')

#: Seconds until a process that is not there is given up.
SHORT = 0.3


class Row(Base):
    __tablename__ = 'rows'
    id = Column(Integer, primary_key=True)


class Recorder:
    """A delegate that remembers what came, and can count the rows that it sees then."""

    process = None

    def __init__(self):
        self.seen = []

    def note(self, data):
        self.seen.append(data)

    def rows(self, database):
        engine = create_engine(f'sqlite:///{database}')
        with engine.connect() as connection:
            self.seen.append(connection.execute(text('select count(*) from rows')).scalar())
        engine.dispose()

    def fail(self, data):
        self.seen.append(data)
        raise ValueError(data)

    def recall(self, data):
        return [200, self.seen]

    def forget(self, data):
        self.seen.clear()


class App:
    """An application with a database, a process, and a view that is the test's own function."""

    def __init__(self, folder, endpoint, **settings):
        self.database = folder / 'test.db'
        self.engine = create_engine(f'sqlite:///{self.database}')
        Base.metadata.create_all(self.engine)
        self.sessions = sessionmaker(self.engine)
        self.attempts = 0
        settings = {
            'tm.manager_hook': 'pyramid_tm.explicit_manager',
            'pyams_zmq.medias.address': endpoint,
            'pyams_zmq.medias.start': 'false',
            **settings,
        }
        config = Configurator(settings={name: value for name, value in settings.items() if value is not None})
        config.include('pyramid_retry')
        config.include('pyramid_tm')
        config.include('pyams_zmq')
        config.add_zmq_process('medias')
        config.add_route('work', '/')
        config.add_view(self._view, route_name='work', renderer='json')
        self.config = config
        self._app = None

    def _view(self, request):
        self.attempts += 1
        session = self.sessions()
        register(session, transaction_manager=request.tm)
        self.request = request
        self.messages = remember(request)
        return self.work(request, session)

    def get(self, work, **options):
        self.work = work
        if self._app is None:
            self._app = TestApp(self.config.make_wsgi_app())
        return self._app.get('/', **options)

    @property
    def rows(self):
        with self.engine.connect() as connection:
            return connection.execute(text('select count(*) from rows')).scalar()


@pytest.fixture(scope='module')
def service():
    """A process that all tests share which leave it as it is."""
    with running(Process('127.0.0.1', handler_of(Recorder()))) as process:
        yield process


@pytest.fixture
def process(start):
    """A process to be mistreated."""
    return start('127.0.0.1', handler_of(Recorder()))


@pytest.fixture
def make_app(tmp_path):
    apps = []

    def make_app(endpoint, **settings):
        apps.append(App(tmp_path, endpoint, **settings))
        return apps[-1]

    yield make_app
    for app in apps:
        app.engine.dispose()


@pytest.fixture
def app(make_app, service):
    return make_app(service.endpoint)


@pytest.fixture
def seen(call, service):
    """What the shared process has seen in this test."""
    call(service, 'forget')
    return lambda: call(service, 'recall').body


def test_sent_when_the_transaction_commits_and_not_before(app, seen):
    def work(request, session):
        session.add(Row())
        data = [1]
        assert request.zmq('medias').call_on_commit('note', data) is None
        data.append('too late: it is encoded when it is given')
        request.zmq('medias').call_on_commit('note', 2)
        request.zmq('medias').call('note', 'at once')
        return seen()

    assert app.get(work).json == ['at once']
    assert seen() == ['at once', [1], 2]
    assert app.rows == 1
    messages = [(one.type, one.on_commit, one.status) for one in app.messages]
    assert messages == [('note', True, 200), ('note', True, 200), ('note', False, 200)]


def test_what_was_committed_can_be_seen_by_the_process(app, seen):
    def work(request, session):
        session.add(Row())
        session.flush()
        request.zmq('medias').call_on_commit('rows', str(app.database))
        request.zmq('medias').call('rows', str(app.database))

    app.get(work)
    assert seen() == [0, 1]


def view_raises(request):
    raise ZeroDivisionError


def view_aborts(request):
    request.tm.abort()
    request.tm.begin()


def view_dooms(request):
    request.tm.doom()


def view_is_vetoed(request):
    request.response.status_int = 409


def view_raises_a_response(request):
    raise HTTPBadRequest


@pytest.mark.parametrize(
    ('end', 'error'),
    [
        (view_raises, ZeroDivisionError),
        (view_aborts, None),
        (view_dooms, None),
        (view_is_vetoed, None),
        (view_raises_a_response, None),
    ],
)
def test_never_sent_when_it_does_not_commit(make_app, service, seen, end, error):
    app = make_app(service.endpoint, **{'tm.commit_veto': 'pyramid_tm.default_commit_veto'})

    def work(request, session):
        session.add(Row())
        session.flush()
        request.zmq('medias').call_on_commit('note', 1)
        end(request)

    if error is None:
        app.get(work, status='*')
    else:
        with pytest.raises(error):
            app.get(work)
    assert app.rows == 0
    assert seen() == []
    assert [(one.status, one.taken_back) for one in app.messages] == [(None, True)]


def test_not_sent_where_the_database_refuses_the_commit(app, seen):
    def work(request, session):
        session.add(Row(id=1))
        request.zmq('medias').call_on_commit('note', 1)
        event.listen(session, 'before_commit', refuse)

    def refuse(session):
        raise OperationalError('commit', {}, Exception('disk full'))

    with pytest.raises(OperationalError, match='disk full'):
        app.get(work)
    assert app.rows == 0
    assert seen() == []


class Conflict(Exception):
    pass


mark_error_retryable(Conflict)


def test_nothing_is_sent_twice_with_pyramid_retry(app, seen):
    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('note', app.attempts)
        if app.attempts < 3:
            raise Conflict

    app.get(work)
    assert app.attempts == 3
    assert seen() == [3]
    assert app.rows == 1


def test_nothing_is_sent_twice_where_the_commit_itself_is_tried_again(app, seen):
    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('note', app.attempts)
        event.listen(session, 'before_commit', refuse)

    def refuse(session):
        if app.attempts < 2:
            raise Conflict

    app.get(work)
    assert app.attempts == 2
    assert seen() == [2]
    assert app.rows == 1


# Savepoints


def test_a_savepoint_takes_back_what_came_later(app, seen):
    def work(request, session):
        medias = request.zmq('medias')
        medias.call_on_commit('note', 1)
        savepoint = request.tm.savepoint()
        medias.call_on_commit('note', 2)
        inner = request.tm.savepoint()
        medias.call_on_commit('note', 3)
        inner.rollback()
        medias.call_on_commit('note', 4)
        savepoint.rollback()
        medias.call_on_commit('note', 5)

    app.get(work)
    assert seen() == [1, 5]


@pytest.mark.parametrize('times', [1, 2])
def test_a_savepoint_from_before_the_first_message(app, seen, times):
    """The resource leaves the transaction then, and has to come back for what is said later."""

    def work(request, session):
        medias = request.zmq('medias')
        savepoint = request.tm.savepoint()
        for _ in range(times):
            medias.call_on_commit('note', 'taken back')
            savepoint.rollback()
        medias.call_on_commit('note', 'sent')
        session.add(Row())

    app.get(work)
    assert seen() == ['sent']
    assert app.rows == 1


def test_nobody_is_asked_for_where_all_was_taken_back(make_app):
    app = make_app('127.0.0.1:9', **{'pyams_zmq.medias.timeout': str(SHORT)})

    def work(request, session):
        request.zmq('medias').call_on_commit('note', 1)
        savepoint = request.tm.savepoint()
        request.zmq('medias').call_on_commit('note', 2)
        savepoint.rollback()
        join(request).abort(request.tm.get())
        session.add(Row())

    app.get(work)
    assert app.rows == 1


# What is wrong is told at once


@pytest.mark.parametrize(
    ('message', 'error'),
    [
        (('note', {1, 2}), TypeError),
        (('note', object()), TypeError),
        (('note', 10**5000), ValueError),
        ((None, 1), TypeError),
        ((b'note', 1), TypeError),
    ],
)
def test_what_json_cannot_hold_is_refused_at_once(app, seen, message, error):
    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('note', 'before')
        with pytest.raises(error):
            request.zmq('medias').call_on_commit(*message)

    app.get(work)
    assert seen() == ['before']


def test_nested_too_deeply_is_refused_at_once(app, seen):
    nested = []
    for _ in range(100_000):
        nested = [nested]

    def work(request, session):
        with pytest.raises(RecursionError):
            request.zmq('medias').call_on_commit('note', nested)

    app.get(work)
    assert seen() == []


def test_what_is_too_large_is_refused_at_once(make_app, service, seen):
    app = make_app(service.endpoint, **{'pyams_zmq.medias.max_message_size': '100'})

    def work(request, session):
        request.zmq('medias').call_on_commit('note', 'x' * 88)
        with pytest.raises(ReplyError, match='^413 The message has 101 bytes; 100 are taken at most'):
            request.zmq('medias').call_on_commit('note', 'x' * 89)

    app.get(work)
    assert seen() == ['x' * 88]


# Without a transaction


def call_on_commit(request):
    with pytest.raises(NoTransactionError) as error:
        request.zmq('medias').call_on_commit('note', 1)
    return str(error.value)


def test_without_pyramid_tm():
    config = Configurator(settings={'pyams_zmq.medias.start': 'false'})
    config.include('pyams_zmq')
    config.add_zmq_process('medias', address='127.0.0.1:9')
    config.commit()
    request = Request.blank('/')
    request.registry = config.registry
    config.begin(request)
    apply_request_extensions(request)
    assert "pip install 'pyams_zmq[tm]'" in call_on_commit(request)
    config.end()


@pytest.mark.parametrize('before', [0, 1])
def test_in_a_hook_that_is_called_after_the_commit(app, seen, before):
    """Nothing would be sent any more; that is told."""
    told = []

    def hook(_success, request):
        for send in (request.zmq('medias').call_on_commit, request.zmq('medias').submit_on_commit):
            with pytest.raises(NoTransactionError, match='has ended already') as caught:
                send('note', 2)
            told.append(caught.value)

    def work(request, session):
        for number in range(before):
            request.zmq('medias').call_on_commit('note', number)
        request.tm.get().addAfterCommitHook(hook, [request])

    app.get(work)
    assert len(told) == 2
    assert seen() == list(range(before))


@pytest.mark.parametrize('hook', ['pyramid_tm.explicit_manager', None])
def test_where_pyramid_tm_is_not_active_for_the_request(make_app, service, seen, hook):
    """The manager of the thread would begin a transaction when asked, which nobody would commit."""
    app = make_app(
        service.endpoint, **{'tm.manager_hook': hook, 'tm.activate_hook': 'test_transaction.inactive'}
    )
    told = app.get(lambda request, session: call_on_commit(request)).json
    assert ('no transaction' if hook else 'explicit_manager') in told
    transaction.commit()
    assert seen() == []


def inactive(request):
    return False


def test_after_the_transaction_has_ended(app, seen):
    def work(request, session):
        request.zmq('medias').call_on_commit('note', 1)
        request.tm.commit()
        told = call_on_commit(request)
        request.tm.begin()
        return told

    assert 'it has ended' in app.get(work).json
    assert seen() == [1]


def test_the_manager_of_the_thread_serves_where_pyramid_tm_is_active(make_app, service, seen):
    app = make_app(service.endpoint, **{'tm.manager_hook': None})

    def work(request, session):
        request.zmq('medias').call_on_commit('note', 1)

    app.get(work)
    assert seen() == [1]


def test_outside_the_tween_with_a_manager_that_says_when_it_begins(app, seen):
    """As in a script or a shell."""

    def work(request, session):
        request.tm.abort()
        with request.tm:
            request.zmq('medias').call_on_commit('note', 'with')
        with pytest.raises(TypeError), request.tm:
            request.zmq('medias').call_on_commit('note', 'never') + 1
        request.tm.begin()

    app.get(work)
    assert seen() == ['with']


def test_two_transactions_of_one_request(app, seen):
    def work(request, session):
        for number in range(2):
            request.zmq('medias').call_on_commit('note', number)
            request.tm.commit()
            request.tm.begin()
        request.zmq('medias').call_on_commit('note', 'last')

    app.get(work)
    assert seen() == [0, 1, 'last']


# Nobody there


def test_nobody_there_aborts_the_transaction(make_app):
    app = make_app('127.0.0.1:9', **{'pyams_zmq.medias.timeout': str(SHORT)})

    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('note', 1)

    with pytest.raises(ReplyError, match="503 Not committed, as 'medias' cannot be reached: Nobody there"):
        app.get(work)
    assert app.rows == 0


def test_a_refusal_aborts_the_transaction(make_app, start):
    process = start(auth='user:password')
    app = make_app(process.endpoint, **{'pyams_zmq.medias.auth': 'user:wrong'})

    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('echo', 1)

    with pytest.raises(ReplyError, match='^403 Not committed') as error:
        app.get(work)
    assert 'wrong' not in str(error.value).partition('cannot be reached')[0]
    assert 'user:' not in str(error.value)
    assert app.rows == 0


def test_a_stopped_process_aborts_the_transaction_though_a_connection_is_open(make_app, process):
    app = make_app(process.endpoint, **{'pyams_zmq.medias.timeout': str(SHORT)})

    def work(request, session):
        request.zmq('medias').call('note', 1, timeout=30)
        os.kill(process.pid, signal.SIGSTOP)
        session.add(Row())
        request.zmq('medias').call_on_commit('note', 2)

    with pytest.raises(ReplyError, match='503 Not committed'):
        app.get(work)
    os.kill(process.pid, signal.SIGCONT)
    assert app.rows == 0


def test_an_error_page_of_the_application_for_what_was_not_committed(make_app):
    app = make_app('127.0.0.1:9', **{'pyams_zmq.medias.timeout': str(SHORT)})
    app.config.add_exception_view(lambda error, request: 'sorry', context=ReplyError, renderer='string')

    def work(request, session):
        request.zmq('medias').call_on_commit('note', 1)

    assert app.get(work).text == 'sorry'


def test_a_busy_process_is_there(make_app, start, wait_until):
    """Its method may take long: no reason to lose the work of the transaction."""
    entered, gate = fork.Event(), fork.Event()

    class Busy(Recorder):
        def block(self, data):
            entered.set()
            gate.wait(30)

    process = start('127.0.0.1', handler_of(Busy()))
    app = make_app(process.endpoint, **{'pyams_zmq.medias.timeout': '30'})

    def work(request, session):
        session.add(Row())
        blocked.start()
        assert entered.wait(30)
        request.zmq('medias').call_on_commit('note', 1)
        event.listen(session, 'after_commit', lambda session: gate.set())

    def block():
        app.config.registry.medias = app.request.zmq('medias').call('block')

    blocked = threading.Thread(target=block)
    app.get(work)
    blocked.join(30)
    assert app.rows == 1


# Too late to abort


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.ERROR, 'pyams_zmq.transaction')

    def errors():
        return [one.getMessage() for one in caplog.records if one.name == 'pyams_zmq.transaction']

    return errors


def test_what_fails_after_the_commit_is_logged(app, seen, errors):
    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('fail', 'a reason')
        request.zmq('medias').call_on_commit('no_such_type', 'secret')
        request.zmq('medias').call_on_commit('note', 'sent all the same')

    app.get(work)
    assert seen() == ['a reason', 'sent all the same']
    assert app.rows == 1
    assert errors() == [
        "Committed, but the message 'fail' to 'medias' (20 bytes) failed: 500 ValueError: a reason",
        "Committed, but the message 'no_such_type' to 'medias' (26 bytes) failed:"
        ' 404 No such message type: no_such_type',
    ]


def end_after_the_vote(process, session):
    """The process ends when it has been asked for, and the database has committed."""

    def end(_session):
        process.kill()
        process.join(30)

    event.listen(session, 'after_commit', end)


def test_a_process_that_ends_during_the_commit_costs_no_error_page(make_app, process, errors, caplog):
    app = make_app(process.endpoint, **{'pyams_zmq.medias.timeout': str(SHORT)})

    def work(request, session):
        session.add(Row())
        for number in range(3):
            request.zmq('medias').call_on_commit('note', number)
        end_after_the_vote(process, session)
        return 'done'

    assert app.get(work).json == 'done'
    assert app.rows == 1
    # The first may find the connection still open.
    assert len(errors()) == 3
    assert all("Committed, but the message 'note' to 'medias' (11 bytes)" in line for line in errors())
    assert 'is lost: 503 Nobody there' in errors()[-1]
    assert app.messages[-1].status == 503
    assert app.messages[-1].problem.startswith('Nobody there')


def test_what_was_lost_is_logged_whole_for_those_who_ask(make_app, process, caplog):
    caplog.set_level(logging.DEBUG, 'pyams_zmq.transaction')
    app = make_app(process.endpoint, **{'pyams_zmq.medias.timeout': str(SHORT)})

    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('note', {'id': 7})
        end_after_the_vote(process, session)

    app.get(work)
    assert caplog.messages[-1].endswith('lost: b\'["note", {"id": 7}]\'')


def test_a_message_that_may_have_arrived_is_not_sent_again(make_app, start, errors):
    """All messages together have the time of one call, and each of them a second at least."""

    class Slow(Recorder):
        def hang(self, data):
            self.seen.append(data)
            gate.wait(60)

    gate = fork.Event()
    process = start('127.0.0.1', handler_of(Slow()))
    app = make_app(process.endpoint, **{'pyams_zmq.medias.timeout': str(SHORT)})

    def work(request, session):
        session.add(Row())
        request.zmq('medias').call_on_commit('hang', 1)
        request.zmq('medias').call_on_commit('note', 2)

    app.get(work)
    gate.set()
    assert app.rows == 1
    first, second = errors()
    assert "'hang' to 'medias' (11 bytes) may be lost: 504 No answer within" in first
    assert "'note' to 'medias' (11 bytes) may be lost: 504 No answer within" in second
    assert app.request.zmq('medias').call('recall', timeout=30).body == [1, 2]


def test_an_interrupt_while_they_are_sent_tells_what_was_not(make_app, service, errors, caplog):
    app = make_app(service.endpoint)

    def work(request, session):
        medias = request.zmq('medias')
        medias.call_on_commit('note', 1)
        medias.call_on_commit('note', 2)
        medias.deliver = interrupt

    def interrupt(message, payload, timeout):
        raise SystemExit  # what a web server does to a worker that takes too long

    app.get(work)
    assert len(errors()) == 2
    assert all('may be lost: interrupted' in line for line in errors())


def test_a_reply_that_cannot_be_read_is_no_reason_to_stop(make_app, service, errors, seen):
    app = make_app(service.endpoint)

    def work(request, session):
        odd = request.zmq('medias')
        odd.call_on_commit('note', 1)
        odd.deliver = unreadable
        request.zmq('medias').call_on_commit('note', 2)

    def unreadable(message, payload, timeout):
        raise ValueError('The reply has 2 frames')

    app.get(work)
    assert errors() == [
        "Committed, but the message 'note' to 'medias' (11 bytes) may be lost:"
        ' 504 ValueError: The reply has 2 frames'
    ]
    assert seen() == [2]


# Jobs


class Worker(Recorder):
    @job
    def work(self, data):
        return [200, data]


@pytest.fixture
def serve_jobs(start, tmp_path):
    """Start a process with jobs, always the same."""
    service = type('WithJobs', (Process,), {'journal': str(tmp_path / 'journal')})
    return lambda: start(f'ipc://{tmp_path}/socket', handler_of(Worker()), cls=service)


def test_a_job_is_submitted_when_the_transaction_commits(make_app, serve_jobs):
    app = make_app(serve_jobs().endpoint)

    def work(request, session):
        medias = request.zmq('medias')
        ids = [medias.submit_on_commit('work', 1), medias.submit_on_commit('work', 2, id='mine')]
        assert ids[1] == 'mine'
        assert [medias.job(one).status for one in ids] == [404, 404]
        savepoint = request.tm.savepoint()
        ids.append(medias.submit_on_commit('work', 3))
        savepoint.rollback()
        return ids

    ids = app.get(work).json
    medias = app.request.zmq('medias')
    assert [medias.wait(one, 30).body for one in ids[:2]] == [1, 2]
    assert medias.job(ids[2]).status == 404
    assert [(one.type, one.taken_back) for one in app.messages if one.on_commit] == [
        (f'_submit work {one}', one == ids[2]) for one in ids
    ]


@pytest.mark.parametrize('wrong', ['', 'a space', 'é', 'x' * 129, 7])
def test_an_id_that_no_job_can_have_is_refused_at_once(app, wrong):
    def work(request, session):
        with pytest.raises(ValueError, match='1 to 128 visible ASCII'):
            request.zmq('medias').submit_on_commit('work', 1, id=wrong)

    app.get(work)


def test_a_submission_whose_reply_was_lost_is_repeated(make_app, serve_jobs, errors):
    """The process is killed between vote and sending, and one like it started: one job for each id."""
    first = serve_jobs()
    app = make_app(first.endpoint, **{'pyams_zmq.medias.timeout': '30'})

    def work(request, session):
        session.add(Row())
        event.listen(session, 'after_commit', lambda _session: replace())
        return [request.zmq('medias').submit_on_commit('work', number) for number in range(3)]

    def replace():
        first.kill()
        first.join(30)
        serve_jobs()

    ids = app.get(work).json
    assert errors() == []
    medias = app.request.zmq('medias')
    assert [medias.wait(one, 30).body for one in ids] == [0, 1, 2]
    assert len(medias.jobs().body['jobs']) == 3


def test_a_submission_that_got_through_but_whose_reply_did_not(make_app, serve_jobs, errors):
    app = make_app(serve_jobs().endpoint)

    def work(request, session):
        sender = request.zmq('medias')
        deliver = sender.deliver

        def lose_the_first_reply(message, payload, timeout):
            sender.deliver = deliver
            assert deliver(message, payload, timeout).status == 202
            raise ValueError('unreadable')

        sender.deliver = lose_the_first_reply
        return sender.submit_on_commit('work', 5)

    job_id = app.get(work).json
    assert errors() == []
    assert app.request.zmq('medias').wait(job_id, 30).body == 5
    assert len(app.request.zmq('medias').jobs().body['jobs']) == 1


def test_a_job_that_is_not_accepted_is_logged(app, errors):
    app.get(lambda request, session: request.zmq('medias').submit_on_commit('work', 1, id='x'))
    assert errors() == [
        "Committed, but the message '_submit work x' to 'medias' (51 bytes) failed:"
        ' 404 This process has no journal, and so no jobs'
    ]


# How it joins


def test_it_is_a_data_manager(app):
    def work(request, session):
        request.zmq('medias').call_on_commit('note', 1)
        session.add(Row())
        mark_changed(session)
        outbox = join(request)
        assert join(request) is outbox
        assert outbox.transaction_manager is request.tm
        verifyObject(ISavepointDataManager, outbox)
        verifyObject(IDataManagerSavepoint, outbox.savepoint())
        keys = [one.sortKey() for one in request.tm.get()._resources]
        assert sorted(keys)[0] == outbox.sortKey()
        assert len(keys) == 2

    app.get(work)
