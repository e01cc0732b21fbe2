"""The monitor: who may see it, and what it tells, without a browser."""

import itertools
import json
import math
import os
import re
import sys
import threading
import time
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from pyramid.config import Configurator
from webtest import TestApp

from peers import Peer, handler_of, message
from pyams_zmq.declaration import declarations
from pyams_zmq.exceptions import SettingError
from pyams_zmq.figures import figures
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.monitor import shared
from pyams_zmq.monitor.observer import Observer
from pyams_zmq.wire import Reply

ALL = {'page': ['', '/processes.json'], 'health': ['/health', '/health/medias'], 'metrics': ['/metrics']}
PERMISSIONS = {'page': 'zmq.monitor', 'health': 'zmq.health', 'metrics': 'zmq.metrics'}
PUBLIC = {'pyams_zmq.monitor.public': 'page health metrics'}
NOBODY = '127.0.0.1:9'


class Policy:
    """A security policy that grants these permissions to everybody."""

    def __init__(self, *permissions):
        self.permissions = permissions

    def identity(self, request):
        return None

    def authenticated_userid(self, request):
        return None

    def permits(self, request, context, permission):
        return permission in self.permissions


def configured(settings, addresses=(), policy=None):
    settings = dict(settings)
    for name, address in dict(addresses).items():
        settings.update({f'pyams_zmq.{name}.address': address, f'pyams_zmq.{name}.start': 'false'})
    config = Configurator(settings=settings)
    if policy is not None:
        config.set_security_policy(policy)
    config.include('pyams_zmq.monitor')
    for name in dict(addresses):
        config.add_zmq_process(name)
    return config


def application(settings=PUBLIC, addresses=(), policy=None):
    return TestApp(configured(settings, addresses, policy).make_wsgi_app())


class Client:
    """Stands in for the client of a process."""

    def __init__(self, reply=None):
        self.reply = reply or Reply(200, {})
        self.calls = 0

    def call(self, message_type, *, timeout):
        assert message_type == '_status'
        self.calls += 1
        return self.reply


def observer_of(clients):
    """An observer of declared processes that have these clients."""
    config = configured({}, dict.fromkeys(clients, NOBODY))
    config.commit()
    for name, client in clients.items():
        declarations(config.registry)[name]._client = client
    return Observer(config.registry)


# Who may see it


@pytest.mark.parametrize('kind', ALL)
def test_without_a_security_policy_it_is_closed_and_says_why(kind):
    app = application({}, {'medias': NOBODY})
    for path in ALL[kind]:
        response = app.get(f'/zmq{path}', status=403)
        assert f'pyams_zmq.monitor.public = {kind}' in response.text
        assert PERMISSIONS[kind] in response.text
        assert 'Nobody there' not in response.text


def test_a_security_policy_that_does_not_know_the_permissions_keeps_it_closed():
    app = application({}, {'medias': NOBODY}, Policy('view', 'edit'))
    for path in itertools.chain(*ALL.values()):
        assert 'pyams_zmq.monitor.public' not in app.get(f'/zmq{path}', status=403).text


@pytest.mark.parametrize('kind', ALL)
def test_each_permission_opens_what_it_is_for(kind):
    app = application({}, {}, Policy(PERMISSIONS[kind]))
    for other, paths in ALL.items():
        for path in paths[:-1] or paths:
            assert app.get(f'/zmq{path}', status='*').status_int == (200 if other == kind else 403)


@pytest.mark.parametrize('policy', [None, Policy()])
@pytest.mark.parametrize('kind', ALL)
def test_the_setting_opens_what_it_names(kind, policy):
    app = application({'pyams_zmq.monitor.public': kind}, {}, policy)
    for other, paths in ALL.items():
        for path in paths[:-1] or paths:
            assert app.get(f'/zmq{path}', status='*').status_int == (200 if other == kind else 403)


def test_nothing_can_be_posted():
    app = application()
    for path in ['/zmq', '/zmq/processes.json', '/zmq/health', '/zmq/metrics']:
        app.post(path, status=404)
        app.head(path, status=200)


# Settings


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        *(('prefix', value) for value in ['zmq', '/', '//', '/{name}', '/a b', '/zmq*', '/zmq?x', '/\u00e9']),
        *(('public', value) for value in ['everything', 'page,health', 'Page', 'true']),
        *(('timeout', value) for value in ['0', '-1', 'soon', 'nan', 'inf']),
    ],
)
def test_settings_that_make_no_sense_are_refused(option, value):
    with pytest.raises(SettingError, match=f'pyams_zmq.monitor.{option}: .*{re.escape(value)}.* is not '):
        configured({f'pyams_zmq.monitor.{option}': value}).commit()


