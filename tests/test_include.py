"""Processes that are declared in an application, without a server."""

import sys
import tempfile
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationExecutionError
from pyramid.request import Request, apply_request_extensions
from pyramid.threadlocal import get_current_request

from pyams_zmq.application import build
from pyams_zmq.calls import MOST, remember
from pyams_zmq.context import request_context
from pyams_zmq.declaration import declarations
from pyams_zmq.exceptions import SettingError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from services import Echo, EchoHandler, Process

INI = {'pyams_zmq.ini': __file__, 'pyams_zmq.medias.start': 'false'}


def configure(**settings):
    config = Configurator(settings={**INI, **settings})
    config.include('pyams_zmq')
    return config


def declare(*args, settings=None, **kwargs):
    """Declare a process; return its declaration."""
    config = configure(**(settings or {}))
    config.add_zmq_process('medias', *args, **kwargs)
    config.commit()
    return declarations(config.registry)['medias']


def error(config):
    """Commit; return the error of a setting."""
    with pytest.raises(ConfigurationExecutionError) as caught:
        config.commit()
    assert isinstance(caught.value.evalue, SettingError)
    return str(caught.value.evalue)


def request_of(config):
    request = Request.blank('/')
    request.registry = config.registry
    apply_request_extensions(request)
    return request


# Declarations


def test_what_is_declared():
    declaration = declare(Echo, workers=4, timeout=2)
    assert declaration.options == {'delegate': Echo, 'workers': 4, 'timeout': 2.0, 'start': None}
    assert repr(declaration) == '<Declaration medias>'
    assert declaration.source == __file__
    assert declaration.address == f'ipc://{declaration.run_dir.socket}'


def test_settings_that_come_later_count_and_go_before_code():
    config = configure()
    config.add_zmq_process('medias', Echo, workers=4, timeout=2)
    config.add_settings({'pyams_zmq.medias.workers': '3'})
    config.commit()
    assert declarations(config.registry)['medias'].options['workers'] == 3


def test_dotted_names():
    declaration = declare('services.Echo', handler='services.EchoHandler', process='services:Process')
    assert [declaration.options[name] for name in ('delegate', 'handler', 'process')] == [
        Echo,
        EchoHandler,
        Process,
    ]


@pytest.mark.parametrize('name', ['json.dumps', 'json.JSONDecoder', 'services'])
@pytest.mark.parametrize('option', ['handler', 'process'])
def test_a_dotted_name_of_something_else(option, name):
    config = configure(**{f'pyams_zmq.medias.{option}': name})
    config.add_zmq_process('medias', Echo)
    assert error(config).startswith(f'pyams_zmq.medias.{option}: {name!r} is not the class of a ')


@pytest.mark.parametrize('name', ['services.None', 'nowhere.Delegate', '..', 'a b'])
def test_a_dotted_name_that_leads_nowhere(name):
    config = configure(**{'pyams_zmq.medias.delegate': name})
    config.add_zmq_process('medias')
    assert error(config).startswith(f'pyams_zmq.medias.delegate: {name!r} cannot be imported: ')


def test_conflicts_are_found():
    config = configure()
    config.add_zmq_process('medias', Echo)
    config.add_zmq_process('medias', Echo, workers=2)
    with pytest.raises(ConfigurationConflictError, match='medias'):
        config.commit()


def test_an_application_overrides_what_it_includes():
    def package(config):
        config.add_zmq_process('medias', Echo, workers=2)

    config = configure()
    config.include(package)
    config.add_zmq_process('medias', Echo, workers=3)
    config.commit()
    assert declarations(config.registry)['medias'].options['workers'] == 3


def test_the_introspector_knows_it():
    config = configure(**{'pyams_zmq.processes': 'listed', 'pyams_zmq.listed.delegate': 'services.Echo'})
    config.add_zmq_process('medias', Echo, auth='user:secret')
    config.commit()
    entries = config.introspector.get_category('zmq processes')
    found = {entry['introspectable'].title: dict(entry['introspectable']) for entry in entries}
    assert found == {'medias': {'delegate': Echo, 'start': None}, 'listed': {'delegate': Echo}}


