"""The command pyams_zmq, without run: lists, health checks, figures and messages."""

import io
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from peers import handler_of
from pyams_zmq.exceptions import ExitCode
from pyams_zmq.figures import figures
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.rundir import RunDir
from pyams_zmq.scripts import COMMANDS, main, status
from pyams_zmq.scripts.source import read_settings
from services import Echo, Process, running

#: Seconds that nobody takes to answer.
SHORT = '0.2'


@pytest.fixture(scope='module')
def service():
    """A process that no test disturbs."""
    with running(Process('127.0.0.1', handler_of(Echo()), 'user:secret')) as process:
        yield process


@pytest.fixture
def ini(tmp_path, service):
    """An .ini file of an application which cannot be built, so that nobody tries."""
    path = tmp_path / 'production.ini'
    path.write_text(
        f"""
        [app:main]
        use = call:no.such.application:main
        pyams_zmq.ini = %(__file__)s
        pyams_zmq.run_dir = %(here)s
        pyams_zmq.processes = medias other
        pyams_zmq.medias.address = {service.endpoint}
        pyams_zmq.medias.auth = user:secret
        pyams_zmq.other.delegate = no.such.Delegate
        """.replace('\n        ', '\n')
    )
    return str(path)


@pytest.fixture
def run(capsys):
    """Run the command; returns its exit code and what it wrote."""

    def run(*words):
        code = main(words)
        output, errors = capsys.readouterr()
        return code, output if code != ExitCode.USAGE else errors

    return run


# list


def test_list(run, ini, service, tmp_path):
    code, output = run('list', ini)
    assert code == 0
    head, medias, other = (line.split() for line in output.splitlines())
    assert head == ['NAME', 'ADDRESS', 'START', 'DELEGATE']
    assert medias == ['medias', service.endpoint, 'request', 'told', 'in', 'code']
    socket = RunDir(ini, 'other', str(tmp_path)).socket
    assert other == ['other', f'ipc://{socket}', 'request', 'no.such.Delegate']
    assert 'secret' not in output


def test_list_for_scripts(run, ini, service):
    code, output = run('list', ini, '--json')
    assert code == 0
    assert json.loads(output)[0] == {
        'name': 'medias',
        'address': service.endpoint,
        'start': 'request',
        'delegate': None,
    }
    assert 'secret' not in output


def test_declared_in_code(run, ini, tmp_path):
    """It is listed once it was started. (The name is short: so is the path of a socket.)"""
    run_dir = RunDir(ini, 'declared-in-code', str(tmp_path))
    assert 'declared-in-code' not in run('list', ini)[1]
    assert run('ping', ini, 'declared-in-code', '--timeout', SHORT)[0] == ExitCode.USAGE
    run_dir.make()
    RunDir('another.ini', 'others', str(tmp_path)).make()
    names = [one['name'] for one in json.loads(run('list', ini, '--json')[1])]
    assert names == ['medias', 'other', 'declared-in-code']
    code, output = run('ping', ini, 'declared-in-code', '--timeout', SHORT)
    assert code == 1
    assert output.startswith('declared-in-code: 503 Nobody there')


def test_an_application_without_processes(run, tmp_path):
    path = tmp_path / 'empty.ini'
    path.write_text('[app:main]\nuse = egg:nothing\n')
    assert run('list', str(path)) == (0, 'NAME  ADDRESS  START  DELEGATE\n')
    assert run('ping', str(path)) == (2, f'pyams_zmq: {path} tells of no process\n')


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='a device of Linux')
@pytest.mark.parametrize('options', [[], ['--json']])
def test_the_output_cannot_be_written(ini, options):
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [sys.executable, '-m', 'pyams_zmq', 'list', ini, *options],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (
        ExitCode.ERROR,
        'pyams_zmq: the output cannot be written: No space left on device\n',
    )


# ping


def test_ping(run, ini):
    code, output = run('ping', ini, 'medias')
    assert code == 0
    assert output.startswith('medias: answers in ')


def test_ping_of_all(run, ini):
    code, output = run('ping', ini, '--timeout', SHORT)
    assert code == 1
    assert [line.split()[:2] for line in output.splitlines()] == [['medias:', 'answers'], ['other:', '503']]


