"""Who sent the message that is being handled."""

import ipaddress
from typing import Any, NamedTuple

import zmq

from .request import current


class Caller(NamedTuple):
    """Who sent a message."""

    #: The name of the user, or of the key; None where the process asks for neither, so that nobody knows.
    user: str | None = None

    #: The IP address; on an ipc socket ``localhost:uid:gid:pid``, with the numbers of the peer (but no pid on
    #: macOS); None where there is none.
    address: str | None = None


def current_caller() -> Caller:
    """Tell who sent the message that is being handled.

    It is asked for in a delegate's method: on the loop, in a worker thread or a coroutine. A thread of one's
    own knows the caller where it runs in a copy of the context (:func:`contextvars.copy_context`).

    :returns: one without user and address outside of a message: in a job, for example, which runs later
    """
    request = current.get()
    if request is None or request.origin is None:
        return Caller()
    # Where nobody was asked to introduce himself, the name would be what the peer itself says.
    user = _read(request.origin, 'User-Id') if request.stream.authenticated else None
    address = _read(request.origin, 'Peer-Address')
    return Caller(user, None if address is None else _plain(address))


def _read(frame: Any, name: str) -> str | None:
    try:
        return str(frame.get(name)) or None
    except zmq.ZMQError:
        return None


def _plain(address: str) -> str:
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)
