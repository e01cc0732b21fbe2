"""Who may speak: what ``auth`` and ``clients`` say, and the thread that enforces it."""

import asyncio
import hmac
import ipaddress
import re
import socket as sockets
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import zmq
import zmq.auth

from .address import parse_address
from .credentials import AnyPath, Passwords, read_passwords
from .curve import ServerKeys, read_server_keys
from .exceptions import SettingError
from .limits import Limits
from .logs import Log

logger = Log(__name__)

#: The ZAP domain of every bound socket that has something to enforce.
ZAP_DOMAIN = 'pyams_zmq'

# https://rfc.zeromq.org/spec/27/: where the handler listens, and the version of its protocol.
_ZAP_ENDPOINT = 'inproc://zeromq.zap.01'
_ZAP_VERSION = b'1.0'
_STOP = b'STOP'

# Refusals that are logged, and in how many seconds.
_REFUSALS, _SPAN = 10, 10.0

_HOST_NAME = re.compile(r'(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*\.?')

# What libzmq writes (ipc_listener.cpp) in place of the address: user, group and, but on macOS, process id.
_IPC_PEER = re.compile(r'localhost:\d+:\d+:\d*')

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Access(Limits):
    """Who may speak to a process: class attributes, and what they lead to."""

    #: A file with ``user:password`` in each line, which nobody but its owner may read; instead of ``auth``.
    auth_file: AnyPath | None = None

    #: The file of the process's secret key, for encrypted connections (CURVE); clients need the public one.
    curve_secret_key: AnyPath | None = None

    #: A folder with the public keys of the clients that are let in, or the file of a single one.
    curve_clients: AnyPath | None = None

    #: What clients have to present; None: they need not.
    passwords: Passwords | None
    #: The keys from the files; None: connections are not encrypted.
    curve_keys: ServerKeys | None
    #: Those of ``auth``.
    _auth: Passwords | None

    def check_options(self) -> None:
        """Refuse what makes no sense, and read the files.

        :raises ValueError: with the name of the attribute, or of the file
        """
        super().check_options()
        if self.auth_file is not None:
            if self._auth:
                raise SettingError('give auth or auth_file, not both')
            self.passwords = read_passwords(self.auth_file)
        self.curve_keys = read_server_keys(self.curve_secret_key, self.curve_clients)
        if self.passwords and self.curve_keys:
            raise SettingError(
                'give auth or keys (curve_secret_key), not both: a socket has one mechanism, and with keys'
                ' nobody needs a password'
            )


def parse_clients(clients: str | Iterable[str] | None) -> list[str] | None:
    """Read the list of clients.

    :param clients: IP addresses, networks such as ``10.0.0.0/8`` and host names, separated by white space or
        commas
    :returns: the names, checked but not resolved; None where everybody is let in
    :raises ValueError: where one is neither an address nor a network nor a possible name
    """
    if not clients:
        return None
    try:
        text = clients if isinstance(clients, str) else ' '.join(clients)
    except TypeError:
        raise ValueError(
            f'clients is text with addresses, networks and host names, not {clients!r}'
        ) from None
    names = [name for name in re.split(r'[\s,]+', text) if name]
    for name in names:
        if _network(name) is None and not _is_host_name(name):
            raise ValueError(
                f'{name!r} in clients is no IP address, no network (as 10.0.0.0/8) and no host name;'
                ' leave clients empty to let everybody in'
            )
    if not names and text.strip():
        raise ValueError(f'{text!r} names no clients; leave clients empty to let everybody in')
    return names or None


def _network(name: str) -> Network | None:
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, 'ipv4_mapped', None)
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network(f'{mapped}/{network.prefixlen - 96}')
    return network


def _is_host_name(name: str) -> bool:
    # A name whose last part is a number is an address with a mistake in it.
    return bool(_HOST_NAME.fullmatch(name)) and not name.rstrip('.').rpartition('.')[2].isdigit()


def resolve(name: str) -> list[Network]:
    """Find the networks that one entry of ``clients`` stands for.

    :raises OSError: where it is a host name that cannot be resolved
    """
    network = _network(name)
    if network is not None:
        return [network]
    try:
        found = sockets.getaddrinfo(name, None, type=sockets.SOCK_STREAM)
    except OSError as error:
        raise OSError(f'{name!r} in clients cannot be resolved: {error}') from error
    return [ipaddress.ip_network(str(entry[4][0]).partition('%')[0]) for entry in found]


def protect(socket: zmq.Socket[Any], plain: bool, keys: ServerKeys | None = None) -> None:
    """Make a socket that is about to be bound ask the authenticator about each connection.

    :param plain: whether clients have to present a user name and a password
    :param keys: those of the process, where clients have to have one
    """
    # libzmq aborts on a PLAIN server which enforces a domain that it does not have, so this comes first.
    socket.zap_domain = ZAP_DOMAIN.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    if plain:
        socket.plain_server = True
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey = keys.pair
        socket.curve_server = True


def is_exposed(endpoint: str) -> bool:
    """Whether other hosts may reach an endpoint, as 0MQ writes it."""
    address = parse_address(endpoint)
    if address.transport != 'tcp':
        return False
    ip = ipaddress.ip_address(address.host.partition('%')[0])
    return not (getattr(ip, 'ipv4_mapped', None) or ip).is_loopback


