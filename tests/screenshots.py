"""Takes the pictures of the documentation from the demonstration: ``make screenshots``."""

import io
import itertools
import time
from pathlib import Path

from PIL import Image

from browsers import Visitor, browsing
from demos import demo_site

FOLDER = Path(__file__).parents[1] / 'docs' / 'images'

#: Of the animation: seconds between two looks, milliseconds of all frames together, and of the last one.
LOOK = 0.15
LENGTH = 10_000
LAST = 2000

#: The samples of the other pictures, with the seconds before each rendition: the last ones run and wait.
SHOWN = [('Ripples', 0), ('Fog', 0), ('Dawn', 3), ('Mandelbrot set', 3), ('Ripples', 3)]


def picture(page):
    return Image.open(io.BytesIO(page.screenshot())).convert('RGB')


def save(page, name):
    """Save what a page shows, with a few colours: they are small, and look the same."""
    small = picture(page).quantize(256, dither=Image.Dither.NONE)
    small.save(FOLDER / f'{name}.png', optimize=True)


class Film:
    """What a page shows over time."""

    def __init__(self, page):
        self._page = page
        self._frames = []
        self._times = []

    def look(self):
        frame = picture(self._page)
        if not self._frames or frame.tobytes() != self._frames[-1].tobytes():
            self._frames.append(frame)
            self._times.append(time.monotonic())
        self._page.wait_for_timeout(LOOK * 1000)

    def until(self, condition):
        while not condition():
            self.look()
        self.look()

    def save(self, name):
        took = self._times[-1] - self._times[0]
        durations = [
            max(20, round(LENGTH * (end - begin) / took)) for begin, end in itertools.pairwise(self._times)
        ]
        self._frames[0].save(
            FOLDER / f'{name}.webp',
            save_all=True,
            append_images=self._frames[1:],
            duration=[*durations, LAST],
            loop=0,
            quality=60,
            method=6,
        )


def film_page(visit, demo):
    """Samples are converted; one fails, and is tried again."""
    page = visit(demo.url, 760, 620)
    page.evaluate("document.querySelector('#pDebug').remove()")
    film = Film(page)
    film.look()
    page.get_by_role('button', name='Use generated samples').click()
    page.evaluate("document.querySelector('#pDebug').remove()")
    status, again = page.get_by_role('status'), page.get_by_role('button', name='Try again: Fog')
    page.get_by_role('progressbar').first.wait_for()
    page.get_by_role('heading', name='Results').evaluate('heading => heading.scrollIntoView()')
    film.until(lambda: '3 done' in status.text_content())
    again.click()
    film.until(lambda: '4 done' in status.text_content())
    film.save('pictures')


def main():
    FOLDER.mkdir(exist_ok=True)
    with demo_site(pictures__delay=0.4) as demo, browsing() as browser:
        demo.start()
        visit = Visitor(browser)
        film_page(visit, demo)

        for name, delay in SHOWN:
            job = demo.submit(name, delay)
            if not delay:
                demo.client.wait(job)
        page = visit(demo.url, 1000, 1200, reduced_motion='reduce')
        bar = page.get_by_role('progressbar', name='Conversion of Dawn').element_handle()
        page.wait_for_function('bar => bar.value >= 2', arg=bar)
        save(page, 'page')
        save_monitor(visit, demo, 'monitor', job, 1200, 900)
        french = {'color_scheme': 'dark', 'is_mobile': True, 'has_touch': True, 'device_scale_factor': 2}
        save_monitor(visit, demo, 'monitor-phone', job, 320, 760, '?_LOCALE_=fr', **french)
        save_panel(visit, demo)
        for job in demo.client.jobs('running').body['jobs'] + demo.client.jobs('queued').body['jobs']:
            demo.client.cancel(job['job'])
        demo.stop()
        visit.close()
    for path in sorted(FOLDER.iterdir()):
        print(f'{path.name}: {path.stat().st_size / 1000:.0f} kB')


def save_monitor(visit, demo, name, job, width, height, query='', **options):
    page = visit(f'{demo.url}/zmq{query}', width, height, **options)
    page.get_by_text(job).wait_for()
    if 'is_mobile' in options:
        page.locator('#jobs').evaluate('jobs => jobs.scrollIntoView()')
    save(page, name)


def save_panel(visit, demo):
    """What the toolbar tells of the request which submitted the samples."""
    page = visit(f'{demo.url}/_debug_toolbar/', 1200, 620)
    page.get_by_role('link', name='/samples').click()
    page.get_by_role('link', name='0MQ').click()
    page.get_by_text('_submit').first.wait_for()
    save(page, 'panel')


if __name__ == '__main__':
    main()
