"""The jobs in the monitor: who may see them, who may act upon them, and what is told, without a browser."""

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyramid.csrf import CookieCSRFStoragePolicy
from webtest import TestApp

import work
from pyams_zmq.declaration import declarations
from pyams_zmq.exceptions import SettingError
from pyams_zmq.figures import STATES, figures
from pyams_zmq.wire import Reply
from test_monitor import NOBODY, PUBLIC, Client, Policy, application, configured

LOOK, ACT = 'zmq.monitor', 'zmq.jobs'


@pytest.fixture
def jobs(serve):
    """The client of a process which has a job of each state but one; and an application."""
    client = serve(work.Work, executor='threads:1', journal=':memory:')
    client.submit('double', 2, id='fine')
    client.submit('decide', 422, id='failed')
    client.submit('block', None, id='runs')
    client.submit('double', 4, id='waits')
    assert work.begun.acquire(timeout=30)
    assert client.wait('failed', timeout=30) == (422, 'decided')
    yield client
    work.gate.set()


def app_of(client, *permissions):
    policy = Policy(*permissions) if permissions else None
    addresses = {'medias': client.address, 'other': NOBODY}
    return application({} if permissions else PUBLIC, addresses, policy)


def listed(app, **query):
    return app.get('/zmq/jobs.json', {'process': 'medias', **query}).json


def act(app, action, job, token=None, process='medias', **options):
    if token is None:
        token = re.search(r'data-token="(\w*)"', app.get('/zmq').text)[1]
    data = {'process': process, 'action': action, 'job': job}
    return app.post_json('/zmq/jobs', data, headers={'X-CSRF-Token': token}, **options)


# Who may


def test_jobs_are_listed_for_those_who_may_see_the_page():
    app = application({}, {'medias': NOBODY}, Policy('zmq.health', 'zmq.metrics', ACT))
    app.get('/zmq/jobs.json?process=medias', status=403)


@pytest.mark.parametrize('permissions', [(), ('view',), (LOOK, 'zmq.health', 'zmq.metrics')])
def test_to_cancel_and_retry_takes_a_permission_of_its_own(jobs, permissions):
    app = app_of(jobs, *permissions)
    for action in ('cancel', 'retry'):
        response = act(app, action, 'waits', token='x', status=403)
        assert 'pyams_zmq.monitor.public' not in response.text
    assert jobs.job('waits').body['state'] == 'queued'
    if 'view' not in permissions:
        assert listed(app)['may_act'] is False
        assert 'data-token=""' in app.get('/zmq').text


def test_that_permission_cannot_be_given_to_everybody():
    with pytest.raises(SettingError, match='page, health, metrics'):
        configured({'pyams_zmq.monitor.public': 'jobs'}).commit()


def test_those_who_may_cancel_and_retry(jobs):
    app = app_of(jobs, LOOK, ACT)
    assert listed(app)['may_act'] is True
    assert listed(app, process='other')['jobs'] == []
    assert act(app, 'cancel', 'waits').json == {'message': ''}
    assert jobs.job('waits').body['state'] == 'cancelled'
    assert {one['job']: one['state'] for one in listed(app)['jobs']}['waits'] == 'cancelled'
    act(app, 'retry', 'waits', status=202)
    assert jobs.job('waits').body['state'] == 'queued'
    act(app, 'cancel', 'runs', status=202)
    assert jobs.wait('runs', timeout=30).status == 410


def test_what_cannot_be_done_is_told(jobs):
    app = app_of(jobs, LOOK, ACT)
    assert act(app, 'cancel', 'fine', status=409).json['message'] == 'The job fine is done already'
    assert 'No such job' in act(app, 'retry', 'other', status=404).json['message']
    declarations(app.app.registry)['medias']._client = Gone(Reply.undelivered(403, 'Refused'))
    assert act(app, 'cancel', 'waits', status=503).json['message'] == 'Refused'


class Gone(Client):
    def call(self, message_type, data=None, *, timeout):
        return self.reply

    def jobs(self, *arguments, timeout):
        return self.reply

    def cancel(self, job, *, timeout):
        return self.reply


@pytest.mark.parametrize('token', ['', 'of-another-site', '\u00e9'])
def test_the_pages_of_other_sites_can_do_nothing(jobs, token):
    app = app_of(jobs, LOOK, ACT)
    act(app, 'cancel', 'waits', token=token, status=400)  # where the browser has no cookie
    app.get('/zmq')
    act(app, 'cancel', 'waits', token=token, status=400)
    mine = app.cookies['pyams_zmq_token']
    secure = {'extra_environ': {'wsgi.url_scheme': 'https', 'HTTP_REFERER': 'https://evil.example/'}}
    act(app, 'cancel', 'waits', token=mine, status=400, **secure)
    assert jobs.job('waits').body['state'] == 'queued'
    assert act(app, 'cancel', 'waits', token=mine).json == {'message': ''}


