"""The page, what its forms send, and what its script asks for. None of it waits for a conversion."""

from collections.abc import Iterable
from typing import Any

from pyramid.exceptions import BadCSRFToken
from pyramid.httpexceptions import HTTPNotFound, HTTPSeeOther
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.view import exception_view_config, view_config

from .renditions import RENDITIONS
from .samples import SAMPLES
from .store import TooBigError

FILES = {f'{name}.{kind.suffix}': name for name, kind in RENDITIONS.items()}
SHOWN = 24  # pictures on the page

NO_PROCESS = (
    'The background process does not answer, so nothing is converted at the moment. '
    'Pictures are kept, and converted once the application is started again.'
)


@view_config(route_name='home', request_method='GET', renderer='templates/home.jinja2')
def home(request: Request) -> dict[str, Any]:
    """The page, without pictures: its script asks for them."""
    return page(request)


@view_config(route_name='home', request_method='POST', renderer='templates/home.jinja2')
def upload(request: Request) -> Any:
    """Keep the files and have them converted; problems are told next to the names of the files."""
    max_size = max_upload(request)
    # A file field without a file is sent as an empty string.
    files = [field for field in request.POST.getall('pictures') if hasattr(field, 'filename')]
    problems = [] if files else [('No file', 'Please choose at least one picture.')]
    pictures = []
    for field in files:
        name = shown_name(field.filename)
        try:
            pictures.append(request.registry.store.add({'name': name}, field.file, max_size))
        except TooBigError:
            problems.append((name, f'This file is bigger than {megabytes(max_size)}.'))
    return answer(request, pictures, problems)


@view_config(route_name='samples', request_method='POST', renderer='templates/home.jinja2')
def samples(request: Request) -> Any:
    """Have the sample pictures drawn and converted."""
    store = request.registry.store
    return answer(request, [store.add({'name': name, 'sample': name}) for name in SAMPLES], [])


@view_config(route_name='status', request_method='GET', renderer='json', http_cache=0)
def status(request: Request) -> dict[str, Any]:
    """How far the pictures are, in the words of the background process."""
    reply = request.registry.media.call('status', {'limit': SHOWN})
    if not reply.ok:
        request.response.status_int = 503
        return {'message': NO_PROCESS}
    return {'pictures': [described(request, picture) for picture in reply.body['pictures']]}


@view_config(route_name='rendition', request_method='GET')
def rendition(request: Request) -> Response:
    """One of the converted pictures; the route lets well-formed ids pass only."""
    file = request.matchdict['file']
    path = request.registry.store.path(request.matchdict['id'], file)
    if file not in FILES or not path.is_file():
        raise HTTPNotFound
    response = FileResponse(path, request)
    response.cache_control = 'private, max-age=86400, immutable'
    return response


@exception_view_config(BadCSRFToken, renderer='templates/home.jinja2')
def bad_csrf_token(request: Request) -> dict[str, Any]:
    """A form of another site, or one whose cookie is gone."""
    request.response.status_int = 400
    return page(
        request, [('Nothing was sent', 'This page was too old, or cookies are off. Please try again.')]
    )


def answer(request: Request, pictures: list[str], problems: list[tuple[str, str]]) -> Any:
    """Hand the pictures over to the background process, and go on with the page."""
    reply = request.registry.media.call('convert', {'pictures': pictures})
    if not reply.ok:
        request.response.status_int = 503
        return page(request, problems, NO_PROCESS)
    if problems:
        request.response.status_int = 400
        return page(request, problems)
    return HTTPSeeOther(request.route_path('home'))


def page(request: Request, problems: Iterable[tuple[str, str]] = (), trouble: str = '') -> dict[str, Any]:
    max_size = max_upload(request)
    return {
        'kinds': RENDITIONS,
        'problems': problems,
        'trouble': trouble,
        'max_size': max_size,
        'limit': megabytes(max_size),
    }


def described(request: Request, picture: dict[str, Any]) -> dict[str, Any]:
    """A picture as the script of the page wants it: with all renditions, ready or not."""
    return {
        'id': picture['id'],
        'name': picture['name'],
        'state': picture['state'],
        'error': picture['error'],
        'renditions': [
            {
                'label': RENDITIONS[name].label,
                'kind': f'{RENDITIONS[name].suffix.upper()}, {RENDITIONS[name].size}\N{NO-BREAK SPACE}px',
                'url': request.route_path('rendition', id=picture['id'], file=file),
                'ready': picture['renditions'].get(name),
            }
            for file, name in FILES.items()
        ],
    }


def shown_name(name: str) -> str:
    """The name of an upload, for people only: without folders and without what cannot be seen."""
    name = name.replace('\\', '/').rpartition('/')[2]
    return ''.join(char for char in name if char.isprintable()).strip()[:200] or 'Unnamed file'


def max_upload(request: Request) -> int:
    return int(request.registry.settings['pictures.max_upload'])


def megabytes(size: int) -> str:
    return f'{size / 1_000_000:g} MB'
