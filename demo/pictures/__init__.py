"""A Pyramid application whose pictures are converted by a background process."""

from typing import Any

from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.events import NewResponse
from pyramid.router import Router

from .security import LocalPolicy
from .store import PICTURE_ID, Store


def main(global_config: dict[str, str], **settings: Any) -> Router:
    """Make the WSGI application. The background process is made from it, too, and is started when needed."""
    with Configurator(settings=settings) as config:
        config.include('pyams_zmq')
        config.add_zmq_process('pictures', 'pictures.delegate.PictureDelegate')

        config.set_security_policy(LocalPolicy())
        config.include('pyams_zmq.monitor')

        config.set_csrf_storage_policy(CookieCSRFStoragePolicy(httponly=True))
        config.set_default_csrf_options(require_csrf=True)
        config.registry.store = Store(settings['pictures.folder'])

        config.add_route('home', '/')
        config.add_route('samples', '/samples')
        config.add_route('status', '/pictures.json')
        config.add_route('cancel', f'/pictures/{{id:{PICTURE_ID}}}/cancel')
        config.add_route('retry', f'/pictures/{{id:{PICTURE_ID}}}/retry')
        config.add_route('rendition', f'/renditions/{{id:{PICTURE_ID}}}/{{file:[a-z]+[.][a-z]+}}')
        config.add_static_view('static', 'pictures:static')
        config.scan('.views')
        config.add_subscriber(add_headers, NewResponse)
    return config.make_wsgi_app()


def add_headers(event: NewResponse) -> None:
    """Let the browser guess no types."""
    event.response.headers['X-Content-Type-Options'] = 'nosniff'