def test_a_process_that_only_the_settings_name():
    config = configure(
        **{
            'pyams_zmq.processes': 'medias indexer',
            'pyams_zmq.indexer.delegate': 'services.Echo',
            'pyams_zmq.medias.workers': '2',
        }
    )
    config.add_zmq_process('medias', Echo)
    config.commit()
    found = declarations(config.registry)
    assert set(found) == {'medias', 'indexer'}
    assert found['medias'].options['delegate'] is found['indexer'].options['delegate'] is Echo
    assert found['medias'].options['workers'] == 2


def test_mistakes_in_settings():
    config = configure(**{'pyams_zmq.medias.wrokers': '2'})
    config.add_zmq_process('medias', Echo)
    assert 'pyams_zmq.medias.wrokers is no setting; the nearest is pyams_zmq.medias.workers' in error(config)
    config = configure(**{'pyams_zmq.processes': '1st'})
    assert "'1st' cannot be the name of a process" in error(config)
    with pytest.raises(SettingError, match='cannot be the name of a process'):
        configure().add_zmq_process('monitor', Echo)


@pytest.mark.parametrize('name', ['auth', 'clients'])
def test_mistakes_that_only_their_reader_sees(name):
    config = configure(**{f'pyams_zmq.medias.{name}': '10.0.0.300'})
    config.add_zmq_process('medias', Echo)
    assert error(config).startswith(f'pyams_zmq.medias.{name}: ')


def test_settings_that_nothing_reads_are_found_when_all_is_declared():
    config = configure(**{'pyams_zmq.media.workers': '2'})
    config.add_zmq_process('medias', Echo)
    config.commit()
    with pytest.raises(SettingError, match="'media' is declared; the nearest is medias"):
        config.make_wsgi_app()


# What is started, and what is not


def test_it_is_not_known_what_to_start_from(monkeypatch):
    config = Configurator(settings={})
    config.include('pyams_zmq')
    config.add_zmq_process('medias', Echo)
    with pytest.raises(SettingError) as caught:
        config.make_wsgi_app()
    assert 'pyams_zmq.ini = %(__file__)s' in str(caught.value)
    assert "app='package.module:factory'" in str(caught.value)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'pyams_zmq.ini': '%(__file__)s.ini'}, 'pyams_zmq.ini: there is no file %(__file__)s.ini'),
        ({'pyams_zmq.run_dir': '/tmp/' + 'x' * 100}, 'too long for a socket'),
    ],
)
def test_what_could_not_be_started_is_an_error_at_once(settings, text):
    config = configure(**settings, **{'pyams_zmq.medias.start': 'request'})
    config.add_zmq_process('medias', Echo)
    with pytest.raises(SettingError) as caught:
        config.make_wsgi_app()
    assert text in str(caught.value)


def test_a_process_without_a_delegate():
    config = configure(**{'pyams_zmq.medias.start': 'request'})
    config.add_zmq_process('medias')
    with pytest.raises(SettingError, match="'medias' has no delegate: .* set pyams_zmq.medias.delegate ="):
        config.make_wsgi_app()


def test_an_application_without_processes_listens_to_no_requests():
    config = configure()
    config.add_zmq_process('medias')  # a client only
    app = config.make_wsgi_app()
    names = [handler.handler.__name__ for handler in app.registry.registeredHandlers()]
    assert '_new_request' not in names


# The process of a declaration


def test_the_process_is_what_the_options_tell():
    process = declare(Echo, address='127.0.0.1:5555', auth='user:secret', stop_timeout=3).make_process(None)
    assert type(process) is ZMQProcess
    assert process.bind_addr == 'tcp://127.0.0.1:5555'
    assert process.passwords == {'user': 'secret'}
    assert process.stop_timeout == 3
    assert process.name == 'medias'
    assert issubclass(process.handler, ZMQMessageHandler)
    assert process.handler.handler is Echo


