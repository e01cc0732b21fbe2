"""The demonstration application: the real server, with its background process, and a real browser."""

import io
import os
import re
import signal

import psutil
import pytest
from PIL import Image, PngImagePlugin

from browsers import low_contrast
from demos import demo_site

# Pyramid's WebOb imports it, on the versions of Python that have it.
pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")

RENDITIONS = 5
NOISE = Image.effect_noise((640, 480), 60).convert('RGB')


@pytest.fixture(autouse=True)
def _no_process_left():
    """The processes of these tests live as long as the module: see the fixtures that start them."""


def encoded(image=NOISE, kind='JPEG', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SMALL = encoded(NOISE.resize((90, 70)), 'PNG')


@pytest.fixture(scope='module')
def demo():
    limits = {'pictures__max_upload': 500_000, 'pictures__max_pixels': 3_000_000}
    with demo_site(pictures__delay=0, pyams_zmq__monitor__public='page', **limits) as demo:
        yield demo.start()
        demo.stop()


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
    before = set(os.listdir(demo.folder / 'var' / 'pictures'))
    status, page = demo.post('/', ('big & bold.jpg', bytes(500_001)), ('small.jpg', SMALL))
    assert status == 400
    assert '<strong>big &amp; bold.jpg</strong> This file is bigger than 0.5 MB.' in page
    assert demo.picture('small.jpg')['state'] == 'done'
    assert len(set(os.listdir(demo.folder / 'var' / 'pictures')) - before) == 1


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
    demo.post('/', ('../../évil <b>.jpg', SMALL))
    assert demo.picture('évil <b>.jpg')['state'] == 'done'
    folder = demo.folder / 'var' / 'pictures'
    assert not list(demo.folder.rglob('*vil*'))
    assert all(re.fullmatch('[0-9a-f]{24}', path.name) for path in folder.iterdir())


def test_serves_renditions_only(demo):
    demo.post('/', ('a.jpg', SMALL))
    url = demo.picture('a.jpg')['renditions'][0]['url']
    folder, _, file = url.rpartition('/')
    assert demo.get(url)[0] == 200
    for path in [
        f'{folder}/original',
        f'{folder}/record.json',
        f'{folder}/../../test.ini',
        f'{folder}/..%2f..%2ftest.ini',
        f'{folder}x/{file}',
        f'/renditions/../{file}',
        f'/renditions/%2e%2e/{file}',
        f'/renditions/{"0" * 24}/{file}',
        '/static/../views.py',
        '/static/%2e%2e/views.py',
    ]:
        assert demo.get(path)[0] == 404, path


@pytest.mark.parametrize('path', ['/', '/samples'])
@pytest.mark.parametrize('token', ['', 'of-another-site'])
def test_refuses_forms_of_other_sites(demo, path, token):
    before = len(os.listdir(demo.folder / 'var' / 'pictures'))
    status, page = demo.post(path, ('a.jpg', SMALL), token=token)
    assert status == 400
    assert 'Nothing was sent' in page
    assert len(os.listdir(demo.folder / 'var' / 'pictures')) == before


def test_lets_the_browser_load_nothing_from_elsewhere(demo):
    assert demo.get('/')[1]['Content-Security-Policy'].startswith("default-src 'self'")
    for path in ('/', '/pictures.json', '/static/pictures.js', '/nothing-here'):
        assert demo.get(path)[1]['X-Content-Type-Options'] == 'nosniff'


NAMES = [f'{number}.png' for number in range(4)]


@pytest.mark.slow
def test_loses_nothing_at_the_death_of_its_processes():
    with demo_site(pictures__delay=0.1) as demo:
        demo.start().post('/', *((name, SMALL) for name in NAMES))
        demo.picture(NAMES[0], 'running', 'done')
        psutil.Process(demo.process()['figures']['pid']).kill()
        demo.server.kill()
        demo.server.wait(10)
        demo.start()
        for name in NAMES:
            assert demo.picture(name)['state'] == 'done'
        demo.stop()


def test_keeps_pictures_that_the_process_did_not_accept():
    with demo_site(pictures__delay=0, pyams_zmq__pictures__timeout=0.5) as demo:
        journal = demo.folder / 'var' / 'pictures.journal'
        journal.parent.mkdir()
        journal.write_text('This is no journal.' * 100)
        demo.pserve()
        status, page = demo.post('/', ('later.jpg', SMALL))
        assert status == 503
        assert 'The background process does not answer' in page
        assert demo.get('/pictures.json')[0] == 503
        demo.end(signal.SIGINT)
        assert 'cannot be used' in demo.output

        journal.unlink()
        picture = demo.start().picture('later.jpg', 'failed')
        assert 'was not there to accept it' in picture['error']
        assert demo.click(picture, 'retry') == 200
        assert demo.picture('later.jpg', 'done')
        demo.stop()


def test_clicks_of_other_sites_and_on_what_has_ended_do_nothing(demo):
    demo.post('/', ('some.txt', b'text'))
    picture = demo.picture('some.txt', 'failed')
    assert demo.click(picture, 'retry', token='of-another-site') == 400
    assert demo.click(picture, 'cancel') == 200  # the page shows that it has ended
    assert demo.click(picture, 'retry') == 200
    assert 'not a JPEG' in demo.picture('some.txt', 'failed')['error']
    nobody = {action + '_url': f'/pictures/{"0" * 24}/{action}' for action in ('retry', 'cancel')}
    assert [demo.click(nobody, action) for action in ('retry', 'cancel')] == [404, 503]


ELSEWHERE = {'X-Forwarded-For': '192.0.2.7'}


def test_lets_this_machine_alone_use_the_monitor(demo):
    for path in ('/zmq/health', '/zmq/metrics'):
        assert demo.get(path)[0] == 200
        assert demo.get(path, **ELSEWHERE)[0] == 403


# The page


def file(name, content):
    return {'name': name, 'mimeType': 'application/octet-stream', 'buffer': content}


def card(page, name):
    """The newest picture of that name."""
    return page.get_by_role('listitem').filter(has=page.get_by_role('heading', name=name, exact=True)).first


def see_renditions(page, name):
    from playwright.sync_api import expect

    expect(card(page, name)).to_contain_text('Done', timeout=30_000)
    images = card(page, name).get_by_role('img')
    expect(images).to_have_count(RENDITIONS)
    for number in range(RENDITIONS):
        expect(images.nth(number)).to_have_js_property('complete', True)
        assert images.nth(number).evaluate('image => image.naturalWidth') >= 50
        assert images.nth(number).get_attribute('alt').endswith(f' of {name}')


def test_page_shows_the_renditions_of_an_upload(visit, demo):
    page = visit(demo.url)
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


@pytest.mark.slow
def test_page_works_with_the_keyboard(visit, demo):
    page = visit(demo.url)

    def tab():
        page.keyboard.press('Tab')
        focused = page.locator(':focus')
        assert focused.evaluate('element => getComputedStyle(element).outlineStyle') == 'solid'
        return focused.evaluate('element => element.name || element.textContent')

    assert [tab(), tab(), tab()] == ['pictures', 'Convert', 'Use generated samples']
    page.keyboard.press('Enter')
    card(page, 'Fog').get_by_text('The fog was too thick').wait_for()
    again = card(page, 'Fog').get_by_role('button', name='Try again')
    again.focus()
    page.keyboard.press('Enter')
    again.wait_for(state='hidden')
    assert page.locator(':focus').evaluate('element => element.tagName') == 'ARTICLE'
    for name in ('Mandelbrot set', 'Dawn', 'Ripples', 'Fog'):
        see_renditions(page, name)
    assert 'done' in page.get_by_role('status').text_content()


def test_page_tells_before_sending_that_a_file_is_too_big(visit, demo):
    page = visit(demo.url)
    page.get_by_label('Your pictures').set_input_files([file('huge.jpg', bytes(500_001))])
    page.get_by_role('alert').get_by_text('huge.jpg This file is bigger than 0.5 MB.').wait_for()
    page.get_by_role('button', name='Convert').click()
    assert page.get_by_role('button', name='Convert').is_enabled()
    page.get_by_label('Your pictures').set_input_files([file('fine.jpg', SMALL)])
    page.get_by_role('button', name='Convert').click()
    see_renditions(page, 'fine.jpg')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_page_fits_a_phone(visit, demo, scheme):
    name = 'a' * 150 + '.jpg'
    demo.post('/', (name, SMALL))
    page = visit(demo.url, 320, 640, color_scheme=scheme, has_touch=True, is_mobile=True)
    see_renditions(page, name)
    assert page.evaluate('document.documentElement.scrollWidth') <= 320
    assert low_contrast(page) == []


def test_page_shows_how_far_pictures_are_and_cancels(visit):
    """Closing the page and restarting the server change nothing."""
    from playwright.sync_api import expect

    with demo_site(pictures__delay=0.4) as demo:
        demo.start()
        page = visit(demo.url)
        page.get_by_label('Your pictures').set_input_files([file(name, SMALL) for name in NAMES])
        page.get_by_role('button', name='Convert').click()
        page.get_by_role('button', name='Cancel: 3.png').click()
        expect(card(page, '3.png')).to_contain_text('Cancelled', timeout=30_000)
        bar = page.get_by_role('progressbar', name='Conversion of 2.png').element_handle()
        page.wait_for_function('bar => 0 < bar.value && bar.value < bar.max', arg=bar)
        page.close()
        demo.stop()
        assert 'ERROR' not in demo.output

        # What was running at Ctrl-C may have ended; another server, on another port, goes on with the rest.
        demo.start()
        page = visit(demo.url)
        for name in NAMES[:3]:
            see_renditions(page, name)
        expect(page.get_by_role('status')).to_have_text('3 done, 1 cancelled')
        page.get_by_role('button', name='Try again: 3.png').click()
        expect(card(page, '3.png')).to_contain_text('Done', timeout=30_000)

        demo.stop()
        page.get_by_role('alert').get_by_text('The application does not answer').wait_for()
        assert card(page, '3.png').is_visible()
        assert {text for text in visit.wrong if 'ERR_CONNECTION_REFUSED' not in text} == set()
        visit.wrong.clear()


# The monitor


@pytest.fixture
def slow(demo):
    """The id of a job that runs for ever."""
    job = demo.submit('Dawn', 600)
    yield job
    demo.client.cancel(job)
    assert demo.client.wait(job, timeout=30).status == 410


def row(page, job):
    return page.get_by_role('table', name='Jobs').get_by_role('row').filter(has_text=job)


def test_monitor_shows_jobs_live_and_acts_upon_them(visit, demo, slow):
    from playwright.sync_api import expect

    page = visit(demo.url + '/zmq')
    expect(row(page, slow)).to_contain_text('Running')
    expect(page.get_by_role('progressbar', name=f'Progress of {slow}')).to_have_js_property('max', RENDITIONS)
    expect(row(page, slow)).to_contain_text('0% · Thumbnail')
    fog = demo.submit('Fog', 0)  # while the page is open
    expect(row(page, fog)).to_contain_text('The fog was too thick')
    assert low_contrast(page) == []

    cancel = row(page, slow).get_by_role('button', name=f'Cancel {slow}')
    cancel.focus()
    page.keyboard.press('Enter')
    expect(page.get_by_text(f'{slow} is to be cancelled.')).to_be_visible()
    expect(row(page, slow)).to_contain_text('Cancelled')
    expect(cancel).to_be_hidden()
    expect(row(page, slow)).to_be_focused()
    row(page, fog).get_by_role('button', name=f'Try {fog} again').click()
    expect(row(page, fog)).to_contain_text('Done', timeout=30_000)

    page.get_by_role('button', name='Cancelled').click()
    expect(row(page, fog)).to_be_hidden()
    expect(row(page, slow)).to_be_visible()
    expect(page.get_by_role('button', name='Cancelled')).to_have_attribute('aria-pressed', 'true')
    page.get_by_role('button', name='Queued').click()
    expect(page.get_by_text('There are none.')).to_be_visible()


def test_monitor_has_no_buttons_for_those_who_may_only_look(visit, demo, slow):
    from playwright.sync_api import expect

    page = visit(demo.url + '/zmq', extra_http_headers=ELSEWHERE)
    expect(row(page, slow)).to_contain_text('Running')
    assert page.get_by_role('button', name=slow).count() == 0
    assert page.request.post(demo.url + '/zmq/jobs', headers=ELSEWHERE).status == 403
    assert demo.client.job(slow).body['state'] == 'running'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_monitor_fits_a_phone_in_french(visit, demo, slow, scheme):
    from playwright.sync_api import expect

    page = visit(f'{demo.url}/zmq?_LOCALE_=fr', 320, 640, color_scheme=scheme, has_touch=True, is_mobile=True)
    job = page.get_by_role('row').filter(has_text=slow)
    expect(job).to_contain_text('En cours')
    expect(job).to_contain_text('0 % · Thumbnail'.replace(' %', '\N{NARROW NO-BREAK SPACE}%'))
    assert page.evaluate('document.documentElement.scrollWidth') <= 320
    assert low_contrast(page) == []
    page.get_by_role('button', name=f'Annuler {slow}').tap()
    expect(job).to_contain_text('Annulée')


def test_monitor_tells_that_the_process_does_not_answer(visit, demo):
    from playwright.sync_api import expect

    page = visit(demo.url + '/zmq')
    expect(page.get_by_text('The process is up.')).to_be_visible()
    process = psutil.Process(demo.process()['figures']['pid'])
    process.suspend()
    try:
        expect(page.get_by_text('0 of 1 processes are up. Not so: pictures.')).to_be_visible()
    finally:
        process.resume()
    expect(page.get_by_text('The process is up.')).to_be_visible()


# The toolbar


def test_toolbar_tells_what_a_request_has_sent(visit, demo):
    page = visit(demo.url)
    page.get_by_label('Your pictures').set_input_files([file('panel.png', SMALL)])
    page.get_by_role('button', name='Convert').click()
    see_renditions(page, 'panel.png')
    job = demo.picture('panel.png')['id']
    toolbar = visit(page.locator('#pShowToolBarButton').get_attribute('href'))
    toolbar.get_by_role('link', name='POST').first.click()
    toolbar.get_by_role('link', name='0MQ').click()
    panel = toolbar.locator('#pDebugPanel-pyams_zmq-content')
    panel.get_by_text(f'_submit convert {job}').wait_for()
    panel.get_by_text('202').wait_for()
