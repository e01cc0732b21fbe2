"""What the README says is enough, for its smallest use and in an application of the cookiecutter's layout."""

import re
import socket
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from servers import Site, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")

README = (Path(__file__).parents[1] / 'README.md').read_text()

LAYOUT = {
    # What "pip install --editable" leaves in the folder.
    'myapp.egg-info/PKG-INFO': 'Metadata-Version: 2.1\nName: myapp\nVersion: 0.0\n',
    'myapp.egg-info/entry_points.txt': '[paste.app_factory]\nmain = myapp:main\n',
    'myapp/__init__.py': """\
from pyramid.config import Configurator


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include('pyramid_jinja2')
        config.include('.routes')
        config.scan()
    return config.make_wsgi_app()
""",
    'myapp/routes.py': """\
def includeme(config):
    config.add_static_view('static', 'static', cache_max_age=3600)
    config.add_route('home', '/')
""",
    'myapp/static/theme.css': 'body {}\n',
    'myapp/templates/mytemplate.jinja2': '<h1>{{ project }}</h1>\n',
    'myapp/views/__init__.py': '',
    'myapp/views/default.py': """\
from pyramid.view import view_config


@view_config(route_name='home', renderer='myapp:templates/mytemplate.jinja2')
def my_view(request):
    return {'project': 'myapp'}
""",
    'development.ini': """\
[app:main]
use = egg:myapp
pyramid.reload_templates = true
pyramid.default_locale_name = en
pyramid.includes =
    pyramid_debugtoolbar

[server:main]
use = egg:waitress#main
listen = localhost:6543

[loggers]
keys = root, myapp

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[logger_myapp]
level = DEBUG
handlers =
qualname = myapp

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(asctime)s %(levelname)-5.5s [%(name)s:%(lineno)s][%(threadName)s] %(message)s
""",
}


def readme(language, pattern):
    """Return the README's example in which a text occurs."""
    examples = re.findall(rf'```{language}\n(.*?)```', README, re.DOTALL)
    [example] = [one for one in examples if pattern in one]
    return example


def definition(text, start):
    """Return a class or function of an example."""
    start = text.index(start)
    return text[start : text.index('\n\n\n', start)] + '\n'


def lay_out(folder):
    for name, text in LAYOUT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def add_what_the_readme_says(folder):
    lines = readme('python', "'myapp.medias.Medias'")
    assert len(lines.splitlines()) == 2
    change(
        folder / 'myapp/__init__.py', "        config.scan()\n", indent(lines, 8) + "        config.scan()\n"
    )
    smallest = readme('python', 'class Medias:')
    (folder / 'myapp/medias.py').write_text(definition(smallest, 'class Medias:'))
    change(folder / 'development.ini', '[app:main]\n', readme('ini', 'pyams_zmq.ini'))
    view = definition(smallest, 'def convert(request)')
    with (folder / 'myapp/views/default.py').open('a') as file:
        file.write(f"\n\n@view_config(route_name='convert', renderer='json')\n{view}")
    with (folder / 'myapp/routes.py').open('a') as file:
        file.write("    config.add_route('convert', '/convert')\n")


def indent(text, width):
    return ''.join(' ' * width + line for line in text.splitlines(keepends=True))


def change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_the_readme_is_enough(site):
    server: Site = site()
    lay_out(server.folder)
    add_what_the_readme_says(server.folder)
    # Not what the README is about: where the test finds it, and a port that is free.
    change(server.folder / 'development.ini', 'localhost:6543', '127.0.0.1:0')
    server.ini = server.folder / 'development.ini'
    server.pserve()
    assert server.get('/convert') == 'holiday.avi is converted'
    [process] = server.processes()
    assert str(server.ini) in process.cmdline()
    server.end()


def test_the_smallest_use_is_complete(site):
    server: Site = site()
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    app = readme('python', 'class Medias:')
    (server.folder / 'app.py').write_text(app.replace("'localhost', 6543", f"'127.0.0.1', {port}"))
    server.server = server.popen('app')
    body = wait_for(lambda: fetch(f'http://127.0.0.1:{port}/'), log=server.log)
    assert body == b'holiday.avi is converted'
    server.server.kill()
    server.server.wait(10)
    wait_for(lambda: not server.processes(), log=server.log)


def fetch(url):
    with (
        suppress(ConnectionError, urllib.error.URLError),
        urllib.request.urlopen(url, timeout=30) as response,
    ):
        return response.read()