class Refusals:
    """Logs refusals, and not too many: who is refused comes again at once."""

    def __init__(self) -> None:
        self._room, self._kept_back, self._until = 0, 0, 0.0

    def log(self, reason: str) -> None:
        """Log one, or count it."""
        now = time.monotonic()
        if now >= self._until:
            if self._kept_back:
                logger.info('%d further connections were refused', self._kept_back)
            self._room, self._kept_back, self._until = _REFUSALS, 0, now + _SPAN
        if self._room:
            self._room -= 1
            logger.info('Connection refused: %s', reason)
        else:
            self._kept_back += 1


class Authenticator(zmq.auth.Authenticator):
    """Answers libzmq's questions about connections, from a thread that blocks on its socket.

    Beyond pyzmq's: ``allow`` and ``deny`` take networks and host names, the domain ``'*'`` covers every
    domain that has no configuration of its own, an exception costs one connection and not the thread, and
    no password reaches a log.
    """

    def __init__(self, context: 'zmq.Context[Any]') -> None:
        super().__init__(context, log=logger)
        self._networks: set[Network] = set()
        self._keys: dict[bytes, str] = {}
        self._thread: threading.Thread | None = None
        self._refusals = Refusals()

    def allow(self, *addresses: str) -> None:
        """Let in these addresses, networks and host names, and no others.

        :raises OSError: where a host name cannot be resolved
        :raises ValueError: after ``deny``
        """
        networks = [network for name in addresses for network in resolve(name)]
        super().allow(*addresses)
        self._networks.update(networks)

    def deny(self, *addresses: str) -> None:
        """Keep out these addresses, networks and host names.

        :raises OSError: where a host name cannot be resolved
        :raises ValueError: after ``allow``
        """
        networks = [network for name in addresses for network in resolve(name)]
        super().deny(*addresses)
        self._networks.update(networks)

    def configure_keys(self, keys: Mapping[bytes, str]) -> None:
        """Let in clients with these keys, beside those of ``configure_curve``.

        :param keys: names of users, by their public keys in 32 bytes
        """
        self._keys.update(keys)

    def start(self) -> None:
        """Start answering."""
        super().start()
        # Made in good time: when it is needed, there may be no descriptor left.
        self._bell = self.context.socket(zmq.DEALER, socket_class=zmq.Socket)
        self._bell.connect(_ZAP_ENDPOINT)
        self._thread = threading.Thread(target=self._serve, name='pyams_zmq-zap', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; new connections are refused from then on."""
        if self.is_alive():
            self._bell.send_multipart([b'', _STOP])
            self._thread.join()  # type: ignore[union-attr]
        self._thread = None

    def is_alive(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive()

    def _serve(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            while (question := self.zap_socket.recv_multipart()) != [_STOP]:
                self.zap_socket.send_multipart(self._answer(question, loop))
        except zmq.ContextTerminated:
            logger.debug('The context ended before the authenticator was stopped')
        finally:
            loop.close()
            with suppress(zmq.ZMQError):  # the context has ended
                self.zap_socket.unbind(_ZAP_ENDPOINT)  # at once, unlike close()
            self.zap_socket.close()
            self._bell.close()

    def _answer(self, question: list[bytes], loop: asyncio.AbstractEventLoop) -> list[bytes]:
        request_id = question[1] if len(question) > 1 else b''
        try:
            user, reason = self._judge(question, loop)
        except Exception:
            logger.exception('A connection could not be checked; it was refused')
            return [_ZAP_VERSION, request_id, b'500', b'Internal error', b'', b'']
        if user is None:
            self._refusals.log(reason)
            return [_ZAP_VERSION, request_id, b'400', reason.encode(), b'', b'']
        return [_ZAP_VERSION, request_id, b'200', b'OK', user.encode(), b'']

    def _judge(self, question: list[bytes], loop: asyncio.AbstractEventLoop) -> tuple[str | None, str]:
        """Return the user's name, or None and the reason of a refusal."""
        version, _id, domain_name, peer, _identity, mechanism, *credentials = question
        if version != _ZAP_VERSION:
            raise ValueError(f'unknown version of ZAP: {version!r}')
        domain = domain_name.decode(self.encoding, 'replace')
        address = peer.decode(self.encoding, 'replace')
        if not self._is_welcome(address):
            return None, f'{address} is not among the clients'
        if mechanism == b'NULL':
            return 'anonymous', ''
        if mechanism == b'PLAIN':
            return self._check_plain(domain, *credentials), f'wrong user name or password from {address}'
        if mechanism == b'CURVE':
            return self._check_curve(loop, domain, *credentials), f'unknown key from {address}'
        return None, f'unsupported mechanism from {address}'

    def _is_welcome(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition('%')[0])
        except ValueError:
            # A peer on an ipc socket: the file's mode has let it in.
            return bool(_IPC_PEER.fullmatch(address))
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        listed = any(ip in network for network in self._networks)
        return listed if self._allowed else not listed

    def _check_plain(self, domain: str, user: bytes, password: bytes) -> str | None:
        passwords = self.passwords.get(domain, self.passwords.get('*', {}))
        name = user.decode(self.encoding, 'replace')
        expected = passwords.get(name)
        # Compared in any case: the time taken does not tell which names exist.
        same = hmac.compare_digest(password, (expected or '').encode(self.encoding))
        return name if same and expected is not None else None

    def _check_curve(self, loop: asyncio.AbstractEventLoop, domain: str, key: bytes) -> str | None:
        if key in self._keys:
            return self._keys[key]
        if domain not in (self.credentials_providers or self.certs):
            domain = '*'
        allowed, _ = loop.run_until_complete(self._authenticate_curve(domain, key))
        return self.curve_user_id(key) if allowed else None
