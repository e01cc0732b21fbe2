"""What comes for the tests of users: stubs and the pytest plugin, against what real processes do."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import warnings
import weakref

import pytest
import zmq
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry, get_current_request
from webtest import TestApp

from peers import handler_of
from pyams_zmq.client import Reply
from pyams_zmq.context import request_context
from pyams_zmq.declaration import declarations
from pyams_zmq.exceptions import ProcessStartError, ReplyError, SettingError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.jobs import job
from pyams_zmq.process import ZMQProcess
from pyams_zmq.testing import (
    Call,
    ZMQStub,
    declared_process,
    replace_client,
    running,
    stub_processes,
)
from services import Echo, EchoHandler, Process


class Everything(Echo):
    """More of what a delegate may do."""

    def __init__(self):
        self.runs = []

    async def gather(self, data):
        results = await asyncio.gather(*(self.later(n / 1000) for n in range(data)))
        return [200, [body for _status, body in results]]

    def bad_pair(self, data):
        return ['200', data]

    def exits(self, data):
        raise SystemExit(data)

    @job
    def work(self, data, progress):
        progress(1, 1, 'done')
        return [201, {'worked': data}]

    @job(retries=3, backoff=1000)
    def unsteady(self, data):
        self.runs.append(data)
        if len(self.runs) < 3:
            raise ValueError(data)
        return [200, len(self.runs)]

    @job
    async def asynchronous_work(self, data):
        await asyncio.sleep(0)
        return [200, data]


class Everywhere(Process):
    journal = ':memory:'
    workers = 1


MESSAGES = [
    ('echo', {'a': [1, 2.5, None, 'é']}),
    ('echo', (1, 2)),
    ('static', 'x'),
    ('later', 0.001),
    ('gather', 3),
    ('nothing', 1),
    ('fail', 'because'),
    ('exits', 3),
    ('refuse', 'mine'),
    ('unfit', None),
    ('bad_pair', 1),
    ('no_such', 1),
    ('attribute', 1),
    ('_private', 1),
    ('_ping', None),
    ('_jobs', 'x'),
    ('_job', 'unknown'),
    ('_submit', {'type': 'echo'}),
    ('_cancel', ''),
]


@pytest.mark.parametrize('workers', [0, 1])
def test_a_stub_replies_as_the_process_does(zmq_process, zmq_stub, workers):
    def make():
        process = Everywhere('127.0.0.1', handler_of(Everything()))
        process.configure(workers=workers)
        return process

    real, stub = zmq_process(make()), zmq_stub(make())
    for message in MESSAGES:
        expected = real.call(*message, timeout=30)
        reply = stub.call(*message)
        assert (reply, reply.delivered, reply.size) == (expected, True, expected.size), message
    for garbage in (b'', b'\xff', b'1', b'[1, 2]', b'["a"]', b'[' * 100_000):
        assert stub.send(garbage) == real.send(garbage, timeout=30)
    assert len(stub.calls) == len(MESSAGES)
    assert stub.call('_status').body.keys() == real.call('_status').body.keys()


def test_what_was_sent_is_remembered(zmq_stub):
    stub = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))
    stub.call('echo', (1, {2: None}))
    assert stub.calls == [Call('echo', [1, {'2': None}], Reply(200, [1, {'2': None}]))]
    assert stub.calls[0].reply.delivered
    assert isinstance(stub.delegate, Echo)
    assert stub.delegate.process.name in repr(stub)


@pytest.mark.parametrize('data', [{1, 2}, 10**5000], ids=['set', 'number'])
def test_what_json_cannot_hold_is_an_error_as_ever(zmq_stub, data):
    stub = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))
    with pytest.raises((TypeError, ValueError)):
        stub.call('echo', data)
    assert stub.calls == []


def test_too_large_a_message(zmq_stub):
    process = ZMQProcess('127.0.0.1', EchoHandler)
    process.configure(max_message_size=100)
    assert zmq_stub(process).call('echo', 'x' * 100).status == 413


def test_the_thread_and_the_threadlocals(zmq_stub):
    config = Configurator()
    config.commit()

    class Here(Echo):
        def here(self, data):
            assert get_current_registry() is self.process.registry is config.registry
            assert get_current_request() is None
            return [200, threading.get_ident()]

        async def there(self, data):
            return self.here(data)

    config.begin('a request')
    for workers in (0, 1):
        process = ZMQProcess('127.0.0.1', handler_of(Here()), registry=config.registry, workers=workers)
        for message_type in 'here', 'there':
            assert zmq_stub(process).call(message_type) == (200, threading.get_ident())
    assert get_current_request() == 'a request'
    config.end()


def test_without_a_registry_the_threadlocals_stay_as_they_are(zmq_stub):
    class Here(Echo):
        def here(self, data):
            return [200, get_current_request()]

    config = Configurator()
    config.begin('a request')
    assert zmq_stub(ZMQProcess('127.0.0.1', handler_of(Here()))).call('here').body == 'a request'
    config.end()


def test_nobody_there(zmq_stub):
    stub = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))
    assert stub.connect() == (200, None)
    stub.undelivered = Reply.undelivered(503, 'Nobody there')
    for reply in (stub.call('echo', 1), stub.connect()):
        assert (reply.status, reply.delivered) == (503, False)
    stub.undelivered = None
    assert stub.call('echo', 2).ok
    assert [one.reply.status for one in stub.calls] == [503, 200]


def test_a_delegate_that_stops_its_process(zmq_stub):
    stub = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))
    assert stub.call('stop') == (200, 'stopping')
    assert stub.call('echo').status == 503
    assert stub.connect().status == 503


def test_a_handler_that_replies_later_or_never(zmq_stub):
    class Later(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            if b'late' in frames[-1]:
                self.process.loop.call_later(0.01, self.rep_stream.send_json, [200, 'later'])
            elif b'parts' in frames[-1]:
                self.rep_stream.send_multipart([b'1', b'2'])

    process = ZMQProcess('127.0.0.1', Later)
    process.configure(reply_timeout=0.05)
    stub = zmq_stub(process)
    assert stub.call('late') == (200, 'later')
    assert stub.call('never') == (500, 'TimeoutError: no reply within 0.05 s')
    reply = stub.call('never', timeout=0.01)
    assert (reply.status, reply.delivered) == (504, False)
    assert stub.call('late') == (200, 'later')
    with pytest.raises(ValueError, match='2 frames'):
        stub.call('parts')
    for senseless in (0, 'soon'):
        with pytest.raises(ValueError, match='timeout'):
            stub.call('late', timeout=senseless)


# Jobs


def test_a_job_has_ended_when_it_was_submitted(zmq_stub):
    stub = zmq_stub(Everywhere('127.0.0.1', handler_of(Everything())))
    reply = stub.submit('work', 5, id='mine')
    assert reply == (202, {'job': 'mine', 'state': 'queued'})
    assert stub.job('mine').body['state'] == 'done'
    assert stub.wait('mine', 1) == (201, {'worked': 5})
    assert stub.call('work', 6).status == 202
    assert stub.submit('work', 5, id='mine').status == 200
    assert stub.cancel('mine').status == 409
    assert len(stub.jobs('done').body['jobs']) == 2


def test_retries_do_not_wait(zmq_stub):
    stub = zmq_stub(Everywhere('127.0.0.1', handler_of(Everything())))
    stub.submit('unsteady', 1, id='retried')
    assert stub.job('retried').body['attempts'] == 3
    assert stub.wait('retried', 1) == (200, 3)
    assert stub.wait(stub.submit('asynchronous_work', 2).body['job'], 1) == (200, 2)


def test_jobs_without_a_journal_are_refused_as_ever():
    with pytest.raises(SettingError, match='the process has no journal'):
        ZMQStub(ZMQProcess('127.0.0.1', handler_of(Everything())))


# Several stubs, several threads


def test_a_delegate_may_call_the_stub_of_another_process(zmq_stub):
    inner = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))

    class Outer(Echo):
        def ask(self, data):
            return inner.call('echo', data)

        async def ask_async(self, data):
            return await asyncio.get_running_loop().run_in_executor(None, inner.call, 'echo', data)

        def run_a_loop(self, data):
            return asyncio.run(self.later(data))

    outer = zmq_stub(ZMQProcess('127.0.0.1', handler_of(Outer()), workers=1))
    assert outer.call('ask', 1) == (200, 1)
    assert outer.call('ask_async', 2) == (200, 2)
    assert outer.call('run_a_loop', 0.001) == (200, 0.001)


def test_a_delegate_that_waits_for_itself(zmq_stub):
    class Itself(Echo):
        def ask(self, data):
            return stub.call('echo', data, timeout=0.05)

    stub = zmq_stub(ZMQProcess('127.0.0.1', handler_of(Itself()), workers=1))
    assert stub.call('ask', 1) == (504, 'No answer within 0.05 s')


def test_threads_share_a_stub(zmq_stub):
    stub = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))
    wrong = []

    def call(thread):
        for number in range(20):
            for message_type in 'echo', 'later':
                if stub.call(message_type, [thread, number] if message_type == 'echo' else 0) not in (
                    (200, [thread, number]),
                    (200, 0),
                ):
                    wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(stub.calls) == 160


def test_inside_a_running_loop(zmq_stub):
    stub = zmq_stub(ZMQProcess('127.0.0.1', EchoHandler))

    def callback(loop):
        replies.append(stub.call('later', 0))
        loop.stop()

    replies = []
    loop = asyncio.new_event_loop()
    loop.call_soon(callback, loop)
    loop.run_forever()
    loop.close()
    assert replies == [(200, 0)]


# Made and ended


def test_a_process_that_replies_to_nobody_has_no_stub():
    class Puller(ZMQProcess):
        socket_type = zmq.PULL

    with pytest.raises(ValueError, match='no socket of type REP'):
        ZMQStub(Puller('127.0.0.1', EchoHandler))


def test_a_stub_that_was_closed():
    with ZMQStub(Everywhere('127.0.0.1', handler_of(Everything()))) as stub:
        assert stub.submit('work', 1, id='x').ok
    assert stub.call('echo').status == 503
    stub.close()


def test_a_stub_that_nobody_closed_leaves_nothing_behind():
    threads = set(threading.enumerate())
    stub = ZMQStub(Everywhere('127.0.0.1', handler_of(Everything())))
    stub.submit('work', 1)
    gone = weakref.ref(stub)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        del stub
        gc.collect()
    assert gone() is None
    assert [str(one.message) for one in caught] == []
    assert {
        one for one in threading.enumerate() if one not in threads and one.name == 'pyams_zmq-journal'
    } == set()


def test_a_setting_that_makes_no_sense_is_an_error_as_ever():
    with pytest.raises(ValueError, match='workers'):
        ZMQStub(ZMQProcess('127.0.0.1', EchoHandler, workers=-1))


# In an application


class Medias:
    process = None

    def __init__(self):
        self.indexed = []

    def convert(self, data):
        return [200, f'{data} converted']

    def index(self, data):
        with request_context() as request:
            self.indexed.append([data, request.registry.settings['some']])

    def refuse(self, data):
        raise ReplyError(409, 'no')


def upload(request):
    medias = request.zmq('medias')
    if 'commit' in request.params:
        medias.call_on_commit('index', request.params['commit'])
    if 'abort' in request.params:
        request.tm.doom()
    if 'other' in request.params:
        return request.zmq('other').call('anything')
    return medias.call('convert', 'x')


def make_app(**settings):
    config = Configurator(
        settings={'some': 'setting', 'tm.manager_hook': 'pyramid_tm.explicit_manager', **settings}
    )
    config.include('pyams_zmq')
    config.include('pyramid_tm')
    config.add_zmq_process('medias', Medias)
    config.add_zmq_process('other', address='127.0.0.1:9', start=False)
    config.add_route('upload', '/')
    config.add_view(upload, route_name='upload', renderer='json')
    return config.make_wsgi_app()


def test_an_application_with_stubs(zmq_stubs):
    application = make_app(**{'pyams_zmq.medias.start': 'false'})
    stubs = zmq_stubs(application.registry)
    app = TestApp(application)
    assert app.get('/').json == [200, 'x converted']
    app.get('/?commit=1')
    app.get('/?commit=2&abort')
    assert stubs['medias'].delegate.indexed == [['1', 'setting']]
    assert app.get('/?other').json == [404, 'No such message type: anything']
    stubs['medias'].undelivered = Reply.undelivered(503, 'Nobody there')
    with pytest.raises(ReplyError, match="503 Not committed, as 'medias' cannot be reached: Nobody there"):
        app.get('/?commit=3')


def test_what_the_stub_replies_after_the_commit_is_logged_as_ever(zmq_stubs, caplog):
    class Failing(Medias):
        def index(self, data):
            raise ValueError(data)

    application = make_app(**{'pyams_zmq.medias.start': 'false'})
    zmq_stubs(application.registry, medias=Failing)
    with caplog.at_level(logging.ERROR, 'pyams_zmq.transaction'):
        TestApp(application).get('/?commit=1')
    assert 'failed: 500 ValueError: 1' in caplog.messages[-1]


def test_other_delegates_for_a_test(zmq_stubs):
    class Fake:
        def convert(self, data):
            return [200, 'fake']

    class Other:
        def anything(self, data):
            return [201, 'of another class']

    application = make_app(**{'pyams_zmq.medias.start': 'false'})
    fake = Fake()
    stubs = zmq_stubs(application.registry, medias=fake, other=Other)
    app = TestApp(application)
    assert app.get('/').json == [200, 'fake']
    assert app.get('/?other').json == [201, 'of another class']
    assert stubs['medias'].delegate is fake
    with pytest.raises(SettingError, match="no process 'media' is declared; the nearest is medias"):
        stub_processes(application.registry, media=fake)


def test_an_application_that_includes_its_stubs():
    """Nothing is started, though the settings say so, and it need not be known from what."""
    application = make_app(**{'pyramid.includes': 'pyams_zmq.testing', 'pyams_zmq.medias.start': 'app'})
    app = TestApp(application)
    assert app.get('/').json == [200, 'x converted']
    app.get('/?commit=1')
    stubs = declarations(application.registry)
    assert stubs['medias'].client.delegate.indexed == [['1', 'setting']]
    for declaration in stubs.values():
        declaration.client.close()


def test_an_application_with_a_real_process(zmq_process):
    application = make_app(**{'pyams_zmq.medias.start': 'false', 'pyams_zmq.medias.auth': 'user:secret'})
    process = declared_process(application.registry, 'medias')
    replace_client(application.registry, 'medias', zmq_process(process))
    assert TestApp(application).get('/').json == [200, 'x converted']
    assert process.is_alive()


def test_a_process_ends_with_its_context():
    process = Process('127.0.0.1', EchoHandler)
    with pytest.raises(AttributeError), running(process) as client:
        assert client.call('echo', 1).no_such_attribute
    assert process.exitcode == 0


def test_a_process_that_cannot_start():
    with pytest.raises(ProcessStartError), running(ZMQProcess('192.0.2.1:5', EchoHandler)):
        pass


# The plugin


USERS_TESTS = """
import pytest

