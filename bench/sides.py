"""The two sides of an entrant, its service and what drives its clients: a process each."""

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .entrants import Entrant
from .environments import ROOT

#: Seconds that a measurement may take.
_PATIENCE = 120


@contextmanager
def serving(entrant: Entrant, python: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the service of an entrant."""
    arguments = 'serve', str(port), json.dumps(entrant.service)
    with _running(python, entrant.module, *arguments) as process:
        while process.poll() is None:
            with suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', port)):
                break
            time.sleep(0.02)
        yield process


@contextmanager
def driving(entrant: Entrant, python: Path) -> Iterator[subprocess.Popen[str]]:
    """Run what drives the clients of an entrant."""
    with _running(python, entrant.module, 'drive') as process:
        yield process


def environment() -> dict[str, str]:
    """Return the environment variables of what is measured: byte code is kept, as in any installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}


@contextmanager
def _running(python: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(python), '-W', 'ignore', '-m', 'bench.peers', *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


def ask(driver: subprocess.Popen[str], task: dict[str, Any]) -> dict[str, Any]:
    """Have a driver do something, and return what it has measured."""
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(json.dumps(task) + '\n')
    driver.stdin.flush()
    if not select.select([driver.stdout], [], [], _PATIENCE)[0]:
        raise TimeoutError(f'no result of {driver.args!r} for {task}')
    measured: dict[str, Any] = json.loads(driver.stdout.readline())
    return measured
