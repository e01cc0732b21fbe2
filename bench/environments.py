"""An environment for each peer, in a folder that is not tracked."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Where the environments are.
FOLDER = ROOT / '.bench'

#: What is installed for each peer.
REQUIREMENTS = {
    'pyams': ['--editable', str(ROOT)],
    'released': ['pyams_zmq==2.0.0'],
    'zerorpc': ['zerorpc'],
    'rpyc': ['rpyc'],
    'pyro5': ['Pyro5'],
    'xmlrpc': [],
    'huey': ['huey'],
    'dask': ['--editable', f'{ROOT}[dask]'],
}


def python_of(name: str) -> Path:
    """Return the interpreter of an environment."""
    return FOLDER / name / 'bin' / 'python'


def set_up(name: str) -> None:
    """Make an environment, unless it is there."""
    wanted = hashlib.sha256(repr(REQUIREMENTS[name]).encode())
    if name in ('pyams', 'dask'):
        wanted.update((ROOT / 'pyproject.toml').read_bytes())
    stamp = FOLDER / name / 'installed'
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        return
    print(f'Installing {name} …', flush=True)
    python = str(python_of(name))
    _run(sys.executable, '-m', 'venv', '--clear', str(FOLDER / name))
    if REQUIREMENTS[name]:
        pip = ('-m', 'pip', 'install', '--quiet', '--disable-pip-version-check')
        _run(python, *pip, *REQUIREMENTS[name])
    stamp.write_text(wanted.hexdigest())


def installed(python: Path) -> dict[str, str]:
    """Return the distributions of an environment with their versions, without what each has."""
    code = 'import importlib.metadata as m; print(*(f"{d.name}={d.version}" for d in m.distributions()))'
    found = dict(one.split('=', 1) for one in _run(str(python), '-c', code).split())
    return {name: version for name, version in found.items() if name not in ('pip', 'setuptools')}


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