from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess


class Delegate:
    process = None
    count = 0

    def count_up(self, data):
        self.count += 1
        return [200, self.count]


class Handler(ZMQMessageHandler):
    handler = Delegate


@pytest.fixture(scope='session')
def shared(zmq_session_process):
    return zmq_session_process(ZMQProcess('127.0.0.1', Handler))


def test_one(shared, zmq_process, zmq_stub):
    assert shared.call('count_up').body == 1
    assert zmq_process(ZMQProcess('127.0.0.1', Handler)).call('count_up').body == 1
    assert zmq_stub(ZMQProcess('127.0.0.1', Handler)).call('count_up').body == 1


def test_two(shared, zmq_process):
    assert shared.call('count_up').body == 2
    assert zmq_process(ZMQProcess('127.0.0.1', Handler)).call('count_up').body == 1
"""


def test_the_plugin_in_a_run_of_its_own(tmp_path):
    (tmp_path / 'pytest.ini').write_text('[pytest]')
    (tmp_path / 'test_users.py').write_text(USERS_TESTS)
    outcome = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert '2 passed' in outcome.stdout, outcome.stdout + outcome.stderr


class Records:
    """Takes part in a transaction, and remembers how that ended."""

    def __init__(self):
        self.ends = []

    def sortKey(self):
        return 'records'

    def nothing(self, _transaction):
        pass

    tpc_begin = commit = tpc_vote = tpc_abort = nothing

    def tpc_finish(self, _transaction):
        self.ends.append('committed')

    def abort(self, _transaction):
        self.ends.append('aborted')


@pytest.mark.parametrize('fails', [False, True])
def test_a_delegate_has_a_transaction_of_its_own(fails):
    """Not that of the view, in whose thread a stub calls it: pyramid_tm may have one manager for a thread."""
    views, delegates = Records(), Records()

    class Indexing:
        process = None

        def index(self, data):
            with request_context() as request:
                request.tm.get().join(delegates)
                if fails:
                    raise ValueError(data)

    def view(request):
        request.tm.get().join(views)
        return request.zmq('medias').call('index', 1)

    config = Configurator(settings={})
    config.include('pyams_zmq')
    config.include('pyramid_tm')
    config.add_zmq_process('medias', Indexing, address='127.0.0.1:9', start=False)
    config.add_route('index', '/')
    config.add_view(view, route_name='index', renderer='json')
    app = TestApp(config.make_wsgi_app())
    stub_processes(config.registry)
    assert app.get('/').json[0] == (500 if fails else 200)
    assert delegates.ends == ['aborted' if fails else 'committed']
    assert views.ends == ['committed']
