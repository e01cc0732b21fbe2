"""Real web servers for the application of :mod:`webapp`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

TESTS = Path(__file__).parent

INI = """\
[app:main]
paste.app_factory = {factory}
webapp.mark = {folder}/mark
pyams_zmq.ini = %(__file__)s
{settings}

[server:main]
use = egg:waitress#main
listen = 127.0.0.1:0

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(levelname)s [%(name)s %(process)d] %(message)s
"""


class Site:
    """A folder with an ``.ini`` file, and what is run with it.

    :param folder: with a short path, since sockets are in it
    :param settings: further settings of the application
    """

    def __init__(self, folder, factory='webapp:main', **settings):
        self.folder = folder
        self.ini = folder / 'app.ini'
        settings = {'run_dir': folder / 'run', **settings}
        lines = '\n'.join(f'pyams_zmq.{name} = {value}' for name, value in settings.items())
        self.ini.write_text(INI.format(factory=factory, folder=folder, settings=lines))
        (folder / 'wsgi.py').write_text(
            f'from pyramid.paster import get_app\n\napplication = get_app({str(self.ini)!r})\n'
        )
        self.log = folder / 'log.txt'
        self.server = None

    def popen(self, *command, pass_fds=(), **environment):
        """Run something with the application; its output goes to the log."""
        path = os.pathsep.join([str(self.folder), str(TESTS)])
        with self.log.open('a') as log:
            return psutil.Popen(
                [sys.executable, '-m', *map(str, command)],
                cwd=self.folder,
                env={**os.environ, 'PYTHONPATH': path, 'TMPDIR': str(self.folder), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def serve(self, *command):
        """Start a server, and wait for its address."""
        self.server = self.popen(*command)
        self.url = self.logged(r'(?:Serving on|Listening at:) (http://\S+)')
        return self

    def gunicorn(self, *options):
        # A worker that gets SIGTERM right after its fork has its parent's handler still, and forgets it:
        # gunicorn kills it when its patience is over.
        patience = '--graceful-timeout=10'
        return self.serve('gunicorn', '--bind', '127.0.0.1:0', patience, *options, 'wsgi:application')

    def pserve(self, *options):
        return self.serve('pyramid.scripts.pserve', self.ini, *options)

    @property
    def output(self):
        return self.log.read_text()

    def logged(self, pattern, timeout=30):
        """Wait until the log holds something; return its first group, or all of it."""
        found = wait_for(lambda: re.search(pattern, self.output), timeout, self.log)
        return found[found.re.groups and 1]

    def get(self, path='/', data=None):
        """Ask the server."""
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body), timeout=60) as response:
            return json.load(response)

    def tell(self, data=None):
        """Call the process through the server: its reply, which is a success."""
        answer = self.get('/medias/tell', data)
        assert answer['status'] == 200, answer
        return answer['body']

    def renewed(self, pid):
        """Wait until another process than that answers; while it starts, calls may fail."""

        def answers():
            answer = self.get('/medias/tell')
            return answer['status'] == 200 and answer['body']['pid'] != pid

        wait_for(answers, log=self.log)

    def load(self, calls, clients=4):
        """Call the process often, from several clients at once; return the answers."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda number: self.get('/medias/tell', number), range(calls)))

    def processes(self):
        """The background processes that run now."""
        return [
            process
            for process in psutil.process_iter(['cmdline', 'cwd'])
            if process.info['cwd'] == str(self.folder)
            and ' -m pyams_zmq run ' in ' '.join(process.info['cmdline'] or [])
            and alive(process)
        ]

    def end(self, number=signal.SIGTERM, timeout=30):
        """End the server; return its exit code. Nothing is left of it and its processes."""
        began = time.monotonic()
        self.server.send_signal(number)
        code = self.server.wait(timeout)
        self.took = time.monotonic() - began
        wait_for(lambda: not self.processes(), timeout, self.log)
        return code

    def kill(self):
        """Clean up after a test that failed."""
        if self.server is not None:
            with suppress(psutil.NoSuchProcess):
                for process in [*self.server.children(recursive=True), self.server]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            self.server.wait(10)
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Caller(Thread):
    """Calls the process meanwhile; its answer is ``answer``."""

    def __init__(self, server, path, data=None):
        super().__init__()
        self._arguments = server, path, data
        self.answer = None

    def run(self):
        server, path, data = self._arguments
        with suppress(OSError):
            self.answer = server.get(path, data)

    def __enter__(self):
        self.start()
        server = self._arguments[0]
        wait_for((server.folder / 'mark').exists, log=server.log)
        return self

    def __exit__(self, *_error):
        self.join()


def alive(process):
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(condition, timeout=30, log=None):
    """Wait for something true, and return it."""
    deadline = time.monotonic() + timeout
    while not (outcome := condition()):
        assert time.monotonic() < deadline, log.read_text() if log else 'the event did not come'
        time.sleep(0.02)
    return outcome
