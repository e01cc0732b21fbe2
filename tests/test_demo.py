"""The demonstration application: the real server, with its background process, and a real browser."""

import http.cookiejar
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from configparser import RawConfigParser
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image, PngImagePlugin

# Pyramid's WebOb imports it, on the versions of Python that have it.
pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")

INI = Path(__file__).parents[1] / 'demo' / 'development.ini'
RENDITIONS = 5
NOISE = Image.effect_noise((640, 480), 60).convert('RGB')


@pytest.fixture(autouse=True)
def _no_process_left():
    """The processes of these tests live as long as the module: see the fixtures that start them."""


def wait_for(condition, seconds=15):
    """Wait for something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < deadline, 'not in time'
        time.sleep(0.02)
    return outcome


class Demo:
    """The application as `pserve` runs it, with its own data folder, on a free port."""

    def __init__(self, folder, **settings):
        ini = RawConfigParser()
        ini.read(INI)
        ini['server:main']['listen'] = '127.0.0.1:0'
        for name, value in settings.items():
            ini['app:main'][f'pictures.{name}'] = str(value)
        with open(folder / 'test.ini', 'w') as file:
            ini.write(file)
        self.log = folder / 'output.txt'
        with open(self.log, 'w') as output:
            self.server = psutil.Popen(
                [sys.executable, '-m', 'pyramid.scripts.pserve', 'test.ini'],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def wait_ready(self):
        self.url = wait_for(self._serving)[1]
        [self.media] = self.server.children()

    def _serving(self):
        assert self.server.poll() is None, self.output
        return re.search(r'Serving on (http://\S+)', self.output)

    @property
    def output(self):
        return self.log.read_text()

    def interrupt(self):
        """What Ctrl-C does in a terminal; returns the seconds until both processes have ended."""
        begin = time.monotonic()
        os.killpg(self.server.pid, signal.SIGINT)
        _gone, alive = psutil.wait_procs([self.server, self.media], timeout=15)
        assert not alive, self.output
        return time.monotonic() - begin

    def end(self):
        """Leave nothing behind, whatever happened."""
        with suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait(10)

    def kill_media(self):
        self.media.kill()
        wait_for(lambda: self.media.status() == psutil.STATUS_ZOMBIE)

    def get(self, path, data=None, content_type='text/plain'):
        """Return the status, the headers and the body of what is there, after redirections."""
        request = urllib.request.Request(self.url + path, data, {'Content-Type': content_type})
        try:
            response = self._opener.open(request, timeout=15)
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
        assert status == 200
        return json.loads(body)['pictures']

    def picture(self, name, *states):
        """The newest picture of that name, once it is in one of these states."""
        states = states or ('done', 'failed')

        def newest():
            found = (one for one in self.pictures() if one['name'] == name and one['state'] in states)
            return next(found, None)

        return wait_for(newest)


def encoded(image=NOISE, kind='JPEG', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@contextmanager
def serving(folder, **settings):
    demo = Demo(folder, **settings)
    try:
        demo.wait_ready()
        yield demo
    finally:
        demo.end()


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    with serving(folder, delay=0, max_upload=500_000, max_pixels=3_000_000) as demo:
        yield demo
        demo.interrupt()
        assert 'Traceback' not in demo.output


# The application


def test_converts_an_upload(demo):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    assert demo.post('/', ('sea.jpg', encoded(exif=exif)))[0] == 200
    picture = demo.picture('sea.jpg')
    assert picture['state'] == 'done'
    assert len(picture['renditions']) == RENDITIONS
    for rendition in picture['renditions']:
        status, headers, body = demo.get(rendition['url'])
        assert status == 200
        assert headers['Content-Type'] in ('image/webp', 'image/jpeg', 'image/png')
        image = Image.open(io.BytesIO(body))
        assert image.size == (rendition['ready']['width'], rendition['ready']['height'])
        assert len(body) == rendition['ready']['bytes']
        assert image.height > image.width
        assert not image.getexif()


@pytest.mark.parametrize(
    ('kind', 'mode'),
    [('PNG', 'RGBA'), ('PNG', 'P'), ('PNG', '1'), ('WEBP', 'RGB'), ('GIF', 'P'), ('JPEG', 'CMYK')],
)
def test_converts_what_browsers_send(demo, kind, mode):
    name = f'{mode}.{kind.lower()}'
    demo.post('/', (name, encoded(NOISE.resize((90, 70)).convert(mode), kind)))
    assert demo.picture(name)['state'] == 'done'


def bomb(width, height):
    return encoded(Image.new('1', (width, height)), 'PNG')


def unreadable_png():
    """A picture with a chunk of text that grows when it is read."""
    info = PngImagePlugin.PngInfo()
    info.add_text('comment', 'x' * 80_000_000, zip=True)
    return encoded(NOISE.resize((60, 40)), 'PNG', pnginfo=info)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('notes.txt', b'milk, bread', 'not a JPEG'),
        ('empty.png', b'', 'not a JPEG'),
        ('drawing.eps', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'not a JPEG'),
        ('half.jpg', encoded()[:20_000], 'damaged or incomplete'),
        ('half.png', encoded(kind='PNG')[:20_000], 'damaged or incomplete'),
        ('text.png', unreadable_png(), 'damaged or incomplete'),
        ('wide.png', bomb(2000, 2000), 'too many pixels'),
        ('bomb.png', bomb(9000, 9000), 'too many pixels'),
    ],
    ids=lambda value: value if isinstance(value, str) and '.' in value else '',
)
def test_tells_what_is_wrong_with_a_file(demo, name, content, message):
    assert demo.post('/', (name, content))[0] == 200
    picture = demo.picture(name)
    assert picture['state'] == 'failed'
    assert message in picture['error']
    assert not any(rendition['ready'] for rendition in picture['renditions'])


def test_refuses_big_files_and_takes_the_others(demo):
    before = set(os.listdir(demo.log.parent / 'var'))
    status, page = demo.post('/', ('big & bold.jpg', bytes(500_001)), ('small.jpg', encoded()))
    assert status == 400
    assert '<strong>big &amp; bold.jpg</strong> This file is bigger than 0.5 MB.' in page
    assert demo.picture('small.jpg')['state'] == 'done'
    assert len(set(os.listdir(demo.log.parent / 'var')) - before) == 1


@pytest.mark.parametrize('files', [[], [('', b'')]])
def test_asks_for_a_file(demo, files):
    status, page = demo.post('/', *files)
    assert status == 400
    assert 'Please choose at least one picture.' in page


@pytest.mark.parametrize(
    ('sent', 'shown'),
    [
        ('../../etc/passwd', 'passwd'),
        ('C:\\pictures\\sea.jpg', 'sea.jpg'),
        ('a\x00b\r\n\u202egpj.\ud800', 'abgpj.'),
        ('<b>été 日本.png', '<b>été 日本.png'),
        ('..', '..'),
        ('x' * 999, 'x' * 200),
        (' / ', 'Unnamed file'),
    ],
)
def test_shows_names_without_folders_and_controls(sent, shown):
    from pictures.views import shown_name

    assert shown_name(sent) == shown


def test_names_never_become_paths(demo):
    demo.post('/', ('../../évil <b>.jpg', encoded()))
    assert demo.picture('évil <b>.jpg')['state'] == 'done'
    folder = demo.log.parent
    assert {path.name for path in folder.iterdir()} == {'test.ini', 'output.txt', 'var'}
    assert all(re.fullmatch('[0-9a-f]{24}', path.name) for path in (folder / 'var').iterdir())


def test_serves_renditions_only(demo):
    demo.post('/', ('a.jpg', encoded()))
    url = demo.picture('a.jpg')['renditions'][0]['url']
    folder, _, file = url.rpartition('/')
    assert demo.get(url)[0] == 200
    for path in [
        f'{folder}/original',
        f'{folder}/record.json',
        f'{folder}/../../test.ini',
        f'{folder}/..%2f..%2ftest.ini',
        f'{folder}x/{file}',
        f'/pictures/../{file}',
        f'/pictures/%2e%2e/{file}',
        f'/pictures/{"0" * 24}/{file}',
        '/static/../views.py',
        '/static/%2e%2e/views.py',
    ]:
        assert demo.get(path)[0] == 404, path


@pytest.mark.parametrize('path', ['/', '/samples'])
@pytest.mark.parametrize('token', ['', 'of-another-site'])
def test_refuses_forms_of_other_sites(demo, path, token):
    before = len(os.listdir(demo.log.parent / 'var'))
    status, page = demo.post(path, ('a.jpg', encoded()), token=token)
    assert status == 400
    assert 'Nothing was sent' in page
    assert len(os.listdir(demo.log.parent / 'var')) == before


def test_lets_the_browser_load_nothing_from_elsewhere(demo):
    for path in ('/', '/nothing-here'):
        assert demo.get(path)[1]['Content-Security-Policy'].startswith("default-src 'self'")
    for path in ('/', '/pictures.json', '/static/pictures.js', '/nothing-here'):
        assert demo.get(path)[1]['X-Content-Type-Options'] == 'nosniff'


def test_tells_where_to_look():
    from pictures import server_url

    assert server_url({'__file__': str(INI)}) == 'http://localhost:6543'


def test_ends_at_ctrl_c_and_goes_on_after_a_restart(tmp_path):
    names = ['0.jpg', '1.jpg', '2.jpg']
    with serving(tmp_path, delay=600) as demo:
        demo.post('/', *((name, encoded()) for name in names))
        demo.picture('1.jpg', 'running')
        assert demo.picture('2.jpg', 'queued')  # the view answered although nothing is done
        assert demo.interrupt() < 10
        assert 'Traceback' not in demo.output
        assert 'ERROR' not in demo.output
    with serving(tmp_path, delay=0) as demo:
        assert [demo.picture(name)['state'] for name in names] == ['done'] * 3
        assert demo.interrupt() < 10
        assert 'Traceback' not in demo.output


def test_tells_that_the_background_process_is_gone(tmp_path):
    with serving(tmp_path, delay=0) as demo:
        demo.kill_media()
        status, page = demo.post('/', ('later.jpg', encoded()))
        assert status == 503
        assert 'The background process does not answer' in page
        demo.interrupt()
        assert 'Traceback' not in demo.output
    with serving(tmp_path, delay=0) as demo:
        assert demo.picture('later.jpg')['state'] == 'done'


# The page


@pytest.fixture
def visit(browser, demo):
    """Open the page; in the end nothing may have gone wrong behind it, nor come from elsewhere."""
    contexts, wrong = [], []

    def listen(message):
        if message.type in ('error', 'warning'):
            wrong.append(message.text)

    def visit(width=1100, height=800, **options):
        context = browser.new_context(viewport={'width': width, 'height': height}, **options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on('console', listen)
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('request', lambda one: one.url.startswith(demo.url) or wrong.append(one.url))
        page.goto(demo.url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def file(name, content):
    return {'name': name, 'mimeType': 'application/octet-stream', 'buffer': content}


def card(page, name):
    """The newest picture of that name."""
    return page.get_by_role('listitem').filter(has=page.get_by_role('heading', name=name, exact=True)).first


def see_renditions(page, name):
    from playwright.sync_api import expect

    expect(card(page, name)).to_contain_text('Done', timeout=15_000)
    images = card(page, name).get_by_role('img')
    expect(images).to_have_count(RENDITIONS)
    for number in range(RENDITIONS):
        expect(images.nth(number)).to_have_js_property('complete', True)
        assert images.nth(number).evaluate('image => image.naturalWidth') >= 100
        assert images.nth(number).get_attribute('alt').endswith(f' of {name}')


def test_page_shows_the_renditions_of_an_upload(visit):
    page = visit()
    files = [file('coast.jpg', encoded()), file('fake.png', b'none')]
    page.get_by_label('Your pictures').set_input_files(files)
    page.get_by_role('button', name='Convert').click()
    see_renditions(page, 'coast.jpg')
    card(page, 'fake.png').get_by_text('This file is not a JPEG, PNG, WebP or GIF picture.').wait_for()
    page.reload()
    see_renditions(page, 'coast.jpg')
    link = card(page, 'coast.jpg').get_by_role('link', name='Medium of coast.jpg').get_attribute('href')
    assert link.endswith('/medium.jpg')
    assert page.request.get(page.url.rstrip("/") + link).ok


def test_page_works_with_the_keyboard(visit):
    page = visit()

    def tab():
        page.keyboard.press('Tab')
        focused = page.locator(':focus')
        assert focused.evaluate('element => getComputedStyle(element).outlineStyle') == 'solid'
        return focused.evaluate('element => element.name || element.textContent')

    assert [tab(), tab(), tab()] == ['pictures', 'Convert', 'Use generated samples']
    page.keyboard.press('Enter')
    for name in ('Mandelbrot set', 'Dawn', 'Ripples'):
        see_renditions(page, name)
    assert 'done' in page.get_by_role('status').text_content()


def test_page_tells_before_sending_that_a_file_is_too_big(visit):
    page = visit()
    page.get_by_label('Your pictures').set_input_files([file('huge.jpg', bytes(500_001))])
    page.get_by_role('alert').get_by_text('huge.jpg This file is bigger than 0.5 MB.').wait_for()
    page.get_by_role('button', name='Convert').click()
    assert page.get_by_role('button', name='Convert').is_enabled()
    page.get_by_label('Your pictures').set_input_files([file('fine.jpg', encoded())])
    page.get_by_role('button', name='Convert').click()
    see_renditions(page, 'fine.jpg')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_page_fits_a_phone(visit, demo, scheme):
    name = 'a' * 150 + '.jpg'
    demo.post('/', (name, encoded()))
    page = visit(320, 640, color_scheme=scheme, has_touch=True, is_mobile=True)
    see_renditions(page, name)
    assert page.evaluate('document.documentElement.scrollWidth') <= 320


def test_page_tells_that_the_process_is_gone(browser, tmp_path):
    with serving(tmp_path, delay=600) as demo, browser.new_context() as context:
        demo.post('/samples')
        page = context.new_page()
        page.goto(demo.url)
        card(page, 'Dawn').wait_for()
        demo.kill_media()
        page.get_by_role('alert').get_by_text('The background process does not answer').wait_for()
        assert card(page, 'Dawn').is_visible()
        demo.interrupt()
        page.get_by_role('alert').get_by_text('The application does not answer').wait_for()