def test_unknown_settings_are_refused():
    with pytest.raises(SettingError, match='the nearest is pyams_zmq.monitor.public'):
        configured({'pyams_zmq.monitor.publik': 'page'}).commit()


def test_it_can_be_elsewhere():
    app = application(PUBLIC | {'pyams_zmq.monitor.prefix': '/admin/processes/'})
    page = app.get('/admin/processes').text
    assert 'data-url="/admin/processes/processes.json"' in page
    for url in re.findall(r'(?:href|src)="([^"]*)"', page):
        app.get(url)
    app.get('/zmq', status=404)


def test_it_obeys_a_prefix_of_routes_and_may_be_included_twice():
    config = Configurator(settings=PUBLIC, route_prefix='/intern')
    config.include('pyams_zmq.monitor')
    config.include('pyams_zmq.monitor')
    app = TestApp(config.make_wsgi_app())
    page = app.get('/intern/zmq').text
    for url in re.findall(r'(?:href|src)="([^"]*)"', page):
        assert url.startswith('/intern/zmq/')
        app.get(url)


# The processes


def test_tells_how_a_process_fares(start, call):
    process = start(workers=1)
    for _ in range(5):
        call(process, 'echo')
    call(process, 'fail', 'oh dear')
    app = application(addresses={'medias': process.endpoint})
    response = app.get('/zmq/processes.json')
    assert 'no-store' in response.headers['Cache-Control']
    [medias] = response.json['processes']
    assert (medias['name'], medias['state'], medias['reason']) == ('medias', 'up', '')
    told = medias['figures']
    assert (told['pid'], told['served'], told['failed'], told['workers']) == (process.pid, 6, 1, 1)
    assert told['failures'][0]['error'] == 'ValueError: oh dear'
    assert app.get('/zmq/health').text == app.get('/zmq/health/medias').text == 'OK\n'


def test_tells_what_is_wrong_with_the_others(start):
    class Strange(ZMQMessageHandler):
        def __call__(self, frames):
            self.rep_stream.send_multipart([b'1', b'2'])

    class Own(ZMQMessageHandler):
        def __call__(self, frames):
            self.rep_stream.send_json(['of', 'its', 'own'])

    waits, release = os.pipe()
    begun, begins = os.pipe()

    class Waiting:
        def wait(self, data):
            os.write(begins, b'.')
            return [200, os.read(waits, 1).decode()]

    blocked = start(handler=handler_of(Waiting()), workers=0)
    peer = Peer(blocked.endpoint)
    peer.send(message('wait'))
    os.read(begun, 1)
    addresses = {
        'down': NOBODY,
        'busy': blocked.endpoint,
        'refused': start(auth='me:secret').endpoint,
        'broken': start(handler=handler_of(SimpleNamespace(), Strange)).endpoint,
        'own': start(handler=handler_of(SimpleNamespace(), Own)).endpoint,
    }
    app = application(PUBLIC | {'pyams_zmq.monitor.timeout': '3'}, addresses)
    processes = app.get('/zmq/processes.json').json['processes']
    os.write(release, b'.')
    assert peer.reply() == [200, '.']
    peer.close()
    for pipe in waits, release, begun, begins:
        os.close(pipe)
    assert [one['name'] for one in processes] == sorted(addresses)
    states = {one['name']: one['state'] for one in processes}
    assert states == {name: 'up' if name == 'own' else name for name in addresses}
    assert all(bool(one['reason']) == (one['state'] != 'up') for one in processes)
    assert 'secret' not in json.dumps(processes)
    assert all(one['figures']['pid'] is None for one in processes)


def test_health_tells_no_details(start):
    process = start()
    app = application(addresses={'medias': process.endpoint, 'search': NOBODY})
    for path, status, text in [
        ('/zmq/health', 503, 'Service Unavailable\n'),
        ('/zmq/health/search', 503, 'Service Unavailable\n'),
        ('/zmq/health/medias', 200, 'OK\n'),
    ]:
        response = app.get(path, status=status)
        assert response.text == text
        assert response.content_type == 'text/plain'
        assert 'no-store' in response.headers['Cache-Control']
    for name in ['nobody', 'medias%00', '..%2f', '<b>', 'x' * 5000]:
        app.get(f'/zmq/health/{name}', status=404)


def test_without_processes_all_are_well():
    app = application()
    assert app.get('/zmq/processes.json').json == {'processes': []}
    assert app.get('/zmq/health').text == 'OK\n'