def test_ping_for_scripts(run, ini):
    code, output = run('ping', '--json', '--timeout', SHORT, ini)
    assert code == 1
    medias, other = json.loads(output)
    assert (medias['name'], medias['ok'], medias['status'], medias['body']) == ('medias', True, 200, 'pong')
    assert 0 < medias['seconds'] < 30
    assert (other['ok'], other['status']) == (False, 503)


@pytest.mark.parametrize(
    'words', ['{0} --timeout 9 medias', '--timeout 9 {0} medias', '{0} medias --timeout 9']
)
def test_options_stand_anywhere(run, ini, words):
    assert run('ping', *words.format(ini).split())[0] == 0


def test_ping_by_address(run, start):
    process = start()
    assert run('ping', '--address', process.endpoint)[0] == 0
    code, output = run('ping', '--address', '127.0.0.1:9', '--timeout', SHORT)
    assert (code, output) == (1, f'127.0.0.1:9: 503 Nobody there: no connection within {SHORT} s\n')


def test_a_refusal(run, service):
    code, output = run('ping', '--address', service.endpoint, '--timeout', '30')
    assert code == 1
    assert ': 401 ' in output


# call


def test_call(run, ini):
    code, output = run('call', ini, 'medias', 'echo', '{"path": "été"}')
    assert (code, output) == (0, '200\n{\n  "path": "été"\n}\n')
    assert run('call', ini, 'medias', 'echo', '"text"') == (0, '200\ntext\n')
    assert run('call', ini, 'medias', 'echo') == (0, '200\nnull\n')
    assert run('call', ini, 'medias', 'fail', '"why"') == (1, '500\nValueError: why\n')
    assert run('call', ini, 'medias', 'no_such') == (1, '404\nNo such message type: no_such\n')


def test_call_for_scripts(run, ini):
    code, output = run('call', '--json', ini, 'medias', 'echo', '[1, null]')
    assert code == 0
    assert json.loads(output) == {'status': 200, 'body': [1, None], 'delivered': True}
    code, output = run('call', '--json', '--address', '127.0.0.1:9', '--timeout', SHORT, 'echo')
    assert code == 1
    assert json.loads(output)['delivered'] is False


def test_data_from_the_standard_input(run, ini, monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('["secret"]\n'))
    assert run('call', ini, 'medias', 'echo', '-', '--json')[0] == 0


@pytest.mark.parametrize('data', ['', '{', "{'a': 1}", 'text', '[' * 100_000, '1' * 5000])
def test_data_that_are_no_json(run, ini, data):
    code, output = run('call', ini, 'medias', 'echo', data)
    assert code == 2
    assert 'the data are not JSON' in output
    assert "'{\"a\": 1}'" in output


def test_what_a_terminal_might_take_for_an_order_is_shown_escaped(run, start):
    class Hostile(Echo):
        def echo(self, data):
            return [200, '\x1b[2J\x9b\u202e\ud800\r\nsecond line\x07']

    process = start(handler=handler_of(Hostile()))
    _, output = run('call', '--address', process.endpoint, 'echo')
    assert output == '200\n\\x1b[2J\\x9b\\u202e\\ud800\\r\nsecond line\\x07\n'


