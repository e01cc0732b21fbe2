"""Binding a socket, and giving its port back from outside the thread that owns the socket."""

import errno
import os
import socket as sockets
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import zmq
from zmq.utils.monitor import recv_monitor_message

from .address import Address
from .exceptions import AddressError

#: An address as the system tells it: host and port, a path, or the name of an abstract socket in bytes.
Name: TypeAlias = tuple[str, int] | str | bytes

_FAMILIES = (sockets.AF_INET, sockets.AF_INET6, sockets.AF_UNIX)
_EVERYWHERE = ('0.0.0.0', '::')  # noqa: S104

_umask_lock = threading.Lock()


class Listener(NamedTuple):
    """What a bound socket listens on."""

    #: As 0MQ writes it, the port that it chose included.
    endpoint: str
    #: None for transports that have no ports.
    port: int | None
    #: The descriptor that libzmq listens on, None where there is none (inproc).
    fd: int | None
    #: What tells that the descriptor still is the same: it is libzmq's, which may have closed it.
    inode: tuple[int, int] | None
    #: The address of that descriptor.
    name: Name | None

    def has(self, name: Name | None) -> bool:
        """Whether an address is that of the listening socket, or of a connection made to it."""
        if isinstance(name, tuple) and isinstance(self.name, tuple) and self.name[0] in _EVERYWHERE:
            # Its connections have an address of their own, in the same family.
            return name[1] == self.name[1] and (':' in name[0]) == (':' in self.name[0])
        return name is not None and name == self.name

    def give_back(self, dummy: sockets.socket) -> None:
        """Free the port while the thread that owns the socket is busy.

        The descriptor is replaced by a harmless one, since libzmq aborts where it finds the number closed;
        for the same reason the socket must not be closed any more afterwards: end the process instead.

        :param dummy: what takes its place, see :func:`make_dummy`
        """
        if self.fd is not None and self._is_there(self.fd):
            dummy.listen(1)
            os.dup2(dummy.fileno(), self.fd, inheritable=False)

    def _is_there(self, fd: int) -> bool:
        # The inode alone does not tell on macOS, where it is the same for all sockets of TCP.
        with suppress(OSError):
            return _inode(fd) == self.inode and _name(fd) == self.name and _is_listening(fd)
        return False


def make_dummy() -> sockets.socket:
    """Make a socket that can take the place of a listening one."""
    dummy = sockets.socket()
    dummy.bind(('127.0.0.1', 0))
    dummy.setblocking(False)
    return dummy


def close_copies(listeners: Iterable[Listener]) -> None:
    """Close, in a forked child, its copies of the listening sockets and of the connections made to them.

    Else it would keep the port, and clients would not notice when the original ends.
    """
    listeners = list(listeners)
    for fd in [int(path.name) for path in Path('/dev/fd').iterdir()] if listeners else ():
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                name = _name(fd)
                if any(listener.has(name) for listener in listeners):
                    os.close(fd)


def _name(fd: int) -> Name | None:
    """Return the address of a socket; None where it is of no kind that 0MQ listens on."""
    with _lent(fd) as lent:
        if lent.type != sockets.SOCK_STREAM or lent.family not in _FAMILIES:
            return None
        name = lent.getsockname()
    return name[:2] if isinstance(name, tuple) else name


def _is_listening(fd: int) -> bool:
    with _lent(fd) as lent:
        return bool(lent.getsockopt(sockets.SOL_SOCKET, sockets.SO_ACCEPTCONN))


@contextmanager
def _lent(fd: int) -> Iterator[sockets.socket]:
    # Not a duplicate: there may be no descriptor left.
    lent = sockets.socket(fileno=fd)
    try:
        yield lent
    finally:
        lent.detach()


def listen(socket: 'zmq.Socket[Any]', address: Address) -> Listener:
    """Bind a socket.

    :raises AddressError: where that cannot be done
    """
    try:
        with _events(socket) as monitor, _private_file(address):
            socket.bind(address.url)
            # libzmq emits the event before bind() returns.
            event = recv_monitor_message(monitor, zmq.NOBLOCK) if monitor.poll(0) else None
    except OSError as error:
        raise _address_error(address, error) from None
    except zmq.ZMQError as error:
        raise _address_error(address, error) from None
    endpoint = socket.get_string(zmq.LAST_ENDPOINT)
    port = int(endpoint.rpartition(':')[2]) if address.transport == 'tcp' else None
    fd = int(event['value']) if event else None
    if fd is None:
        return Listener(endpoint, port, None, None, None)
    return Listener(endpoint, port, fd, _inode(fd), _name(fd))


@contextmanager
def _events(socket: 'zmq.Socket[Any]') -> Iterator['zmq.Socket[Any]']:
    monitor = socket.get_monitor_socket(zmq.EVENT_LISTENING)
    try:
        yield monitor
    finally:
        socket.disable_monitor()
        monitor.close()


def _address_error(address: Address, error: Exception) -> AddressError:
    number = error.errno or errno.EINVAL  # type: ignore[attr-defined]
    return AddressError(number, f'{address.url}: {os.strerror(number) if number < 1000 else error}')


def _inode(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _private_file(address: Address) -> Iterator[None]:
    """Let an ipc socket's file be its owner's alone, from the moment it exists."""
    if address.transport != 'ipc':
        yield
        return
    if address.host == '*':
        # libzmq makes a folder of its own first, which its owner has to enter, and nobody else can.
        mask = 0o077
    else:
        _check_path(address.host)
        mask = 0o177
    with _umask_lock:
        old = os.umask(mask)
        try:
            yield
        finally:
            os.umask(old)


def _check_path(path: str) -> None:
    """Refuse a path that another process listens on, or that is no socket: libzmq would replace either.

    :raises OSError: with the reason
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, 'exists and is no socket')
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.setblocking(False)  # its owner may be too busy to answer
        # Anything else than a refusal, such as a socket of another type, tells that somebody is there.
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, 'in use')