def test_the_protection_of_the_application_is_not_in_the_way(jobs):
    config = configured({}, {'medias': jobs.address}, Policy(LOOK, ACT))
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy())
    config.set_default_csrf_options(require_csrf=True)
    app = TestApp(config.make_wsgi_app())
    act(app, 'cancel', 'waits')
    assert app.cookies.keys() == {'pyams_zmq_token'}


@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'\xff',
        b'[]',
        b'[' * 5000,
        b'1',
        b'null',
        b'{}',
        b'{"process": "medias", "action": "cancel"}',
        *(
            json.dumps({'process': 'medias', 'action': 'cancel', 'job': 'waits', **changed}).encode()
            for changed in (
                {'process': 'unknown'},
                {'process': ['medias']},
                {'action': 'close'},
                {'action': 'call'},
                {'action': None},
                {'action': ['cancel']},
                {'job': ''},
                {'job': 'x' * 129},
                {'job': 1},
            )
        ),
    ],
)
def test_what_makes_no_sense_is_refused(body):
    app = application({}, {'medias': NOBODY}, Policy(LOOK, ACT))
    app.get('/zmq')
    headers = {'X-CSRF-Token': app.cookies['pyams_zmq_token'], 'Content-Type': 'application/json'}
    app.post('/zmq/jobs', body, headers, status=400)


# What is told


def test_lists_the_jobs(jobs):
    app = app_of(jobs)
    told = listed(app)
    assert (told['more'], told['reason']) == (False, '')
    assert [(one['job'], one['state']) for one in told['jobs']] == [
        ('waits', 'queued'),
        ('runs', 'running'),
        ('failed', 'failed'),
        ('fine', 'done'),
    ]
    _, runs, failed, fine = told['jobs']
    assert runs['progress'] == {'done': 1, 'total': 2, 'message': 'half'}
    assert (failed['error'], failed['attempts'], failed['type']) == ('decided', 1, 'decide')
    assert fine['submitted'] <= fine['started'] <= fine['ended'] <= told['now']
    assert [one['job'] for one in listed(app, state='failed')['jobs']] == ['failed']
    medias, _ = app.get('/zmq/processes.json').json['processes']
    counts = {'queued': 1, 'running': 1, 'done': 1, 'failed': 1, 'cancelled': 0}
    assert medias['figures']['jobs'] == counts
    metrics = app.get('/zmq/metrics').text
    samples = {
        sample.labels['state']: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if family.name == 'pyams_zmq_jobs'
    }
    assert samples == counts


@pytest.mark.parametrize(
    'query',
    [
        '',
        'process=',
        'process=unknown',
        'process=medias&state=lost',
        'process=medias&limit=7',
        'limit=x',
        'process=%ff',
    ],
)
def test_unknown_lists_are_not_found(query):
    application(PUBLIC, {'medias': NOBODY}).get(f'/zmq/jobs.json?{query}', status=404)


def test_tells_why_there_is_no_list(start):
    process = start()
    app = application(PUBLIC, {'medias': NOBODY, 'plain': process.endpoint})
    assert 'Nobody there' in listed(app)['reason']
    plain = listed(app, process='plain')
    assert (plain['jobs'], plain['reason']) == ([], 'This process has no journal, and so no jobs')
    assert app.get('/zmq/processes.json').json['processes'][1]['figures']['jobs'] is None
    declarations(app.app.registry)['medias']._client = object()
    assert 'AttributeError' in listed(app, limit=200)['reason']


class Strange(Client):
    """Tells anything of its jobs."""

    def jobs(self, state, limit, *, timeout):
        return Reply(
            200, {'jobs': [None, {}, {'job': 'a', 'state': 'done'}, {'job': 'b', 'state': 'x'}] * 50}
        )


def test_what_makes_no_sense_is_left_out():
    app = application(PUBLIC, {'medias': NOBODY})
    declarations(app.app.registry)['medias']._client = Strange()
    told = listed(app)
    assert [one['state'] for one in told['jobs']] == ['done'] * 12  # of the first 50 that it told
    assert figures({'jobs': [1]})['jobs'] is None
    assert figures({'jobs': {'done': 'many', 'other': 1}})['jobs'] == dict.fromkeys(STATES)
    declarations(app.app.registry)['medias']._client = Client(Reply(200, {'jobs': {'done': 'many'}}))
    assert 'pyams_zmq_jobs{' not in app.get('/zmq/metrics').text
