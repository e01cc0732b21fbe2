"""Rounds: everybody has a turn in each, so that what disturbs the machine disturbs all alike."""

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .environments import ROOT
from .tables import Entrant, Table

#: Seconds that a measurement may take.
_PATIENCE = 120

#: What each round has measured: ``[column][entrant]``.
Results = dict[str, dict[str, list[dict[str, Any]]]]


def measure(table: Table, rounds: int, seconds: float, pythons: dict[str, Path]) -> Results:
    """Measure all that a table tells.

    :param seconds: that each measurement takes
    :param pythons: the interpreters of the environments; entrants without one are left out
    """
    entrants = [entrant for entrant in table.entrants if entrant.environment in pythons]
    results: Results = {column: {entrant.name: [] for entrant in entrants} for column in table.columns}
    with ExitStack() as stack:
        sides = [
            (entrant, *stack.enter_context(_both_sides(entrant, pythons[entrant.environment])))
            for entrant in entrants
        ]
        for column, arguments in table.columns.items():
            for number in range(-1, rounds):
                shift = number % len(sides)
                for entrant, driver, port in sides[shift:] + sides[:shift]:
                    task = {'do': table.do, 'seconds': seconds, 'client': entrant.client, **arguments}
                    measured = _ask(driver, {'port': port, **task})
                    if number >= 0:  # the round before all is to warm up
                        results[column][entrant.name].append(measured)
    return results


@contextmanager
def _both_sides(entrant: Entrant, python: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a service, where the entrant has one, and what drives its clients."""
    with ExitStack() as stack:
        port = free_port()
        if entrant.service is not None:
            stack.enter_context(serving(entrant, python, port))
        yield stack.enter_context(_running(python, entrant.module, 'drive')), port


@contextmanager
def serving(entrant: Entrant, python: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the service of an entrant."""
    arguments = 'serve', str(port), json.dumps(entrant.service)
    with _running(python, entrant.module, *arguments) as process:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', port)):
                break
            time.sleep(0.02)
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


def _ask(driver: subprocess.Popen[str], task: dict[str, Any]) -> dict[str, Any]:
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(json.dumps(task) + '\n')
    driver.stdin.flush()
    if not select.select([driver.stdout], [], [], _PATIENCE)[0]:
        raise TimeoutError(f'no result of {driver.args!r} for {task}')
    measured: dict[str, Any] = json.loads(driver.stdout.readline())
    return measured
