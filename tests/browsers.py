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
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise LookupError('no Playwright') from None
    if path is None:
        raise LookupError(f'no browser: none of {", ".join(NAMES)}')
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
        if message.type in ('error', 'warning'):
            self.wrong.append(message.text)

    def close(self):
        for context in self._contexts:
            context.close()
        self._contexts.clear()