def test_one_worker_unless_the_class_is_ones_own():
    assert declare(Echo).make_process(None).workers == 1
    assert declare(Echo, workers=0).make_process(None).workers == 0
    assert declare(Echo, process=Process).make_process(None).workers == 0
    assert declare(Echo, process=Process, workers=2).make_process(None).workers == 2


def test_a_handler_brings_its_delegate():
    handler = declare(handler=EchoHandler).make_process(None).handler
    assert issubclass(handler, EchoHandler)
    assert handler.handler is Echo
    assert declare(dict, handler=EchoHandler).make_process(None).handler.handler is dict


def test_what_only_the_process_finds():
    declaration = declare(Echo, clients='10.0.0.1')
    with pytest.raises(SettingError, match='^pyams_zmq.medias: clients names hosts, but'):
        declaration.make_process(None)


# request.zmq


@pytest.fixture
def service(start):
    """A running process, and a configuration which declares it."""
    process = start(handler=EchoHandler)
    config = configure(**{'pyams_zmq.medias.address': process.endpoint})
    config.add_zmq_process('medias')
    config.commit()
    return config


def test_calls_of_a_request(service):
    request = request_of(service)
    messages = remember(request)
    assert request.zmq('medias').call('echo', {'a': 1}) == (200, {'a': 1})
    assert request.zmq('medias').call('nothing').ok
    assert repr(request.zmq('medias')) == '<RequestClient medias>'
    first, second = messages
    assert (first.process, first.type, first.status) == ('medias', 'echo', 200)
    assert first.duration > 0
    assert first.size == len('["echo", {"a": 1}]')
    assert first.received == len('[200, {"a": 1}]')
    assert second.type == 'nothing'
    client = declarations(service.registry)['medias'].client
    request_of(service).zmq('medias').call('echo')
    assert declarations(service.registry)['medias'].client is client


def test_what_is_remembered_has_a_bound(service):
    request = request_of(service)
    messages = remember(request)
    client = request.zmq('medias')
    for number in range(MOST + 1):
        client._remember(str(number), b'')
    assert [len(messages), messages[-1].type] == [MOST, str(MOST)]


def test_jobs_are_remembered_by_their_type_and_id(service):
    request = request_of(service)
    messages = remember(request)
    request.zmq('medias').submit('convert', {'password': 'secret'}, id='7')
    request.zmq('medias').call('_submit', {})
    request.zmq('medias').call('_submit')
    assert [one.type for one in messages] == ['_submit convert 7', '_submit None None', '_submit']


