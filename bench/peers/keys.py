"""Keys for encrypted connections, which the service and the clients of a benchmark share."""

import tempfile
from pathlib import Path

from pyams_zmq.curve import make_keys


def _folder() -> Path:
    # For the time of the benchmark: see bench.__main__.
    return Path(tempfile.gettempdir(), 'pyams_zmq-bench-keys')


def of_service() -> dict[str, Path]:
    """Options of a process, whose keys are made where they are missing."""
    server, clients = _folder() / 'server', _folder() / 'clients'
    if not clients.is_dir():
        clients.mkdir(0o700, parents=True)
        make_keys(server)
        make_keys(clients / 'client')
    return {'curve_secret_key': server.with_name('server.key_secret'), 'curve_clients': clients}


def of_client() -> tuple[Path, Path]:
    """The public key of the process, and a client's secret one."""
    return _folder() / 'server.key', _folder() / 'clients' / 'client.key_secret'
