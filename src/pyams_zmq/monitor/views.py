"""The views of the monitor."""

import json
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound, HTTPNotImplemented
from pyramid.response import Response

from .access import check_token, may_act, token
from .jobs import LIMITS, JobLists
from .observer import Observer
from .texts import PAGE, SCRIPT

#: The folder of what the page needs.
STATIC = str(Path(__file__).with_name('static'))

_HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
}


class Views:
    """The views, which share what they know of the processes.

    :param observer: asks the processes
    :param jobs: asks them for their jobs
    """

    def __init__(self, observer: Observer, jobs: JobLists) -> None:
        self._observer = observer
        self._jobs = jobs

    def page(self, request: Any) -> Response:
        """The page, without figures: its script asks for them."""
        translate = request.localizer.translate
        texts = {place: translate(text) for place, text in PAGE.items()}
        script = {name: translate(text) for name, text in SCRIPT.items()}
        urls = {
            'url': request.route_path('pyams_zmq.monitor.processes'),
            'jobs_url': request.route_path('pyams_zmq.monitor.jobs_of'),
            'act_url': request.route_path('pyams_zmq.monitor.jobs'),
            'token': token(request) if may_act(request) else '',
            **{
                name: request.static_path(f'{STATIC}/{file}')
                for name, file in (('icon', 'icon.svg'), ('css', 'monitor.css'), ('js', 'monitor.js'))
            },
        }
        values = {**texts, **urls, 'texts': json.dumps(script)}
        response = Response(_template().substitute({name: escape(text) for name, text in values.items()}))
        response.headers.update(_HEADERS)
        return response

    def processes(self, _request: Any) -> dict[str, Any]:
        """What the processes tell of themselves, as JSON."""
        return {
            'processes': [
                {'name': one.name, 'state': one.state, 'reason': one.reason, 'figures': one.figures}
                for one in self._observer.look()
            ]
        }

    def jobs(self, request: Any) -> dict[str, Any]:
        """The jobs of a process, as JSON, and whether one may act upon them."""
        try:
            query = request.params  # which need not be UTF-8
            limit = int(query.get('limit', LIMITS[0]))
            found = self._jobs.look(query.get('process'), query.get('state') or None, limit)
        except (LookupError, ValueError):
            raise HTTPNotFound from None
        return {**found, 'may_act': may_act(request)}

    def act(self, request: Any) -> dict[str, Any]:
        """Cancel or retry a job, as the JSON sent tells: ``{"process": …, "action": …, "job": …}``."""
        check_token(request)
        try:
            wanted = request.json_body
            reply = self._jobs.act(wanted['process'], wanted['action'], wanted['job'])
        except (LookupError, TypeError, ValueError, RecursionError):
            raise HTTPBadRequest from None
        passed_on = reply.delivered and reply.status in (200, 202, 404, 409, 429)
        request.response.status_int = reply.status if passed_on else 503
        return {'message': '' if reply.ok else str(reply.body)}

    def health(self, request: Any) -> Response:
        """Whether all processes answer, or the one that the URL names: 200 or 503, without details."""
        seen = self._observer.look()
        name = request.matchdict.get('name')
        if name is not None:
            seen = [one for one in seen if one.name == name]
            if not seen:
                raise HTTPNotFound
        healthy = all(one.state == 'up' for one in seen)
        text, status = ('OK\n', 200) if healthy else ('Service Unavailable\n', 503)
        return Response(text, status=status, content_type='text/plain', charset='utf-8')

    def metrics(self, _request: Any) -> Response:
        """The metrics for Prometheus."""
        try:
            from .prometheus import CONTENT_TYPE, exposition  # noqa: PLC0415 (an optional dependency)
        except ImportError:
            raise HTTPNotImplemented("The metrics need an extra: pip install 'pyams_zmq[metrics]'") from None
        response = Response(exposition(self._observer))
        response.headers['Content-Type'] = CONTENT_TYPE
        return response


@cache
def _template() -> Template:
    return Template(files(__package__).joinpath('page.html').read_text('utf-8'))
