"""The command pyams_zmq for jobs: jobs, wait, cancel and retry."""

import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

import work
from peers import handler_of
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.scripts import bars, main
from pyams_zmq.scripts.output import as_json
from services import Echo, Process, running

#: Seconds that nobody takes to answer.
SHORT = '0.2'


@pytest.fixture(scope='module')
def service():
    """A process with jobs, of which one runs at a time."""
    cls = type('Configured', (Process,), {'journal': ':memory:', 'executor': 'threads:1'})
    with running(cls('127.0.0.1', type('Handler', (ZMQMessageHandler,), {'handler': work.Work}))) as process:
        yield process


@pytest.fixture
def client(service):
    work.reset()
    with ZMQClient(service.endpoint, timeout=30) as client:
        yield client
        work.gate.set()
        for state in 'queued', 'running':
            for job in client.jobs(state).body['jobs']:
                client.cancel(job['job'])
                client.wait(job['job'], 30)


@pytest.fixture
def ini(tmp_path, service):
    path = tmp_path / 'production.ini'
    path.write_text(
        '[app:main]\nuse = call:no.such.application:main\npyams_zmq.ini = %(__file__)s\n'
        f'pyams_zmq.run_dir = {tmp_path}\n'
        f'pyams_zmq.medias.address = {service.endpoint}\npyams_zmq.other.delegate = no.such.Delegate\n'
    )
    return str(path)


@pytest.fixture
def run(capsys):
    """Run the command; returns its exit code, what it wrote, and its complaints."""

    def run(*words):
        code = main(words)
        return code, *capsys.readouterr()

    return run


def begun():
    assert work.begun.acquire(timeout=30)


# jobs


def test_jobs(run, ini, client):
    client.submit('fail', 'first\n\x1b[2Jsecond', id='failing')
    client.wait('failing', 30)
    work.reset()
    client.submit('block', 1, id='running')
    begun()
    client.submit('double', 1, id='queued')
    code, output, _ = run('jobs', ini, 'medias')
    assert code == 0
    counts, head, *lines = output.splitlines()
    assert counts.startswith('medias: 1 queued, 1 running, ')
    assert head.split() == ['JOB', 'TYPE', 'STATE', 'PROGRESS', 'AGE', 'ATTEMPTS', 'NOTE']
    queued, running, failed = (line.split() for line in lines[:3])
    assert queued[:4] == ['queued', 'double', 'queued', '-']
    assert queued[5:] == ['s', '0']
    assert running[:5] == ['running', 'block', 'running', '1/2', '(50%)']
    assert running[-2:] == ['1', 'half']
    assert failed[:3] == ['failing', 'fail', 'failed']
    assert lines[2].endswith('  3         ValueError: first\\n\\x1b[2Jsecond')
    client.cancel('running')
    # It is told to stop, and may not have done so yet.
    assert run('jobs', ini, 'medias')[0] == 0


def test_jobs_for_scripts(run, ini, client):
    client.submit('fail', 'why', id='failing-2')
    client.wait('failing-2', 30)
    code, output, _ = run('jobs', ini, 'medias', '--state', 'failed', '--limit', '1', '--json')
    assert code == 0
    [medias] = json.loads(output)
    assert (medias['name'], medias['ok'], medias['problem']) == ('medias', True, None)
    assert medias['counts']['failed'] > 0
    [job] = medias['jobs']
    assert [job[name] for name in ('job', 'type', 'state', 'attempts', 'status')] == [
        'failing-2',
        'fail',
        'failed',
        3,
        500,
    ]
    assert job['error'] == 'ValueError: why'


def test_jobs_of_all_processes(run, ini, client):
    code, output, _ = run('jobs', ini, '--timeout', SHORT)
    assert code == 1
    assert output.startswith('medias: ')
    assert output.splitlines()[-2:] == ['', f'other: 503 Nobody there: no connection within {SHORT} s']


def test_status_counts_the_jobs(run, ini, client):
    client.submit('block', 1, id='counted')
    begun()
    code, output, _ = run('status', ini, 'medias')
    assert code == 0
    assert '\nJobs of medias: 0 queued, 1 running, ' in output


