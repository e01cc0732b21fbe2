"""A declared process: what the application, its settings and its commands know of it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from .address import connectable
from .client import ZMQClient
from .credentials import Passwords, parse_auth, read_passwords
from .curve import ClientKeys, read_public, read_secret, read_server_keys
from .exceptions import SettingError
from .interfaces import IZMQDeclarations
from .limits import MAX_MESSAGE_SIZE
from .rundir import RunDir
from .security import parse_clients
from .settings import OPTIONS, check_name, nearest, read_global, read_options
from .supervisor import Supervisor

if TYPE_CHECKING:
    from .process import ZMQProcess

#: Options that tell what clients present, by the mechanism; those of auth and auth_file are the same one.
_MECHANISMS = (
    ('auth',),
    ('auth_file',),
    ('curve_secret_key', 'curve_clients', 'curve_server_key', 'curve_key'),
)
_CREDENTIALS = ('auth', 'auth_file', 'curve_secret_key', 'curve_server_key', 'curve_key')


class Declaration:
    """A process as :func:`~pyams_zmq.include.add_zmq_process` and the settings tell of it.

    :param name: its name
    :param settings: those of the application, which win over what is given in code
    :param given: options given in code
    :param source: what the application is built from, where the settings do not tell
    :raises SettingError: where an option is unknown or makes no sense
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> None:
        self.name = check_name(name)
        #: The options that are set, by name; see the table of settings.
        self.options = read_options(settings, name, given)
        #: What the application is built anew from: path of an ``.ini`` file, or a dotted name; None: unknown.
        self.source: str | None = self.options.get('app') or read_global(settings, 'ini') or source
        for option, parse in (('auth', parse_auth), ('clients', parse_clients)):
            try:
                parse(self.options.get(option))
            except ValueError as error:
                raise SettingError(f'pyams_zmq.{name}.{option}: {error}') from None
        chosen = [next((one for one in ways if one in self.options), None) for ways in _MECHANISMS]
        names = [one for one in chosen if one is not None]
        if len(names) > 1:
            raise SettingError(f'pyams_zmq.{name}: give only one of {", ".join(names)}')
        self._run_dir = read_global(settings, 'run_dir')
        self._client: ZMQClient | None = None
        self._supervisor: Supervisor | None = None

    @property
    def run_dir(self) -> RunDir:
        """The process's folder.

        :raises SettingError: where it is not known what the application is built from
        """
        if self.source is None:
            raise SettingError(
                f'It is not known what the process {self.name!r} is built from: set'
                ' "pyams_zmq.ini = %(__file__)s" in the .ini file, or app=\'package.module:factory\' where'
                f' there is none; or "pyams_zmq.{self.name}.start = false" where it is not to be started'
            )
        return RunDir(self.source, self.name, self._run_dir)

    @property
    def public_options(self) -> dict[str, Any]:
        """The options that are set, without those that are secret."""
        return {name: value for name, value in self.options.items() if not OPTIONS[name].secret}

    @property
    def start(self) -> str | None:
        """When the process is started: with the first ``'request'``, with the ``'app'``, or never (None)."""
        return self.options.get('start', 'request')  # type: ignore[no-any-return]

    @property
    def address(self) -> str:
        """Where the process listens; by default an ipc socket in its folder.

        :raises SettingError: where that cannot be told
        """
        return self.options.get('address') or f'ipc://{self.run_dir.socket}'

    def supervise(self) -> None:
        """Let this web worker see to it that the process is there, once :meth:`ensure_started` is called.

        :raises SettingError: where the process could not be started
        """
        self._handler()
        run_dir = self.run_dir
        # Or there is an error now, and not with the first call.
        connectable(self.address)
        self._read_credentials()
        with self._named():
            read_server_keys(self.options.get('curve_secret_key'), self.options.get('curve_clients'))
        path = str(self.source).partition('#')[0]
        if path.endswith('.ini') and not Path(path).is_file():
            raise SettingError(f'pyams_zmq.ini: there is no file {path}')
        command = [get_executable(), *_path_options(), '-m', 'pyams_zmq', 'run', str(self.source), self.name]
        self._supervisor = Supervisor(self.name, run_dir, command, self.options.get('max_crashes', 5))

    def ensure_started(self) -> None:
        """Start the process where it is this application's to do so; returns at once."""
        if self._supervisor is not None:
            self._supervisor.start()

    @property
    def problem(self) -> str | None:
        """Why there will be no process; None where there is nothing to complain about."""
        return None if self._supervisor is None else self._supervisor.problem

    @property
    def client(self) -> ZMQClient:
        """The client that all requests share, made when it is first asked for."""
        client = self._client
        if client is None:
            # Two threads may come here at once; a lock might be held for ever in a forked process.
            options = self.options
            if 'address' not in options:
                self.run_dir.claim()
            address = connectable(self.address)
            passwords, keys = self._read_credentials()
            client = self._client = ZMQClient(
                address,
                passwords,
                options.get('timeout', 10),
                curve=keys,
                max_message_size=options.get('max_message_size', MAX_MESSAGE_SIZE),
            )
        return client

    def _read_credentials(self) -> tuple[Passwords | None, ClientKeys | None]:
        """What this application presents as a client: passwords, the first of which is its own; or keys.

        :raises SettingError: where a file cannot be read
        """
        auth, file, *keys = (self.options.get(name) for name in _CREDENTIALS)
        with self._named():
            passwords = parse_auth(auth) if file is None else read_passwords(file)
            return passwords, _client_keys(*keys)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors tell which process it is."""
        try:
            yield
        except ValueError as error:
            raise SettingError(f'pyams_zmq.{self.name}: {error}') from None

    def replace_client(self, client: ZMQClient) -> None:
        """Let another client speak for the process, which is not started then: for tests."""
        self._client = client
        self._supervisor = None
        self.options['start'] = None

    def make_process(self, registry: Any, address: str | None = None) -> 'ZMQProcess':
        """Make the process, which is not started yet.

        :param registry: the Pyramid registry that it will have
        :param address: where it listens; None: where the settings tell
        :raises SettingError: where an option makes no sense to it
        """
        from .process import ZMQProcess  # noqa: PLC0415 (a health check need not wait for it)

        options = self.options
        cls = options.get('process', ZMQProcess)
        values = {name: value for name, value in options.items() if OPTIONS[name].of_process}
        if cls is ZMQProcess:
            values.setdefault('workers', 1)  # so that it answers while a method runs
        address = address or self.address
        arguments = address, self._handler(), options.get('auth'), options.get('clients'), registry
        with self._named():
            process: ZMQProcess = cls(*arguments)
            process.configure(**values)
            process.check_jobs(arguments[1].handler)
        process.name = self.name
        return process

    def _handler(self) -> Any:
        from .handler import ZMQMessageHandler  # noqa: PLC0415 (likewise)

        handler = self.options.get('handler', ZMQMessageHandler)
        delegate = self.options.get('delegate', handler.handler)
        if delegate is None:
            raise SettingError(
                f'The process {self.name!r} has no delegate: give one to add_zmq_process, or set'
                f' pyams_zmq.{self.name}.delegate = package.module.Class'
            )
        return type(handler.__name__, (handler,), {'handler': delegate, '__module__': handler.__module__})

    def __repr__(self) -> str:
        return f'<Declaration {self.name}>'


def _path_options() -> list[str]:
    """Let the process not look for modules in the working directory, unless this one does, too.

    Else whoever may write there could have it run anything: ``-m`` would look there first.
    """
    here = {''}
    with suppress(OSError):  # it may have been removed
        here.add(str(Path.cwd()))
    # Python 3.10 has no such option.
    return ['-P'] if sys.version_info >= (3, 11) and not here & set(sys.path) else []


def _client_keys(secret: str | None, server: str | None, own: str | None) -> ClientKeys | None:
    """Read the keys of a client; where it has that of the process itself, it knows its public one."""
    if secret is None and server is None and own is None:
        return None
    if own is None or (server is None and secret is None):
        raise SettingError(
            'clients need curve_key, the secret key of this application, and curve_server_key, the public one'
            ' of the process'
        )
    public = read_secret(secret).public if server is None else read_public(server)  # type: ignore[arg-type]
    return ClientKeys(public, read_secret(own))


@implementer(IZMQDeclarations)
class Declarations(dict[str, Declaration]):
    """The processes of an application by their names."""

    def find(self, name: str) -> Declaration:
        """Return a process.

        :raises SettingError: where there is none of that name
        """
        if name not in self:
            raise SettingError(f'no process {name!r} is declared{nearest(name, self)}')
        return self[name]


def declarations(registry: Any) -> Declarations:
    """Return the processes that are declared in an application.

    :param registry: its Pyramid registry
    """
    found: Declarations | None = registry.queryUtility(IZMQDeclarations)
    if found is None:
        found = Declarations()
        registry.registerUtility(found, IZMQDeclarations)
    return found
