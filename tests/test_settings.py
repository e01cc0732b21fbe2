"""What an ``.ini`` file may say, and what is said of the rest."""

import pytest

from pyams_zmq.exceptions import SettingError
from pyams_zmq.process import ZMQProcess
from pyams_zmq.settings import (
    GLOBAL,
    MONITOR,
    OPTIONS,
    check_name,
    check_names,
    process_names,
    read_global,
    read_options,
)


def read(**options):
    return read_options({f'pyams_zmq.medias.{name}': value for name, value in options.items()}, 'medias')


@pytest.mark.parametrize(
    ('option', 'text', 'value'),
    [
        ('address', '127.0.0.1:5555', 'tcp://127.0.0.1:5555'),
        ('address', ' ipc:///run/medias ', 'ipc:///run/medias'),
        ('address', '[::1]:5555', 'tcp://[::1]:5555'),
        ('address', ('localhost', 5555), 'tcp://localhost:5555'),
        ('auth', 'user:pass:word', 'user:pass:word'),
        ('clients', '10.0.0.0/8\n::1', '10.0.0.0/8\n::1'),
        ('delegate', 'myapp.Delegate', 'myapp.Delegate'),
        ('delegate', dict, dict),
        ('start', 'request', 'request'),
        ('start', 'app', 'app'),
        ('start', 'false', None),
        ('start', 'No', None),
        ('start', False, None),
        ('timeout', '2.5', 2.5),
        ('timeout', 3, 3.0),
        ('grace', '0', 0.0),
        ('workers', '0', 0),
        ('workers', 4, 4),
        ('max_in_flight', '1', 1),
        ('reply_timeout', 'none', None),
        ('reply_timeout', '5', 5.0),
        ('max_crashes', '3', 3),
    ],
)
def test_values(option, text, value):
    assert read(**{option: text}) == {option: value}


@pytest.mark.parametrize('option', OPTIONS)
@pytest.mark.parametrize('text', ['', '  ', '\n'])
def test_an_empty_value_is_none_at_all(option, text):
    assert read(**{option: text}) == {}


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('address', '127.0.0.1'),
        ('address', '127.0.0.1:0'),
        ('address', '127.0.0.1:x'),
        ('address', 'a b:1'),
        ('address', 5555),
        ('address', ()),
        ('clients', 5),
        ('app', 5),
        ('start', 'true'),
        ('start', True),
        ('start', 'requests'),
        ('timeout', '0'),
        ('timeout', '-1'),
        ('timeout', 'nan'),
        ('timeout', 'inf'),
        ('timeout', '1e400'),
        ('timeout', True),
        ('timeout', 'ten'),
        ('timeout', '5 s'),
        ('timeout', []),
        ('grace', '-0.1'),
        ('grace', 'none'),
        ('workers', '-1'),
        ('workers', '1.5'),
        ('workers', 1.5),
        ('workers', True),
        ('workers', 'four'),
        ('workers', '9' * 5000),
        ('max_in_flight', '0'),
        ('reply_timeout', '0'),
        ('stop_timeout', 'none'),
        ('max_crashes', 0),
        ('durable', 'perhaps'),
        ('durable', 2),
    ],
)
def test_a_value_that_makes_no_sense(option, value):
    with pytest.raises(SettingError) as caught:
        read(**{option: value})
    assert str(caught.value) == (
        f'pyams_zmq.medias.{option}: {value!r} is not {OPTIONS[option].kind.accepts}'
    )


def test_a_secret_is_not_shown():
    with pytest.raises(SettingError) as caught:
        read(auth=4711)
    assert '4711' not in str(caught.value)
    assert str(caught.value).startswith('pyams_zmq.medias.auth: what is given is not ')


@pytest.mark.parametrize(
    ('name', 'nearest'), [('worker', 'workers'), ('adress', 'address'), ('Timeout', 'timeout'), ('x.y', '')]
)
def test_an_unknown_option(name, nearest):
    with pytest.raises(SettingError) as caught:
        read(**{name: '1'})
    assert str(caught.value).startswith(
        f'pyams_zmq.medias.{name} is no setting; the nearest is pyams_zmq.medias.{nearest}'
    )


