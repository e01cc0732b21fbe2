"""``zmq`` in the shell: ``[pshell] setup = pyams_zmq.pshell.setup``."""

from typing import Any

from .calls import RequestClient
from .declaration import Declarations, declarations
from .exceptions import SettingError


class Processes:
    """The background processes: zmq('medias').call('convert', {…}), zmq.start('medias')

    Unlike ``request.zmq`` it starts none by itself.

    :param request: the request of the shell
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    @property
    def _known(self) -> Declarations:
        return declarations(self._request.registry)

    def __call__(self, name: str) -> RequestClient:
        """Return the client of a process, as ``request.zmq`` does.

        :param name: name of the process, as it is declared
        :raises SettingError: where none is declared under that name
        """
        return RequestClient(self._known.find(name), self._request)

    def start(self, name: str) -> None:
        """Start a process where there is none; it ends with the shell, unless a web worker uses it then.

        It returns at once. The first call waits for the process, as long as its timeout allows.

        :param name: name of the process, as it is declared
        :raises SettingError: where none is declared under that name, or is not this application's to start
        """
        declaration = self._known.find(name)
        if declaration.start is None:
            raise SettingError(
                f'pyams_zmq.{name}.start is false, so this application does not start it; pyams_zmq run does'
            )
        declaration.ensure_started()

    def __repr__(self) -> str:
        return f'<background processes: {", ".join(sorted(self._known)) or "none"}>'


def setup(env: dict[str, Any]) -> None:
    """Add ``zmq`` to what the shell knows.

    :param env: the names that the shell knows, ``request`` among them
    """
    env['zmq'] = Processes(env['request'])
