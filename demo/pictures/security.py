"""Who may do what: the monitor is for those who sit at this machine."""

from typing import Any

from pyramid.request import Request

MONITOR = ('zmq.monitor', 'zmq.jobs', 'zmq.health', 'zmq.metrics')


class LocalPolicy:
    """Grants the permissions of the monitor to this machine alone.

    Good for a demonstration. Behind a proxy all requests come from this machine: ask there who it is.
    """

    def identity(self, request: Request) -> None:
        """Nobody signs in."""

    def authenticated_userid(self, request: Request) -> None:
        """Nobody signs in."""

    def permits(self, request: Request, context: Any, permission: str) -> bool:
        return permission in MONITOR and request.remote_addr in ('127.0.0.1', '::1')
