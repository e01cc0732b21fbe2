"""A Pyramid application whose pictures are converted by a background process."""

import atexit
import logging
import secrets
from typing import Any

import plaster
from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.events import ApplicationCreated, NewResponse
from pyramid.router import Router

from pyams_zmq.client import ZMQClient
from pyams_zmq.process import process_exit_func

from .process import MediaHandler, MediaProcess
from .store import PICTURE_ID, Store

log = logging.getLogger(__name__)

CONTENT_SECURITY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"


def main(global_config: dict[str, str], **settings: Any) -> Router:
    """Make the WSGI application; its background process starts with it."""
    with Configurator(settings=settings) as config:
        config.include('pyams_zmq')
        config.set_csrf_storage_policy(CookieCSRFStoragePolicy(httponly=True))
        config.set_default_csrf_options(require_csrf=True)
        config.registry.store = Store(settings['pictures.folder'])

        config.add_route('home', '/')
        config.add_route('samples', '/samples')
        config.add_route('status', '/pictures.json')
        config.add_route('rendition', f'/pictures/{{id:{PICTURE_ID}}}/{{file:[a-z]+[.][a-z]+}}')
        config.add_static_view('static', 'pictures:static')
        config.scan('.views')

        config.add_subscriber(start_process, ApplicationCreated)
        config.add_subscriber(add_headers, NewResponse)
    app = config.make_wsgi_app()
    log.info('Open %s', server_url(global_config))
    return app


def start_process(event: ApplicationCreated) -> None:
    """Start the background process, and keep one client of it for the whole application."""
    registry = event.app.registry
    auth = f'pictures:{secrets.token_urlsafe()}'
    process = MediaProcess(
        registry.settings['pictures.address'], MediaHandler, auth=auth, clients='127.0.0.1', registry=registry
    )
    process.start()
    atexit.register(process_exit_func, process=process)
    registry.media = ZMQClient(process.wait_ready(timeout=10), auth=auth, timeout=2)


def add_headers(event: NewResponse) -> None:
    """Let the browser load nothing from elsewhere for the pages, and guess no types."""
    event.response.headers['X-Content-Type-Options'] = 'nosniff'
    if event.response.content_type == 'text/html':
        event.response.headers['Content-Security-Policy'] = CONTENT_SECURITY


def server_url(global_config: dict[str, str]) -> str:
    """Where the server of the same ini file listens."""
    server = plaster.get_settings(global_config['__file__'], 'server:main')
    return 'http://' + server['listen'].replace('127.0.0.1', 'localhost')