def test_replies_that_cannot_be_read(run, start):
    class Handler(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            self.rep_stream.send_multipart([b'1', b'2'])

    process = start(handler=Handler)
    for command in 'ping', 'status':
        code, output = run(command, '--address', process.endpoint)
        assert code == 1
        assert ': 502 The reply has 2 frames' in output


# status


def test_status(run, ini):
    run('call', ini, 'medias', 'fail', '"first\\nsecond"')
    code, output = run('status', ini, 'medias')
    assert code == 0
    lines = output.splitlines()
    assert lines[0].split()[:5] == ['NAME', 'PID', 'UP', 'SERVED', 'FAILED']
    assert lines[1].startswith('medias  ')
    assert ' ms ' in lines[1]
    assert ' MB ' in lines[1]
    assert lines[3] == 'The last failures of medias:'
    assert lines[5].endswith('  fail  ValueError: first\\nsecond')


def test_status_of_all(run, ini):
    code, output = run('status', ini, '--timeout', SHORT)
    assert code == 1
    lines = output.splitlines()
    assert lines[1].startswith('medias  ')
    assert lines[2].startswith('other: 503 Nobody there')
    code, output = run('status', ini, 'other', '--timeout', SHORT)
    assert (code, output) == (1, f'other: 503 Nobody there: no connection within {SHORT} s\n')


def test_status_for_scripts(run, ini):
    code, output = run('status', ini, '--json', '--timeout', '2')
    assert code == 1
    medias, other = json.loads(output)
    assert medias['ok'] is True
    assert medias['problem'] is None
    assert medias['uptime'] > 0
    assert {'p50', 'p90', 'p99'} <= medias['latency'].keys()
    assert (other['ok'], other['uptime']) == (False, None)
    assert other['problem'].startswith('503 ')


def test_status_of_what_is_no_process_of_ours(run, start):
    class Odd(Echo):
        pass

    class Handler(ZMQMessageHandler):
        handler = Odd

        def __call__(self, frames):
            failures = [{'time': 1e17, 'type': 'a\x1b\n', 'error': 7}, {'time': 'x'}, None]
            self.rep_stream.send_json([200, {'uptime': 'x', 'served': -1, 'failures': failures}])

    process = start(handler=Handler)
    code, output = run('status', '--address', process.endpoint)
    assert code == 0
    assert output.splitlines()[1].split() == [process.endpoint, *'-' * 10]
    assert output.splitlines()[5].split() == ['-', 'a\\x1b\\n']


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0, '0 s'),
        (59.9, '60 s'),
        (60, '1 min 0 s'),
        (3725, '1 h 2 min'),
        (90_000, '1 d 1 h'),
        (86400 * 400, '400 d 0 h'),
    ],
)
def test_how_long_it_is_up(capsys, seconds, text):
    status._show([{'name': 'medias', 'ok': True, **figures({'uptime': seconds})}])
    assert f'  {text}  ' in capsys.readouterr().out


# What makes no sense


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['ping'], 'give an .ini file, or the --address of a process'),
        (['status'], 'give an .ini file'),
        (['call', 'x.ini'], 'call takes APP NAME TYPE [JSON]'),
        (['call', 'x.ini', 'medias'], 'call takes APP NAME TYPE [JSON]'),
        (['call', 'x.ini', 'medias', 'echo', '1', '2'], 'call takes APP NAME TYPE [JSON]'),
        (['call', '--address', '127.0.0.1:9', 'echo', '1', '2'], 'call takes APP NAME TYPE [JSON]'),
        (['ping', '--address', '127.0.0.1'], "--address: '127.0.0.1' has no port"),
        (['ping', '--address', 'http://localhost'], '--address: '),
        (['ping', 'x.ini', '--auth-file', 'x'], 'go with --address'),
        (['ping', 'no_such.ini'], 'no_such.ini cannot be read: '),
        (['list', '/'], '/ cannot be read: '),
        (['list', ''], ' cannot be read: '),
    ],
)
def test_command_lines_that_make_no_sense(run, words, told):
    code, output = run(*words)
    assert code == ExitCode.USAGE
    assert output.startswith('pyams_zmq: ')
    assert told in output


@pytest.mark.parametrize('timeout', ['0', '-1', 'soon', 'nan', 'inf', '1e999'])
def test_a_timeout_that_makes_no_sense(capsys, timeout):
    with pytest.raises(SystemExit) as error:
        main(['ping', '--timeout', timeout, 'x.ini'])
    assert error.value.code == ExitCode.USAGE
    assert f'{timeout!r} is no number of seconds above 0' in capsys.readouterr().err


def test_a_name_that_nothing_tells_of(run, ini):
    code, output = run('ping', ini, 'media')
    assert code == ExitCode.USAGE
    assert output.endswith(
        f"{ini} has no setting of a process 'media', and none of that name has been started from it;"
        ' the nearest is medias\n'
    )