def test_a_process_without_jobs(run, start, tmp_path):
    process = start()
    path = tmp_path / 'app.ini'
    path.write_text(f'[app:main]\nuse = egg:x\npyams_zmq.medias.address = {process.endpoint}\n')
    assert run('jobs', str(path)) == (0, 'no process has jobs\n', '')
    assert run('jobs', str(path), '--json') == (0, '[]\n', '')
    code, output, _ = run('jobs', str(path), 'medias')
    assert (code, output) == (1, 'medias: 404 This process has no journal, and so no jobs\n')


def test_more_jobs_than_a_process_lists_at_once(run, start):
    """As many as are wanted, and not more, whatever the process says."""

    class Handler(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            wanted = json.loads(frames[-1])[1]
            jobs = [{'job': str(number)} for number in range(wanted['limit'] + 7)]
            self.rep_stream.send_json([200, {'jobs': jobs, 'next': (wanted['before'] or 0) + 1}])

    process = start(handler=Handler)
    output = run('jobs', '--address', process.endpoint, '--limit', '2500', '--json')[1]
    assert len(json.loads(output)[0]['jobs']) == 2500


# What is told of jobs that cannot be shown as it is


@pytest.mark.parametrize(
    ('job', 'line'),
    [
        ({'state': 'running', 'cancelling': True}, 'running -  - - has been told that it is not wanted'),
        ({'state': 'queued', 'unknown': True}, 'queued - - - waits for a delegate with this type'),
        ({'retry_at': 0, 'error': 'why'}, '- - - - again in 0 s: why'),
        ({'progress': {'done': 3}, 'error': 'x' * 200}, '- 3 - - ' + 'x' * 79 + '…'),
        ({'progress': {'done': 3, 'total': 0}}, '- 3 - -'),
        ({'progress': {'done': 0.5, 'total': 2}, 'submitted': 1e17}, '- 0.5/2 (25%) 0 s -'),
        ({'state': 'x', 'submitted': 'x', 'attempts': {}, 'progress': 7, 'error': [], 'job': 1}, '- - - -'),
        (None, '- - - -'),
    ],
)
def test_jobs_as_a_process_may_tell_of_them(run, start, job, line):
    class Handler(ZMQMessageHandler):
        handler = Echo

        def __call__(self, frames):
            self.rep_stream.send_json([200, {'jobs': [job], 'counts': 7, 'next': 'x'}])

    code, output, _ = run('jobs', '--address', start(handler=Handler).endpoint)
    assert code == 0
    assert output.splitlines()[2].split() == line.split()


def deep(depth=900):
    return '[' * depth + ']' * depth


@pytest.fixture
def hostile(start):
    """A process that replies the same to everybody."""

    def hostile(reply):
        class Handler(ZMQMessageHandler):
            handler = Echo

            def __call__(self, frames):
                self.rep_stream.send_multipart([reply])

        return start(handler=Handler).endpoint

    return hostile


REPLIES = [
    *(f'[200, {body}]' for body in ('null', '7', '"x"', '[]', '{"state": "done"}', '{"state": []}', deep())),
    f'[500, {deep()}]',
    '[500, "\\u001b[2J\\r\\u202e"]',
    '[1e400, 2]',
    '[-1, {"jobs": {}}]',
    '[200, {"state": "done", "status": true}]',
    f'[200, {{"state": "done", "status": 200, "body": {deep()}}}]',
    f'[{"9" * 4000}, 1]',
    '\xff',
]


@pytest.mark.parametrize('reply', REPLIES, ids=lambda reply: reply[:40])
def test_whatever_a_process_replies(run, hostile, reply):
    """Nothing is worse than an exit code, and a terminal gets no orders."""
    endpoint = hostile(reply.encode('latin-1'))
    for command in 'ping', 'status', 'jobs', 'call x', 'wait x', 'cancel x', 'retry x':
        name, *words = command.split()
        for options in [], ['--json']:
            code, output, errors = run(name, '--address', endpoint, '--timeout', '0.3', *options, *words)
            assert code in (0, 1, 4)
            assert (output + errors).replace('\n', '').isprintable()
            if options:
                json.loads(output)


def test_json_that_is_nested_deeper_than_python_can_write_it():
    value = []
    for _ in range(100_000):
        value = [value]
    assert as_json(value) == '"nested too deeply to be shown"'
    while value:  # or it is taken apart recursively
        [value] = value


# wait


def test_wait(run, ini, client):
    client.submit('double', 21, id='double')
    client.submit('static', [1, 'é'], id='static')
    code, output, errors = run('wait', ini, 'medias', 'double', 'static', 'double')
    assert (code, output) == (0, 'double: done 200 42\nstatic: done 200 [1, "é"]\n')
    assert {'double: done 100 %', 'static: done 100 %'} <= set(errors.splitlines())


def test_wait_for_scripts(run, ini, client):
    client.submit('fail', 'why', id='failing-3')
    code, output, _ = run('wait', '--json', ini, 'medias', 'failing-3', 'no-such')
    assert code == 1
    assert json.loads(output) == [
        {'job': 'failing-3', 'state': 'failed', 'status': 500, 'body': 'ValueError: why'},
        {'job': 'no-such', 'state': None, 'status': 404, 'body': 'No such job: no-such'},
    ]


def test_what_does_not_end_in_time(run, ini, client):
    client.submit('block', 1, id='blocked')
    begun()
    code, output, _ = run('wait', ini, 'medias', '--timeout', SHORT, 'blocked')
    assert (code, output) == (4, 'blocked: has not ended in time\n')
    code, output, _ = run('wait', ini, 'medias', '--timeout', SHORT, '--json', 'blocked')
    assert (code, json.loads(output)[0]['state']) == (4, None)


def test_wait_for_what_is_cancelled(run, ini, client):
    client.submit('block', 1, id='unwanted')
    client.submit('double', 1, id='wanted')
    begun()
    assert run('cancel', ini, 'medias', 'unwanted')[:2] == (0, 'unwanted: runs, and has been told\n')
    code, output, _ = run('wait', ini, 'medias', 'unwanted', 'wanted')
    assert (code, output) == (
        3,
        'unwanted: cancelled 410 The job unwanted was cancelled\nwanted: done 200 2\n',
    )
    assert run('wait', ini, 'medias', 'unwanted', 'no-such')[0] == 1


def test_wait_for_a_process_that_is_away(run, serve, start, tmp_path):
    with serve() as client:
        client.submit('block', 1, id='blocked')
        begun()
        process = client.process
        process.kill()
        process.join()
    by_address = 'wait', '--address', process.endpoint
    code, _, errors = run(*by_address, '--timeout', SHORT, 'blocked', 'another')
    assert (code, errors.count('\n')) == (4, 1)
    assert errors.startswith('blocked: away: 503 Nobody there: ')
    outcome = []
    waiting = threading.Thread(
        target=lambda: outcome.append(main([*by_address, '--timeout', '60', 'blocked']))
    )
    waiting.start()
    start(process.endpoint.removeprefix('tcp://'), process.handler, cls=type(process))
    begun()
    work.gate.set()
    waiting.join(60)
    assert outcome == [0]


def test_a_refusal_is_the_end(run, start):
    process = start('127.0.0.1', handler_of(Echo()), 'user:secret')
    code, output, _ = run('wait', '--address', process.endpoint, 'x')
    assert code == 1
    assert output.startswith('x: 401 ')


# cancel and retry


def test_cancel_and_retry(run, ini, client):
    client.submit('block', 1, id='first')
    begun()
    client.submit('double', 4, id='second')
    assert run('cancel', ini, 'medias', 'second')[:2] == (0, 'second: cancelled\n')
    code, output, _ = run('retry', ini, 'medias', 'second', 'no-such', 'second')
    assert (code, output) == (1, 'second: will run\nno-such: 404 No such job: no-such\n')
    work.gate.set()
    assert client.wait('second', 30) == (200, 8)
    code, output, _ = run('retry', ini, 'medias', 'second', '--json')
    assert code == 1
    assert json.loads(output) == [
        {'job': 'second', 'ok': False, 'status': 409, 'body': 'The job second is done already'}
    ]
    assert run('cancel', ini, 'medias', '--json', 'no-such')[0] == 1


def test_ids_that_look_like_options(run, ini, client):
    client.submit('double', 1, id='--json')
    assert run('wait', ini, 'medias', '--', '--json')[:2] == (0, '--json: done 200 2\n')


# What makes no sense


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['jobs'], 'give an .ini file, or the --address of a process'),
        (['wait', 'x.ini'], 'wait takes APP NAME JOB…, or --address ADDRESS JOB…'),
        (['wait', 'x.ini', 'medias'], 'wait takes APP NAME JOB…'),
        (['cancel', 'x.ini', 'medias'], 'cancel takes APP NAME JOB…'),
        (['retry', 'x.ini', 'medias'], 'retry takes APP NAME JOB…'),
        (['retry', 'no_such.ini', 'medias', 'x'], 'no_such.ini cannot be read: '),
    ],
)
def test_command_lines_that_make_no_sense(run, words, told):
    code, output, errors = run(*words)
    assert (code, output) == (ExitCode.USAGE, '')
    assert told in errors


