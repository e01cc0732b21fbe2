"""A real browser."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
OPTIONS = (
    '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'
    ' --disable-component-update --disable-sync'
)


@contextmanager
def browsing():
    """Give a browser of Playwright's.

    :raises LookupError: where there is none
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        raise LookupError('no Playwright') from None
    if path is None:
        raise LookupError(f'no browser: none of {", ".join(NAMES)}')
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS.split())
        yield browser
        browser.close()


@contextmanager
def browsing_or_skipping():
    """Give a browser to a test; where there is none it is skipped, or fails where one is required."""
    try:
        with browsing() as browser:
            yield browser
    except LookupError as error:
        if os.environ.get('PYAMS_ZMQ_REQUIRE_BROWSER') == '1':
            pytest.fail(str(error))
        pytest.skip(str(error))


# Which texts have less contrast than 4.5 (WCAG, 1.4.3): the text, and how much it has.
_CONTRAST = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const linear = (share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [red, green, blue] = color.map((value) => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const isText = (node) => node.nodeType === 3 && node.data.trim();
  const hasText = (element) => [...element.childNodes].some(isText);
  const contrast = (element) => {
    const lights = [parse(getComputedStyle(element).color), behind(element)].map(light);
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  };
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && hasText(element) && contrast(element) < 4.5)
    .map((element) => [element.textContent.trim(), contrast(element)]);
}"""


def low_contrast(page):
    """Return the texts of a page that are hard to read, with their contrast."""
    return page.evaluate(_CONTRAST)


class Visitor:
    """Opens pages; behind them nothing may go wrong, nor come from elsewhere.

    :param browser: as :func:`browsing` gives it
    """

    def __init__(self, browser):
        self._browser = browser
        self._contexts = []
        self.wrong = []

    def __call__(self, url, width=1100, height=800, **options):
        context = self._browser.new_context(viewport={'width': width, 'height': height}, **options)
        context.set_default_timeout(30_000)
        self._contexts.append(context)
        page = context.new_page()
        site = '/'.join(url.split('/')[:3]) + '/'
        page.on('console', self._listen)
        page.on('pageerror', lambda error: self.wrong.append(str(error)))
        page.on('request', lambda one: one.url.startswith(site) or self.wrong.append(one.url))
        page.goto(url)
        return page

    def _listen(self, message):
        # Those of the debug toolbar have no icon.
        if message.type in ('error', 'warning') and not message.location['url'].endswith('/favicon.ico'):
            self.wrong.append(message.text)

    def close(self):
        for context in self._contexts:
            context.close()
        self._contexts.clear()