def test_a_setting_that_makes_no_sense(run, ini):
    with open(ini, 'a') as file:
        file.write('pyams_zmq.other.auth = secret\npyams_zmq.other.timeout = soon\n')
    code, output = run('list', ini)
    assert code == ExitCode.USAGE
    assert 'pyams_zmq.other.' in output
    assert 'secret' not in output


def test_an_interrupt_is_no_traceback(ini, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr('pyams_zmq.scripts.ping.target.find', interrupt)
    assert main(['ping', ini]) == 130


# The .ini file


def test_settings_that_are_inherited(tmp_path):
    base = tmp_path / 'base.ini'
    base.write_text(
        '[DEFAULT]\npyams_zmq.no = setting\nport = 5555\n[app:main]\nuse = egg:pictures\n'
        'pyams_zmq.medias.address = 127.0.0.1:%(port)s\npyams_zmq.medias.timeout = 1\n'
        '[app:admin]\nuse = egg:no_such\nget pyams_zmq.medias.timeout = port\n'
        '[pipeline:behind]\npipeline = main\n'
    )
    derived = tmp_path / 'derived.ini'
    derived.write_text(
        '[app:main]\nuse = config:base.ini\npyams_zmq.medias.timeout = 2\n'
        '[app:again]\nuse = main\npyams_zmq.medias.timeout = 3\n'
    )
    expected = {'pyams_zmq.medias.address': '127.0.0.1:5555', 'pyams_zmq.medias.timeout': '1'}
    assert ours(base) == expected
    assert ours(f'{base}#behind') == expected
    assert ours(f'{base}#admin') == {'pyams_zmq.medias.timeout': '5555'}
    assert ours(derived) == {**expected, 'pyams_zmq.medias.timeout': '2'}
    assert ours(f'{derived}#again') == {**expected, 'pyams_zmq.medias.timeout': '3'}


def ours(source):
    return {
        name: value for name, value in read_settings(str(source)).items() if name.startswith('pyams_zmq.')
    }


@pytest.mark.parametrize(
    'text',
    [
        '',
        'no section',
        '[app:other]\nuse = egg:x\n',
        '[app:main]\nuse = egg:x\na = %(missing)s\n',
        '\0',
        '[app:main]\n',
    ],
)
def test_files_that_are_none(run, tmp_path, text):
    path = tmp_path / 'some.ini'
    path.write_text(text)
    code, output = run('list', str(path))
    assert code == ExitCode.USAGE
    assert output.startswith(f'pyams_zmq: {path} cannot be read: ')


# As it is called


def command(*words, **options):
    return python('-m', 'pyams_zmq', *words, **options)


def python(*words, **options):
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, timeout=60, **options
    )


def test_the_command_itself(ini):
    outcome = command('call', ini, 'medias', 'echo', '-', input='{"a": 1}')
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, '200\n{\n  "a": 1\n}\n', '')
    assert command('ping', ini, '--timeout', SHORT).returncode == 1
    assert command().returncode == 2
    assert command('no_such').returncode == 2


def test_commands_import_little(ini):
    """A health check may be made every few seconds, and nobody likes to wait for the others."""
    code = (
        'import sys; from importlib import import_module; from pyams_zmq.scripts import COMMANDS, main;'
        ' [import_module(f"pyams_zmq.scripts.{name}") for name in COMMANDS if name != "run"];'
        ' code = main(sys.argv[1:]);'
        ' print({"pyramid.registry", "tornado", "pyams_zmq.process", "pyams_zmq.monitor"} & {*sys.modules});'
        ' sys.exit(code)'
    )
    outcome = python('-c', code, 'ping', ini, 'medias')
    assert outcome.returncode == 0
    assert outcome.stdout.splitlines()[1] == 'set()'


@pytest.mark.parametrize('name', COMMANDS)
def test_help_comes_with_examples(capsys, name):
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert end.value.code == 0
    assert f'\n  pyams_zmq {name} ' in capsys.readouterr().out


def test_help_and_version(capsys):
    for word, told in (
        ('--help', '\n  pyams_zmq COMMAND --help\n'),
        ('--version', f'{version("pyams_zmq")}\n'),
    ):
        with pytest.raises(SystemExit) as end:
            main([word])
        assert end.value.code == 0
        assert told in capsys.readouterr().out
