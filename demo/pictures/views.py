"""The page, what its forms send, and what its script asks for. None of it waits for a conversion."""

from collections.abc import Iterable
from typing import Any

from pyramid.exceptions import BadCSRFToken
from pyramid.httpexceptions import HTTPNotFound, HTTPSeeOther
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.view import exception_view_config, view_config

from pyams_zmq.client import Reply

from .renditions import RENDITIONS
from .samples import SAMPLES
from .store import TooBigError

FILES = {rendition.file(name): name for name, rendition in RENDITIONS.items()}
SHOWN = 24  # pictures on the page

# The browser may load nothing from elsewhere.
CONTENT_SECURITY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"

NO_PROCESS = (
    'The background process does not answer. Pictures are kept, and what it has accepted is not lost.'
)
NOT_ACCEPTED = 'The background process was not there to accept it. Please try again.'
CRASHED = 'Something went wrong here; the log tells more.'


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
    """How far the pictures are: the store knows the pictures, and the journal the jobs of the same ids."""
    reply = request.zmq('pictures').jobs(limit=2 * SHOWN)
    if not reply.ok:
        return told(request, reply)
    jobs = {job['job']: job for job in reply.body['jobs']}
    store = request.registry.store
    newest = store.ids()[:SHOWN]
    return {'pictures': [described(request, one, store.read(one), jobs.get(one)) for one in newest]}


@view_config(route_name='cancel', request_method='POST', renderer='json')
def cancel(request: Request) -> dict[str, Any]:
    """Let a picture not be converted any more."""
    return told(request, request.zmq('pictures').cancel(request.matchdict['id']))


@view_config(route_name='retry', request_method='POST', renderer='json')
def retry(request: Request) -> dict[str, Any]:
    """Try again what has failed, was cancelled, or could not be submitted."""
    picture_id = request.matchdict['id']
    if picture_id not in request.registry.store:
        raise HTTPNotFound
    reply = request.zmq('pictures').retry(picture_id)
    return told(request, submit(request, picture_id) if reply.status == 404 else reply)


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


def submit(request: Request, picture_id: str) -> Reply:
    """Have a picture converted. The job has the picture's id, so submitting it twice does no harm."""
    settings = request.registry.settings
    data = {
        'folder': str(request.registry.store.folder),
        'picture': picture_id,
        'max_pixels': int(settings['pictures.max_pixels']),
        'delay': float(settings['pictures.delay']),
    }
    return request.zmq('pictures').submit('convert', data, id=picture_id)


def answer(request: Request, pictures: list[str], problems: list[tuple[str, str]]) -> Any:
    """Hand the pictures over to the background process, and go on with the page."""
    for picture_id in pictures:
        reply = submit(request, picture_id)
        if not reply.ok:
            request.response.status_int = 503
            return page(request, problems, trouble(reply))
    if problems:
        request.response.status_int = 400
        return page(request, problems)
    return HTTPSeeOther(request.route_path('home'))


def told(request: Request, reply: Reply) -> dict[str, Any]:
    """What the page is told of a click; that a picture was ready just before (409) is no trouble."""
    if reply.ok or reply.status == 409:
        return {}
    request.response.status_int = 503
    return {'message': trouble(reply)}


def trouble(reply: Reply) -> str:
    """What to tell where the background process did not do as it was asked."""
    return f'The background process does not accept it: {reply.body}' if reply.delivered else NO_PROCESS


def page(request: Request, problems: Iterable[tuple[str, str]] = (), message: str = '') -> dict[str, Any]:
    request.response.headers['Content-Security-Policy'] = CONTENT_SECURITY
    max_size = max_upload(request)
    return {
        'kinds': RENDITIONS,
        'problems': problems,
        'trouble': message,
        'max_size': max_size,
        'limit': megabytes(max_size),
    }


def described(
    request: Request, picture_id: str, record: dict[str, Any], job: dict[str, Any] | None
) -> dict[str, Any]:
    """A picture as the script of the page wants it: with all renditions, ready or not."""
    state, error = outcome(record, job)
    progress = (job or {}).get('progress') or {}
    return {
        'id': picture_id,
        'name': record['name'],
        'state': state,
        'error': error,
        'doing': progress.get('message', ''),
        'cancel_url': request.route_path('cancel', id=picture_id),
        'retry_url': request.route_path('retry', id=picture_id),
        'renditions': [
            {
                'label': RENDITIONS[name].label,
                'kind': f'{RENDITIONS[name].suffix.upper()}, {RENDITIONS[name].size}\N{NO-BREAK SPACE}px',
                'url': request.route_path('rendition', id=picture_id, file=file),
                'ready': record['renditions'].get(name),
            }
            for file, name in FILES.items()
        ],
    }


def outcome(record: dict[str, Any], job: dict[str, Any] | None) -> tuple[str, str]:
    """State of a picture, and what went wrong."""
    if job is None:  # it was never accepted, or is over for so long that the journal has forgotten it
        complete = len(record['renditions']) == len(RENDITIONS)
        return ('done', '') if complete else ('failed', NOT_ACCEPTED)
    if job['cancelling'] and job['state'] == 'running':
        return 'cancelling', ''
    if job['state'] == 'failed':
        return 'failed', job['error'] if job['status'] < 500 else CRASHED
    return job['state'], ''


def shown_name(name: str) -> str:
    """The name of an upload, for people only: without folders and without what cannot be seen."""
    name = name.replace('\\', '/').rpartition('/')[2]
    return ''.join(char for char in name if char.isprintable()).strip()[:200] or 'Unnamed file'


def max_upload(request: Request) -> int:
    return int(request.registry.settings['pictures.max_upload'])


def megabytes(size: int) -> str:
    return f'{size / 1_000_000:g} MB'
