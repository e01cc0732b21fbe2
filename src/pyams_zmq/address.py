"""The forms in which an address may be given, and the one that 0MQ takes."""

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

AnyAddress: TypeAlias = str | Sequence[str | int | None]

_HOST = re.compile(r'[\w.*%-]+')
_PORT = re.compile('[0-9]{1,5}')


class Address(NamedTuple):
    """An address in its parts.

    ``port`` is None where 0MQ chooses one, and for transports that have none.
    """

    transport: str
    host: str
    port: int | None = None

    @property
    def ipv6(self) -> bool:
        """Whether the host is an IPv6 address in numbers."""
        return self.transport == 'tcp' and ':' in self.host

    @property
    def url(self) -> str:
        """The address as 0MQ takes it, with ``*`` for a port that 0MQ chooses."""
        if self.transport != 'tcp':
            return f'{self.transport}://{self.host}'
        host = f'[{self.host}]' if self.ipv6 else self.host
        return f'tcp://{host}:{"*" if self.port is None else self.port}'


def parse_address(address: AnyAddress, transport: str = 'tcp') -> Address:
    """Take an address apart.

    :param address: ``'host:port'``, ``(host, port)``, ``'host'`` or ``(host,)`` alone, ``'[::1]:5555'``,
        ``'tcp://host:port'``, ``'ipc:///path'``. The port may also be 0, ``'*'`` or None: any free one.
    :param transport: what an address without ``transport://`` belongs to
    :raises ValueError: where it is none of these
    """
    if isinstance(address, str):
        if '://' in address:
            transport, address = address.split('://', 1)
        if transport != 'tcp':
            return Address(transport, _not_empty(address))
        host, port = _split(address)
        return Address('tcp', _host(host), _port(port))
    try:
        host, port = (*address, None)[:2] if len(address) < 2 else address  # type: ignore[assignment]
    except (TypeError, ValueError):
        raise ValueError(f"{address!r} is no address: give 'host:port' or (host, port)") from None
    return Address('tcp', _host(host), _port(port))


def connectable(address: AnyAddress) -> str:
    """Tell where a client of the same host finds a process that listens at an address.

    :param address: where the process listens; all interfaces, say
    :returns: the address as 0MQ takes it
    :raises ValueError: where it is no address
    """
    parsed = parse_address(address)
    host = {'*': '127.0.0.1', '0.0.0.0': '127.0.0.1', '::': '::1'}.get(parsed.host, parsed.host)  # noqa: S104
    return parsed._replace(host=host).url


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith('['):
        host, bracket, rest = text[1:].partition(']')
        if not bracket or (rest and not rest.startswith(':')):
            raise ValueError(f"{text!r} is no address: an IPv6 address with a port is written '[::1]:5555'")
        return host, rest[1:] if rest else None
    if text.count(':') > 1:
        return text, None
    host, colon, port = text.partition(':')
    return host, port if colon else None


def _not_empty(name: str) -> str:
    if not name or '\0' in name:
        raise ValueError(f'{name!r} is no address: the part behind :// names a path')
    return name


def _host(host: object) -> str:
    if isinstance(host, str):
        if host.startswith('[') and host.endswith(']'):
            host = host[1:-1]
        if ':' not in host and _HOST.fullmatch(host):
            return host
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            pass
    raise ValueError(f"{host!r} is no host: give a name, an address, an interface, or '*' for all of them")


def _port(port: object) -> int | None:
    if port in (None, '', '*'):
        return None
    if isinstance(port, bool) or not _PORT.fullmatch(str(port)) or int(port) > 65535:  # type: ignore[call-overload]
        raise ValueError(f'{port!r} is no port: give a number from 0 to 65535')
    return int(port) or None  # type: ignore[call-overload]