def test_settings_go_before_code():
    settings = {'pyams_zmq.medias.workers': '3', 'pyams_zmq.medias.timeout': '', 'other.workers': '9'}
    given = {'workers': 1, 'timeout': 7, 'delegate': None}
    assert read_options(settings, 'medias', given) == {'workers': 3, 'timeout': 7.0}


@pytest.mark.parametrize(
    'option', ['reply_timeout', 'max_message_size', 'handshake_timeout', 'heartbeat_interval']
)
def test_none_in_code_is_a_value_where_it_is_one_in_a_file(option):
    assert read_options({}, 'medias', {option: None, 'workers': None}) == {option: None}
    assert read_options({f'pyams_zmq.medias.{option}': '5'}, 'medias', {option: None}) == {option: 5}


def test_an_unknown_option_in_code():
    with pytest.raises(SettingError, match='medias.wrokers is no setting; the nearest is .*medias.workers'):
        read_options({}, 'medias', {'wrokers': 3})


@pytest.mark.parametrize('name', ['medias', 'a', 'A-1_b', 'x' * 32])
def test_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    'name', ['', '1a', '-a', 'a.b', 'a b', 'a/b', '../a', 'é', 'x' * 33, 'monitor', 'ini', 'a\n', None, 5]
)
def test_names_that_cannot_be(name):
    with pytest.raises(SettingError, match='cannot be the name of a process'):
        check_name(name)


def test_settings_that_nothing_would_read():
    good = {
        'pyramid.includes': 'pyams_zmq',
        'pyams_zmq.ini': 'app.ini',
        'pyams_zmq.medias.workers': '1',
        'pyams_zmq.monitor.prefix': '/x',
    }
    check_names(good, ['medias'])
    with pytest.raises(SettingError, match='^pyams_zmq.init is no setting; the nearest is pyams_zmq.ini$'):
        check_names({'pyams_zmq.init': 'x'}, ['medias'])
    with pytest.raises(SettingError, match="'media' is declared; the nearest is medias$"):
        check_names({'pyams_zmq.media.workers': '1'}, ['medias', 'other'])
    with pytest.raises(SettingError, match="'media' is declared$"):
        check_names({'pyams_zmq.media.workers': '1'}, [])


def test_global_settings():
    assert read_global({}, 'ini') is None
    assert read_global({'pyams_zmq.ini': ' '}, 'ini') is None
    assert read_global({'pyams_zmq.processes': ' medias\n indexer '}, 'processes') == ('medias', 'indexer')
    with pytest.raises(SettingError, match='pyams_zmq.ini: 5 is not the path'):
        read_global({'pyams_zmq.ini': 5}, 'ini')


def test_names_that_settings_mention():
    settings = {
        'pyams_zmq.medias.workers': '1',
        'pyams_zmq.medias.timeout': '1',
        'pyams_zmq.processes': 'indexer mails',
        'pyams_zmq.mails.delegate': 'x.y',
        'pyams_zmq.monitor.prefix': '/x',
        'pyams_zmq.ini': 'app.ini',
    }
    assert process_names(settings) == ['indexer', 'mails', 'medias']


def test_the_defaults_are_those_of_the_classes():
    """Where none is set, none is handed over; the table only tells them."""
    told = {
        option.name: option.kind.read(option.default) if option.default else None
        for option in OPTIONS.values()
        if option.of_process
    }
    assert told.pop('workers') == 1
    assert told == {name: getattr(ZMQProcess, name) for name in told}


@pytest.mark.parametrize('options', [GLOBAL, OPTIONS, MONITOR])
def test_the_tables_tell_all(options):
    for name, option in options.items():
        assert name == option.name
        assert option.kind.accepts
        assert option.help