def test_all_processes_are_asked_at_once():
    together = threading.Barrier(20)

    class Waiting(Client):
        def call(self, message_type, *, timeout):
            together.wait(30)  # broken unless all of them come here
            return super().call(message_type, timeout=timeout)

    observer = observer_of({f'p{number}': Waiting() for number in range(20)})
    assert {one.state for one in observer.look()} == {'up'}


def test_those_who_look_at_the_same_time_share_the_answers(monkeypatch):
    clock = SimpleNamespace(now=50.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(shared, 'time', clock)
    client = Client()
    observer = observer_of({'medias': client})
    threads = [threading.Thread(target=observer.look) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert client.calls == 1
    clock.now += 0.6
    client.reply = Reply.undelivered(503, 'gone')
    assert observer.look()[0].state == 'down'
    assert client.calls == 2


@pytest.mark.parametrize(
    'error', [ValueError('bad'), SettingError('bad'), OSError(24, 'Too many open files')]
)
def test_a_client_that_cannot_be_made_is_told_and_harms_no_other(error):
    class Failing(Client):
        def call(self, message_type, *, timeout):
            raise error

    seen = observer_of({'bad': Failing(), 'good': Client()}).look()
    assert [one.state for one in seen] == ['broken', 'up']
    assert seen[0].reason == f'{type(error).__name__}: {error}'


def test_a_process_that_is_not_started_any_more_is_told_with_the_reason():
    observer = observer_of({'medias': Client(Reply.undelivered(503, 'Nobody there'))})
    declarations(observer._registry)['medias']._supervisor = SimpleNamespace(
        problem='crashed 5 times in a row'
    )
    [medias] = observer.look()
    assert (medias.state, medias.reason) == ('given_up', 'crashed 5 times in a row')


# What a process may tell

NAMES = st.sampled_from(
    [*figures(None), *figures(None)['latency'], 'sum', 'buckets', 'time', 'type', 'error']
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=6),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, JSON) | JSON)
def test_whatever_a_process_tells_the_figures_have_their_shape(body):
    told = figures(body)
    assert told.keys() == figures(None).keys()
    json.dumps(told, allow_nan=False)
    numbers = [told['pid'], told['uptime'], told['latency']['p50'], told['histogram']['sum']]
    assert all(one is None or 0 <= one < math.inf for one in numbers)
    assert isinstance(told['version'], str)
    for failure in told['failures']:
        assert isinstance(failure['type'], str)
        assert isinstance(failure['error'], str)


def test_too_much_is_cut_off():
    told = figures({'version': 'v' * 10**6, 'failures': [{'error': 'e' * 10**6}] * 1000})
    assert len(json.dumps(told)) < 20_000


@pytest.mark.parametrize(
    'buckets',
    [
        None,
        {},
        [1],
        [[1]],
        [[1, 2, 3]],
        [['1', 2]],
        [[1, True]],
        [[2, 1], [1, 2]],
        [[1, 2], [1, 3]],
        [[1, 2], [2, 1]],
        [[1, math.nan]],
        [[math.inf, 1]],
        [[-1, 1]],
        [[n, n] for n in range(101)],
    ],
)
def test_buckets_that_make_no_sense_are_none(buckets):
    assert figures({'histogram': {'buckets': buckets}})['histogram']['buckets'] == []


# Prometheus