@pytest.mark.parametrize('limit', ['0', '-1', '1.5', 'x', '², ', '9' * 10, ''])
def test_a_limit_that_makes_no_sense(capsys, limit):
    with pytest.raises(SystemExit) as error:
        main(['jobs', f'--limit={limit}', 'x.ini'])
    assert error.value.code == ExitCode.USAGE
    assert f'{limit!r} is no number above 0' in capsys.readouterr().err


# On a terminal


def on_a_terminal(*words, until=None):
    """Run the command on a terminal; returns its exit code, its output, and what the terminal was sent.

    :param until: what the terminal has to be sent before the jobs that wait for the gate go on
    """
    ours, theirs = pty.openpty()
    environment = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '120'}
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as process:
        os.close(theirs)
        seen = b''
        with suppress(OSError):  # where nobody has it open any more
            while chunk := os.read(ours, 10_000):
                seen += chunk
                if until is not None and until in seen:
                    work.gate.set()
                    until = None
        os.close(ours)
        return process.wait(60), process.stdout.read(), seen.decode()


def test_bars(ini, client):
    client.submit('block', 1, id='[red]blocked')
    begun()
    command = '-m', 'pyams_zmq', 'wait', ini, 'medias', 'no-such', '[red]blocked'
    code, output, seen = on_a_terminal(*command, until=b'running 1/2 (50%) half')
    assert (code, output) == (1, 'no-such: 404 No such job: no-such\n[red]blocked: done 200 1\n')
    assert '[red]blocked' in seen
    assert '━━' in seen
    assert seen.endswith('\x1b[?25h')  # the cursor is there again


