"""The demonstration application, run by its real server."""

import http.cookiejar
import json
import re
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path

import plaster

from pictures.store import Store
from pyams_zmq.declaration import Declaration
from servers import Site, wait_for

INI = Path(__file__).parents[1] / 'demo' / 'development.ini'


class Demo(Site):
    """The application as ``pserve`` runs it, in a folder of its own, on a free port.

    :param settings: in the place of those of the ``.ini`` file
    """

    def __init__(self, folder, **settings):
        self.folder = folder
        self.ini = folder / 'test.ini'
        self.log = folder / 'log.txt'
        self.server = None
        ini = RawConfigParser()
        ini.read(INI)
        # So that a test can come from elsewhere, by a header.
        ini['server:main'].update(
            {
                'listen': '127.0.0.1:0',
                'trusted_proxy': '127.0.0.1',
                'trusted_proxy_headers': 'x-forwarded-for',
            }
        )
        ini['app:main'].update({name.replace('__', '.'): str(value) for name, value in settings.items()})
        ini['app:main']['pyams_zmq.run_dir'] = str(folder / 'run')
        with self.ini.open('w') as file:
            ini.write(file)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    @property
    def output(self):
        """What the server that runs, and its background process, have said."""
        return self.log.read_text() if self.log.exists() else ''

    def start(self):
        """Start the server, the background process with it."""
        self.log.write_text('')
        self.pserve()
        wait_for(lambda: self.get('/zmq/health')[0] == 200, log=self.log)
        return self

    def stop(self):
        """What Ctrl-C does; nothing is left then."""
        self.end(signal.SIGINT)
        assert 'Traceback' not in self.output, self.output

    def get(self, path, data=None, content_type='text/plain', **headers):
        """Return the status, the headers and the body of what is there, after redirections."""
        request = urllib.request.Request(self.url + path, data, {'Content-Type': content_type, **headers})
        try:
            response = self._opener.open(request, timeout=30)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, response.headers, response.read()

    def token(self):
        return re.search(r'name="csrf_token" value="(\w+)"', self.get('/')[2].decode())[1]

    def post(self, path, *files, token=None):
        """Send files, each a name and a content, as a browser does; return the status and the page."""
        boundary = 'a-boundary-which-is-in-no-file'
        parts = [('name="csrf_token"', (self.token() if token is None else token).encode())]
        parts += [(f'name="pictures"; filename="{name}"', content) for name, content in files]
        body = b''
        for disposition, content in parts:
            body += f'--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n'.encode()
            body += content + b'\r\n'
        body += f'--{boundary}--\r\n'.encode()
        status, _, page = self.get(path, body, f'multipart/form-data; boundary={boundary}')
        return status, page.decode()

    def pictures(self):
        status, _, body = self.get('/pictures.json')
        assert status == 200, body
        return json.loads(body)['pictures']

    def picture(self, name, *states):
        """The newest picture of that name, once it is in one of these states."""
        states = states or ('done', 'failed')

        def newest():
            found = (one for one in self.pictures() if one['name'] == name)
            one = next(found, None)
            return one if one is not None and one['state'] in states else None

        return wait_for(newest, log=self.log)

    def click(self, picture, action, token=None):
        """What the button of a picture does; return the status."""
        token = self.token() if token is None else token
        return self.get(picture[f'{action}_url'], b'', **{'X-CSRF-Token': token})[0]

    @property
    def client(self):
        """A client of the background process."""
        return Declaration('pictures', plaster.get_settings(str(self.ini), 'app:main')).client

    def submit(self, sample, delay):
        """Have a sample converted with a pause of its own; return the job's id."""
        folder = self.folder / 'var' / 'pictures'
        job = Store(folder).add({'name': sample, 'sample': sample})
        data = {'folder': str(folder), 'picture': job, 'max_pixels': 1, 'delay': delay}
        assert self.client.submit('convert', data, id=job).status == 202
        return job

    def process(self):
        """What the monitor tells of the background process."""
        return json.loads(self.get('/zmq/processes.json')[2])['processes'][0]


@contextmanager
def demo_site(**settings):
    """Give a demonstration that is not started yet, and leave nothing of it behind.

    :param settings: as for :class:`Demo`, with two underscores for a dot
    """
    folder = Path(tempfile.mkdtemp(prefix='demo-'))
    demo = Demo(folder, **settings)
    try:
        yield demo
    finally:
        demo.kill()
        shutil.rmtree(folder)