def test_prometheus_reads_the_metrics(start, call):
    process = start(workers=2)
    for _ in range(7):
        call(process, 'echo')
    call(process, 'fail')
    app = application(addresses={'medias': process.endpoint, 'search': NOBODY})
    response = app.get('/zmq/metrics')
    assert response.headers['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8'
    samples = {
        (sample.name, sample.labels['process'], sample.labels.get('le')): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples['pyams_zmq_up', 'medias', None] == 1
    assert samples['pyams_zmq_up', 'search', None] == 0
    assert [name for name, process, _ in samples if process == 'search'] == ['pyams_zmq_up']
    assert samples['pyams_zmq_messages_total', 'medias', None] == 8
    assert samples['pyams_zmq_messages_failed_total', 'medias', None] == 1
    assert samples['pyams_zmq_workers', 'medias', None] == 2
    assert samples['pyams_zmq_memory_bytes', 'medias', None] > 1e6
    assert 0 <= time.time() - samples['pyams_zmq_start_time_seconds', 'medias', None] < 120
    assert samples['pyams_zmq_message_duration_seconds_count', 'medias', None] == 8
    assert samples['pyams_zmq_message_duration_seconds_bucket', 'medias', '+Inf'] == 8
    assert samples['pyams_zmq_message_duration_seconds_bucket', 'medias', '3150.0'] == 8
    assert samples['pyams_zmq_message_duration_seconds_sum', 'medias', None] > 0


def test_the_documentation_lists_all_metrics_and_its_alerts_use_no_others():
    from pyams_zmq.monitor.prometheus import ProcessCollector

    observer = observer_of({'medias': Client()})
    page = (Path(__file__).parents[1] / 'docs' / 'monitoring.rst').read_text()
    names = set()
    for family in ProcessCollector(observer).collect():
        names.add(family.name + ('_total' if family.type == 'counter' else ''))
    assert {name for name in names if f'``{name}``' in page} == names
    used = re.findall(r'expr: .*|^ {13}.*pyams_zmq_.*', page, re.MULTILINE)
    mentioned = {
        name.removesuffix('_bucket') for line in used for name in re.findall('pyams_zmq_[a-z_]+', line)
    }
    assert len(mentioned) > 5
    assert mentioned <= names


def test_to_be_registered_is_no_reason_to_ask_the_processes():
    from pyams_zmq.monitor.prometheus import ProcessCollector

    client = Client()
    registry = CollectorRegistry(auto_describe=True)
    registry.register(ProcessCollector(observer_of({'medias': client})))
    assert client.calls == 0
    assert registry.get_sample_value('pyams_zmq_up', {'process': 'medias'}) == 1


def test_without_the_extra_the_metrics_tell_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'prometheus_client', None)
    monkeypatch.delitem(sys.modules, 'pyams_zmq.monitor.prometheus', raising=False)
    response = application().get('/zmq/metrics', status=501)
    assert "pip install 'pyams_zmq[metrics]'" in response.text.replace('&#x27;', "'")


# The page


def test_the_page_has_nothing_that_a_strict_policy_would_refuse():
    app = application()
    response = app.get('/zmq')
    assert response.headers['Content-Security-Policy'].startswith("default-src 'none'; script-src 'self'")
    assert response.headers['X-Content-Type-Options'] == 'nosniff'
    assert not re.search(r'<style|style=|\son\w+=|javascript:|//', response.text.replace('<!doctype', ''))
    assert re.findall(r'<script.*?>(.*?)</script>', response.text) == ['']
    assert '$' not in response.text
    kinds = {'svg': 'image/svg+xml', 'css': 'text/css', 'js': ('text/javascript', 'application/javascript')}
    scripts = re.findall(r'src="([^"]*)"', response.text)
    scripts += [f'/zmq/static/{name}' for name in re.findall('from "./(.*?)"', app.get(scripts[0]).text)]
    for url in [*re.findall(r'href="([^"]*static[^"]*)"', response.text), *scripts]:
        assert app.get(url).content_type in kinds[url.rpartition('.')[2]]


@pytest.mark.parametrize(
    ('locale', 'language', 'title'),
    [
        ('en', 'en', 'Background processes'),
        ('fr', 'fr', 'Processus d&#x27;arrière-plan'),
        ('fr_CA', 'fr', 'Processus d&#x27;arrière-plan'),
        ('de', 'en', 'Background processes'),
        ('<b>', 'en', 'Background processes'),
    ],
)
def test_the_page_speaks_english_and_french(locale, language, title):
    page = application().get('/zmq', {'_LOCALE_': locale}).text
    assert f'<html lang="{language}">' in page
    assert f'<h1>{title}</h1>' in page


LOCALES = Path(str(files('pyams_zmq'))) / 'locales'
TRANSLATIONS = sorted(LOCALES.rglob('*.po'))


def test_the_template_of_translations_is_up_to_date():
    found = {message for _, _, message, *_ in extract_from_dir(LOCALES.parent, keywords={'_': None})}
    with (LOCALES / 'pyams_zmq.pot').open('rb') as file:
        assert {one.id for one in read_po(file) if one.id} == found, 'run: make messages'


@pytest.mark.parametrize('path', TRANSLATIONS, ids=lambda path: path.parts[-3])
def test_translations_are_complete_and_compiled(path):
    with (LOCALES / 'pyams_zmq.pot').open('rb') as file:
        wanted = {one.id for one in read_po(file) if one.id}
    translated = {one.id: one.string for one in read_po(BytesIO(path.read_bytes())) if one.id}
    assert translated.keys() == wanted
    for original, translation in translated.items():
        assert translation, original
        assert sorted(re.findall('{.*?}', original)) == sorted(re.findall('{.*?}', translation))
    compiled = read_mo(BytesIO(path.with_suffix('.mo').read_bytes()))
    assert {one.id: one.string for one in compiled if one.id} == translated, 'run: make messages'