def test_a_reply_that_cannot_be_read_is_remembered(service, start):
    class Handler(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            self.rep_stream.send_multipart([b'1', b'2'])

    config = configure(**{'pyams_zmq.medias.address': start(handler=Handler).endpoint})
    config.add_zmq_process('medias')
    config.commit()
    request = request_of(config)
    messages = remember(request)
    with pytest.raises(ValueError, match='The reply has 2 frames'):
        request.zmq('medias').call('echo')
    assert (messages[0].status, messages[0].problem[:34]) == (None, 'ValueError: The reply has 2 frames')
    assert messages[0].duration > 0


def test_a_process_that_nobody_declared(service):
    with pytest.raises(SettingError, match="no process 'media' is declared; the nearest is medias"):
        request_of(service).zmq('media')


def test_where_nobody_is_there(tmp_path):
    folder = tempfile.mkdtemp()
    config = configure(**{'pyams_zmq.run_dir': folder})
    config.add_zmq_process('medias', timeout=0.1)
    config.commit()
    request = request_of(config)
    messages = remember(request)
    reply = request.zmq('medias').call('echo')
    assert reply.status == 503
    assert not reply.delivered
    [message] = messages
    assert (message.status, message.problem, message.received) == (503, reply.body, 0)
    # The folder is this user's from then on.
    assert [path.stat().st_mode & 0o777 for path in Path(folder).iterdir()] == [0o700]


def test_all_interfaces_are_reached_at_this_host():
    declaration = declare(address='*:5555')
    assert declaration.client.address == 'tcp://127.0.0.1:5555'
    assert declaration.client is declaration.client


# The application built anew


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module of some code."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(code):
        (tmp_path / 'some_app.py').write_text(code)
        monkeypatch.delitem(sys.modules, 'some_app', raising=False)

    return make


APP = """
from pyramid.config import Configurator
from services import Echo

def main(global_config=None, **settings):
    config = Configurator(settings=settings)
    config.include('pyams_zmq')
    config.add_zmq_process('medias', Echo)
    return lambda *args: config.make_wsgi_app()(*args) if args else None, config.make_wsgi_app()
"""


def test_a_factory(module):
    module(APP)
    registry, declaration = build('some_app:main', 'medias')
    assert declarations(registry)['medias'] is declaration
    # It knows where it comes from, and starts nothing.
    assert declaration.source == 'some_app:main'
    declaration.ensure_started()
    assert declaration.problem is None


def test_an_ini_file(module, tmp_path):
    module(APP.replace('return lambda', 'return config.make_wsgi_app()\n    lambda'))
    ini = tmp_path / 'some.ini'
    ini.write_text('[app:main]\npaste.app_factory = some_app:main\n')
    assert build(str(ini), 'medias')[1].source == str(ini)
    assert build(f'{ini}#main', 'medias')[1].source == f'{ini}#main'
    with pytest.raises(SettingError, match="declares no process 'media'; the nearest is medias"):
        build(str(ini), 'media')


@pytest.mark.parametrize(
    ('source', 'text'),
    [
        ('none.ini', 'there is no file none.ini'),
        ('none.ini#main', 'there is no file none.ini'),
        ('nowhere:main', 'nowhere:main is neither an .ini file nor a factory: '),
        ('os.nothing', 'os.nothing is neither an .ini file nor a factory: '),
        ('', ' is neither an .ini file nor a factory: '),
    ],
)
def test_what_is_no_application(source, text):
    with pytest.raises(SettingError) as caught:
        build(source, 'medias')
    assert str(caught.value).startswith(text)


# A request for the time of a message


def test_a_request_for_the_time_of_a_message():
    config = configure()
    config.set_root_factory(lambda request: {'root of': request})
    config.commit()
    finished = []
    with request_context(config.registry) as request:
        assert request.registry is config.registry
        assert request.context == {'root of': request}
        assert get_current_request() is request
        request.add_finished_callback(lambda one: finished.append((one, get_current_request())))
    assert finished == [(request, request)]
    assert get_current_request() is None


def test_finished_callbacks_are_called_after_an_exception():
    config = configure()
    config.commit()
    finished = []
    with pytest.raises(ZeroDivisionError), request_context(config.registry) as request:
        request.add_finished_callback(lambda _request: finished.append(1)) or 1 / 0
    assert finished == [1]
    assert get_current_request() is None


@pytest.fixture
def transactional():
    """A configuration with pyramid_tm."""
    config = configure()
    config.include('pyramid_tm')
    config.commit()
    return config.registry


def test_its_transaction_is_committed(transactional):
    from pyramid_tm import is_tm_active

    hooks = []
    with request_context(transactional) as request:
        assert is_tm_active(request)
        assert request.environ['tm.manager'] is request.tm
        request.tm.get().addAfterCommitHook(hooks.append)
    assert hooks == [True]
    assert not is_tm_active(request)


@pytest.mark.parametrize('how', ['doom', 'raise'])
def test_its_transaction_is_aborted(transactional, how):
    hooks = []
    try:
        with request_context(transactional) as request:
            request.tm.get().addAfterAbortHook(lambda: hooks.append('aborted'))
            request.tm.get().addAfterCommitHook(hooks.append)
            if how == 'raise':
                raise ValueError('boom')
            request.tm.doom()
    except ValueError:
        assert how == 'raise'
    assert hooks == ['aborted']
    assert 'tm.active' not in request.environ