def test_lines_on_a_terminal_without_rich(ini, client):
    client.submit('double', 1, id='no-bar')
    code = (
        'import sys; sys.modules["rich.console"] = None; from pyams_zmq.scripts import main; sys.exit(main())'
    )
    outcome = on_a_terminal('-c', code, 'wait', ini, 'medias', 'no-bar')
    assert outcome[:2] == (0, 'no-bar: done 200 2\n')
    assert outcome[2].endswith('no-bar: done 100 %\r\n')
    assert '\x1b' not in outcome[2]


def test_lines_where_a_tenth_is_done(capsys):
    with bars.showing(['x']) as show:
        for done in range(101):
            show('x', 'running', done, 100, f'page {done}')
        show('x', 'done', 1, 1, '')
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ['x: running page 0', 'x: running 10 % page 10', 'x: running 20 % page 20']
    assert lines[-1] == 'x: done 100 %'
    assert len(lines) == 12


# What happens to the output


def test_nobody_listens_any_more(ini, client):
    """As in ``pyams_zmq … | head -1``."""
    command = [sys.executable, '-m', 'pyams_zmq', 'jobs', ini, 'medias']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ''
        assert process.wait(60) == 141


def test_output_that_cannot_be_written_as_it_is(ini, client):
    client.submit('static', 'é\u2026', id='accents')
    outcome = subprocess.run(
        [sys.executable, '-m', 'pyams_zmq', 'wait', ini, 'medias', 'accents'],
        check=True,
        capture_output=True,
        env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
        timeout=60,
    )
    assert outcome.stdout == b'accents: done 200 \\xe9\\u2026\n'
