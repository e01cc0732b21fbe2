"""Who may see the monitor: closed unless the permission is granted, or a setting opens it."""

from collections.abc import Callable, Collection
from typing import Any

from pyramid.csrf import CookieCSRFStoragePolicy, check_csrf_origin
from pyramid.exceptions import BadCSRFToken
from pyramid.httpexceptions import HTTPForbidden
from pyramid.interfaces import ISecurityPolicy
from pyramid.security import NO_PERMISSION_REQUIRED

#: What a view is called in ``pyams_zmq.monitor.public``, and the permission that it needs otherwise. Jobs
#: cannot be opened to everybody.
PERMISSIONS = {'page': 'zmq.monitor', 'health': 'zmq.health', 'metrics': 'zmq.metrics', 'jobs': 'zmq.jobs'}

# One of the monitor's own: the application's may need a session, and the application need not have any.
_tokens = CookieCSRFStoragePolicy(cookie_name='pyams_zmq_token', httponly=True, samesite='Strict')


def add_view(
    config: Any,
    view: Callable[[Any], Any],
    route: str,
    kind: str,
    public: Collection[str],
    **options: Any,
) -> None:
    """Add a view of the monitor.

    :param config: the application's :class:`pyramid.config.Configurator`
    :param view: called with the request
    :param route: name of its route, without what all have in common
    :param kind: one of :data:`PERMISSIONS`
    :param public: those that need no permission
    :param options: further ones of ``config.add_view``
    """
    is_public = kind in public
    config.add_view(
        view,
        route_name=f'pyams_zmq.monitor{route}',
        http_cache=0,
        permission=NO_PERMISSION_REQUIRED if is_public else PERMISSIONS[kind],
        decorator=() if is_public else _closed_without_policy(kind),
        **options,
    )


def may_act(request: Any) -> bool:
    """Tell whether the one who asks may cancel and retry jobs."""
    # Without a policy, Pyramid permits everything.
    has_policy = request.registry.queryUtility(ISecurityPolicy) is not None
    return has_policy and bool(request.has_permission(PERMISSIONS['jobs']))


def token(request: Any) -> str:
    """Return what the page has to send with what it wants to be done."""
    return str(_tokens.get_csrf_token(request))


def check_token(request: Any) -> None:
    """Refuse what comes from the page of another site.

    :raises BadCSRFToken: where it does
    """
    supplied = request.headers.get('X-CSRF-Token', '')
    if not _tokens.check_csrf_token(request, supplied) or not check_csrf_origin(request, raises=False):
        raise BadCSRFToken


def _closed_without_policy(kind: str) -> Any:
    """Close a view where Pyramid asks for no permission at all, since there is no security policy."""

    opened = f', or open this to everybody: set pyams_zmq.monitor.public = {kind}' if kind != 'jobs' else ''

    def decorate(view: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def guarded(context: Any, request: Any) -> Any:
            if request.registry.queryUtility(ISecurityPolicy) is None:
                raise HTTPForbidden(
                    'The application has no security policy, so nobody can be let in here. Give it one which'
                    f' grants the permission {PERMISSIONS[kind]!r}{opened}'
                )
            return view(context, request)

        return guarded

    return decorate
