"""``zmq`` in Pyramid's shell: the real command, which is told what to do on its standard input."""

import os
import subprocess
import sys

import pytest

from servers import TESTS, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")


@pytest.fixture
def shell(site):
    """Make an application, and enter lines into its shell; returns what it printed, and the site."""

    def shell(*lines, **settings):
        made = site(**settings)
        with made.ini.open('a') as file:
            file.write('\n[pshell]\nsetup = pyams_zmq.pshell.setup\n')
        # A file: the process would keep a pipe open.
        with made.log.open('w') as log, (made.folder / 'output').open('w+') as output:
            subprocess.run(
                [sys.executable, '-m', 'pyramid.scripts.pshell', '-p', 'python', made.ini],
                check=True,
                cwd=made.folder,
                env={**os.environ, 'PYTHONPATH': str(TESTS), 'PYTHONWARNINGS': 'ignore'},
                input='\n'.join(lines),
                stdout=output,
                stderr=log,
                text=True,
                timeout=60,
                start_new_session=True,
            )
            output.seek(0)
            return output.read().split('>>> ')[1:-1], made

    return shell


def test_a_process_is_started_when_told_to(shell):
    output, site = shell(
        'zmq',
        "zmq('medias').call('tell', 1, timeout=0.1)",
        "import os, threading; names = [one.name for one in threading.enumerate()]; names",
        "zmq.start('medias')",
        "reply = zmq('medias').call('tell', 7, timeout=50)",
        "reply.status, reply.body['data'], reply.body['pid'] != os.getpid()",
    )
    assert output[0] == '<background processes: medias>\n'
    assert output[1] == "Reply(status=503, body='Nobody there: no connection within 0.1 s')\n"
    assert output[2] == "['MainThread']\n"
    assert output[3:] == ['', '', "(200, 7, True)\n"]
    wait_for(lambda: not site.processes(), log=site.log)


def test_help_and_mistakes(shell):
    output, site = shell("zmq('media')", "zmq.start('medias')", **{'medias.start': 'false'})
    assert output == ['', '']
    log = site.log.read_text()
    assert "zmq          The background processes: zmq('medias').call(" in log
    assert "SettingError: no process 'media' is declared; the nearest is medias" in log
    assert 'SettingError: pyams_zmq.medias.start is false' in log
