"""The panel of the debug toolbar, in the toolbar's own page about real requests."""

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from webtest import TestApp

from peers import handler_of
from pyams_zmq.calls import MOST
from pyams_zmq.declaration import declarations
from services import Echo, Process, running

#: Seconds until a process that is not there is given up.
SHORT = 0.1


@pytest.fixture(scope='module')
def service():
    """A process that no test disturbs."""
    with running(Process('127.0.0.1', handler_of(Echo()), 'user:secret')) as process:
        yield process


@pytest.fixture
def show(service, tmp_path):
    """Serve one request by a view; returns the panel about it, and the badge on its tab."""

    def show(view, include='pyams_zmq', **settings):
        config = Configurator(
            settings={
                'debugtoolbar.includes': 'pyams_zmq.debugtoolbar',
                'tm.manager_hook': 'pyramid_tm.explicit_manager',
                'pyams_zmq.medias.address': service.endpoint,
                'pyams_zmq.medias.auth': 'user:secret',
                'pyams_zmq.away.address': f'ipc://{tmp_path}/s',
                'pyams_zmq.away.timeout': SHORT,
                **{f'pyams_zmq.{name}.start': 'false' for name in ('medias', 'away')},
                **settings,
            }
        )
        config.include('pyramid_debugtoolbar')
        config.include('pyramid_tm')
        if include:
            config.include(include)
            config.add_zmq_process('medias')
            config.add_zmq_process('away')
        config.add_route('view', '/')
        config.add_view(lambda request: view(request) or Response('<body></body>'), route_name='view')
        app = TestApp(config.make_wsgi_app(), extra_environ={'REMOTE_ADDR': '127.0.0.1'})
        page = app.get('/', status='*')
        toolbar = app.get(page.html.find(id='pShowToolBarButton')['href']).html
        tab = toolbar.find(id='pDebugPanel-pyams_zmq')
        return toolbar.find(id='pDebugPanel-pyams_zmq-content'), tab.find(class_='badge')

    return show


def rows(panel):
    """The texts of the cells, of all tables."""
    return [[cell.get_text(' ', strip=True) for cell in row('td')] for row in panel('tr') if row('td')]


def test_messages_that_were_sent(show):
    def view(request):
        medias = request.zmq('medias')
        medias.call('echo', {'password': 'hidden-in-data'})
        medias.call('fail', 'hidden-in-error')
        medias.call('<script>' + 'x' * 1000)
        request.zmq('away').call('echo')

    panel, badge = show(view)
    answered, failed, unknown, lost = rows(panel)[:4]
    assert answered[:4] == ['medias', 'echo', '200', 'Answered']
    assert answered[4].endswith(' ms')
    assert answered[5:] == ['40 bytes', '37 bytes']
    assert failed[:4] == ['medias', 'fail', '500', 'Answered']
    assert unknown[1].startswith('<script>xxx')
    assert len(unknown[1]) == 200
    assert lost[:4] == ['away', 'echo', '503', f'Nobody there: no connection within {SHORT} s']
    assert lost[6] == ''
    assert [one['class'][-1] for one in panel('span')[:4]] == ['label-success', *['label-danger'] * 3]
    assert 'hidden' not in str(panel)
    assert (badge.text, badge['class'][-1]) == ('4', 'progress-bar-danger')


def test_processes(show, service, tmp_path):
    panel, badge = show(lambda request: None)
    assert panel.find('p').text == 'It has sent none.'
    assert badge is None
    away, medias = rows(panel)
    assert medias == ['medias', 'Up', service.endpoint, 'not by this application']
    assert away[0] == 'away'
    assert away[1].startswith('Down Nobody there: no connection within ')
    assert away[2:] == [f'ipc://{tmp_path}/s', 'not by this application']
    assert 'secret' not in str(panel)


def test_processes_that_are_started_by_the_application(show):
    def view(request):
        known = declarations(request.registry)
        known['medias'].options['start'], known['away'].options['start'] = 'request', 'app'

    away, medias = rows(show(view)[0])
    assert [away[-1], medias[-1]] == ['with the application', 'with the first request']


def test_a_process_without_an_address(show):
    unknown = rows(show(lambda request: None, **{'pyams_zmq.away.address': ''})[0])[0]
    assert unknown[1].startswith('Cannot be asked SettingError: It is not known what the process')
    assert unknown[2].startswith("It is not known what the process 'away' is built from")


@pytest.mark.parametrize(
    ('doom', 'status', 'outcome'),
    [
        (False, '200', 'Sent after the commit, and answered'),
        (True, '', 'Not sent, as the transaction was not committed, or rolled back to a savepoint'),
    ],
)
def test_messages_that_wait_for_the_commit(show, doom, status, outcome):
    def view(request):
        request.zmq('medias').call_on_commit('echo', 'hidden')
        if doom:
            request.tm.doom()

    panel, badge = show(view)
    message = rows(panel)[0]
    assert message[1:4] == ['echo', status, outcome]
    assert bool(message[4]) != doom
    assert 'hidden' not in str(panel)
    assert badge['class'] == ['badge', 'pull-right']


def test_a_process_that_is_away_at_the_commit(show):
    def view(request):
        request.zmq('away').call_on_commit('echo')

    panel, _ = show(view, **{'debugtoolbar.intercept_exc': 'display'})
    assert rows(panel)[0][3].startswith('Not sent')


def test_messages_of_a_request_that_is_not_over(show):
    """As it is while the response is streamed."""
    states = []

    def view(request):
        [panel] = [one for one in request.debug_toolbar.panels if one.name == 'pyams_zmq']
        request.zmq('medias').call_on_commit('echo')
        request.zmq('medias')._remember('echo', b'')
        states.extend(one['outcome'] for one in panel.render_vars(request)['messages'])
        request.tm.abort()
        request.tm.begin()

    show(view)
    assert states == ['Waits for the commit', 'Under way']


def test_very_many_messages(show):
    def view(request):
        for _ in range(MOST + 1):
            request.zmq('medias')._remember('echo', b'')

    panel, badge = show(view)
    assert panel.find('p').text == f'Only the last {MOST} are shown.'
    assert len(rows(panel)) == MOST + 2
    assert badge.text == str(MOST)


def test_in_french(show):
    panel, _ = show(
        lambda request: request.zmq('medias').call('echo') and None, **{'pyramid.default_locale_name': 'fr'}
    )
    assert rows(panel)[0][3] == 'Réponse reçue'
    assert [one.text for one in panel('h4')] == [
        'Messages de cette requête',
        "Processus, tels qu'ils sont maintenant",
    ]


def test_an_application_without_pyams_zmq(show):
    panel, _ = show(lambda request: None, include=None)
    assert [one.text for one in panel('p')] == ['It has sent none.', 'The application declares no process.']


def test_included_in_the_wrong_place():
    config = Configurator()
    with pytest.raises(ConfigurationError, match='set debugtoolbar.includes = pyams_zmq.debugtoolbar'):
        config.include('pyams_zmq.debugtoolbar')
