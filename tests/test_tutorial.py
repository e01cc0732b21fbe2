"""The tutorial, followed to the end: its files, its commands, and a browser."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")

TUTORIAL = Path(__file__).parents[1] / 'docs' / 'tutorial.rst'
BLOCK = re.compile(r'^\.\. code-block:: (\S+)\n((?:   :.*\n)*)\n((?:   .*\n|\n)+)', re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_process_left():
    """The browser's processes come and go; those of the tutorial end with its server."""


def blocks():
    """Yield the language, the caption and the text of each example."""
    for language, options, text in BLOCK.findall(TUTORIAL.read_text()):
        caption = re.search(r':caption: (\S+)', options)
        yield language, caption and caption[1], re.sub('^   ', '', text, flags=re.MULTILINE).rstrip() + '\n'


def commands():
    return [line for language, _, text in blocks() if language == 'sh' for line in text.strip().splitlines()]


@pytest.fixture
def tutorial(site):
    """What somebody has who has followed the tutorial, but for the port and the time it takes."""
    server = site()
    for _, path, text in blocks():
        if path:
            file = server.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    # What "pip install --editable" leaves.
    information = server.folder / 'myapp.egg-info'
    information.mkdir()
    (information / 'PKG-INFO').write_text('Metadata-Version: 2.1\nName: myapp\nVersion: 0.1\n')
    (information / 'entry_points.txt').write_text('[paste.app_factory]\nmain = myapp:main\n')
    change(server.folder / 'development.ini', 'localhost:6543', '127.0.0.1:0')
    change(server.folder / 'myapp/reports.py', 'sleep(0.2)', 'sleep(0.05)')
    server.ini = server.folder / 'development.ini'
    return server


def change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def run(server, command):
    """Run a command of the tutorial, with this interpreter instead of the environment that it makes."""
    program, *arguments = shlex.split(command)
    module = {'env/bin/python': [], 'env/bin/pyams_zmq': ['-m', 'pyams_zmq']}[program]
    return subprocess.run(
        [sys.executable, *module, *arguments],
        cwd=server.folder,
        env={**os.environ, 'PYTHONPATH': str(server.folder), 'TMPDIR': str(server.folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_commands_are_those_that_are_tried():
    assert [command.partition(' ')[0] for command in commands()] == [
        *('mkdir', 'cd', 'python3', 'mkdir', 'env/bin/pip', 'env/bin/pserve'),
        *('env/bin/pyams_zmq', 'env/bin/pyams_zmq', 'env/bin/pyams_zmq', 'kill', 'env/bin/python'),
    ]
    assert commands()[5] == 'env/bin/pserve development.ini'


def test_its_test_passes(tutorial):
    done = run(tutorial, commands()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert '1 passed' in done.stdout


def test_the_bar_reaches_its_end_though_the_process_is_killed(tutorial, browser):
    from playwright.sync_api import expect

    tutorial.pserve()
    page = browser.new_page()
    wrong = []
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.goto(tutorial.url)
    listed, status = (run(tutorial, command) for command in commands()[6:8])
    assert listed.returncode == 0, listed.stderr
    pid = int(re.search(r'reports +(\d+)', status.stdout)[1])
    with page.expect_response('**/reports') as submitted:
        page.get_by_role('button').click()
    expect(page.get_by_role('status')).to_contain_text('Page ', timeout=15_000)
    psutil.Process(pid).send_signal(signal.SIGKILL)
    assert 0 < page.get_by_role('progressbar').evaluate('bar => bar.position') < 1
    expect(page.get_by_role('status')).to_have_text('The report is made: 40 pages', timeout=30_000)
    assert page.get_by_role('progressbar').evaluate('bar => bar.position') == 1
    job = tutorial.get('/reports/' + submitted.value.json()['job'])
    assert (job['state'], job['attempts']) == ('done', 2)
    called = run(tutorial, commands()[8])
    assert called.stdout.startswith('202\n'), called.stderr
    assert wrong == []
    page.close()
    tutorial.end()
