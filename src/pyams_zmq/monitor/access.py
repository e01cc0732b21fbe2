"""Who may see the monitor: closed unless the permission is granted, or a setting opens it."""

from collections.abc import Callable, Collection
from typing import Any

from pyramid.httpexceptions import HTTPForbidden
from pyramid.interfaces import ISecurityPolicy
from pyramid.security import NO_PERMISSION_REQUIRED

#: What a view is called in ``pyams_zmq.monitor.public``, and the permission that it needs otherwise.
PERMISSIONS = {'page': 'zmq.monitor', 'health': 'zmq.health', 'metrics': 'zmq.metrics'}


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
        request_method='GET',
        http_cache=0,
        permission=NO_PERMISSION_REQUIRED if is_public else PERMISSIONS[kind],
        decorator=() if is_public else _closed_without_policy(kind),
        **options,
    )


def _closed_without_policy(kind: str) -> Any:
    """Close a view where Pyramid asks for no permission at all, since there is no security policy."""

    def decorate(view: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def guarded(context: Any, request: Any) -> Any:
            if request.registry.queryUtility(ISecurityPolicy) is None:
                raise HTTPForbidden(
                    'The application has no security policy, so nobody can be let in here. Give it one which'
                    f' grants the permission {PERMISSIONS[kind]!r}, or open this to everybody: set'
                    f' pyams_zmq.monitor.public = {kind}'
                )
            return view(context, request)

        return guarded

    return decorate
