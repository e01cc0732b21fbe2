"""Jobs from the outside: submitted, run, asked for, cancelled and tried again."""

import multiprocessing

import pytest

from peers import Peer, handler_of
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ProcessStartError, ReplyError
from pyams_zmq.jobs import job
from services import Process

fork = multiprocessing.get_context('fork')


class Work:
    process = None

    def __init__(self):
        self.gate = fork.Event()
        self.runs = fork.Value('i', 0)

    @job
    def double(self, number, progress):
        return [200, 2 * number]

    @staticmethod
    @job
    def static(data):
        return data

    @job
    async def later(self, data):
        return [201, data]

    @job(retries=2, backoff=0.01)
    def fail(self, data):
        with self.runs:
            self.runs.value += 1
        raise ValueError(data)

    @job(retries=2, backoff=0.01)
    def decide(self, status):
        with self.runs:
            self.runs.value += 1
        raise ReplyError(status, 'decided')

    @job
    def block(self, data, progress):
        progress(1, 2, 'half')
        while not self.gate.wait(0.01):
            progress.check()
        return [200, data]

    def plain(self, data):
        return [200, data]


@pytest.fixture
def serve(start, tmp_path):
    """Start a process with jobs; returns its client."""
    clients = []

    def serve(delegate, **options):
        options.setdefault('journal', str(tmp_path / 'journal'))
        process = start(handler=handler_of(delegate), cls=_configured(options))
        client = ZMQClient(process.endpoint, timeout=30)
        client.process = process
        clients.append(client)
        return client

    yield serve
    for client in clients:
        client.close()


def _configured(options):
    return type('Configured', (Process,), options)


def test_a_job_is_accepted_and_run(serve):
    client = serve(Work())
    reply = client.submit('double', 21)
    assert reply.status == 202
    assert reply.body['state'] == 'queued'
    assert client.wait(reply.body['job'], 30) == (200, 42)
    record = client.job(reply.body['job']).body
    assert (record['state'], record['attempts'], record['body']) == ('done', 1, 42)
    assert record['submitted'] <= record['started'] <= record['ended']


@pytest.mark.parametrize(('kind', 'outcome'), [('static', (200, 5)), ('later', (201, 5))])
def test_kinds_of_methods(serve, kind, outcome):
    client = serve(Work())
    assert client.wait(client.submit(kind, 5).body['job'], 30) == outcome


def test_a_plain_message_to_a_job_is_a_job(serve):
    client = serve(Work())
    with Peer(client.process.endpoint) as peer:
        status, body = peer.ask('double', 4)
    assert status == 202
    assert client.wait(body['job'], 30) == (200, 8)
    assert client.call('plain', 1) == (200, 1)


def test_the_same_id_is_the_same_job(serve):
    client = serve(Work())
    assert client.submit('double', {'n': [1]}, id='one').status == 202
    client.wait('one', 30)
    assert client.submit('double', {'n': [1]}, id='one') == (200, {'job': 'one', 'state': 'failed'})
    assert client.submit('double', {'n': [2]}, id='one').status == 409
    assert client.submit('static', {'n': [1]}, id='one').status == 409


def test_failures_are_tried_again(serve):
    work = Work()
    client = serve(work)
    client.submit('fail', 'why', id='one')
    assert client.wait('one', 30) == (500, 'ValueError: why')
    assert work.runs.value == client.job('one').body['attempts'] == 3


@pytest.mark.parametrize(('status', 'runs'), [(409, 1), (503, 3)])
def test_what_the_method_decided_is_not_tried_again(serve, status, runs):
    work = Work()
    client = serve(work)
    client.submit('decide', status, id='one')
    assert client.wait('one', 30) == (status, 'decided')
    assert work.runs.value == runs


def test_progress_and_cancelling(serve, wait_until):
    client = serve(Work(), executor='threads:1')
    client.submit('block', None, id='first')
    client.submit('block', None, id='second')
    progress = wait_until(lambda: client.job('first').body['progress'], 30)
    assert progress == {'done': 1, 'total': 2, 'message': 'half'}
    assert client.cancel('second') == (200, {'job': 'second', 'state': 'cancelled'})
    assert client.cancel('first') == (202, {'job': 'first', 'state': 'running'})
    assert client.wait('first', 30).status == 410
    assert client.wait('second', 30).status == 410
    assert client.job('second').body['attempts'] == 0


def test_a_process_with_jobs_needs_a_journal(start):
    with pytest.raises(ProcessStartError, match=r'has jobs .*, but the process has no journal: set journal'):
        start(handler=handler_of(Work()))
