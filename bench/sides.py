"""The two sides of an entrant, its service and what drives its clients: a process each."""

import json
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from .entrants import Entrant
from .environments import ROOT

#: Seconds that a measurement may take.
_PATIENCE = 120


class Sides:
    """Both, while they run; a context manager.

    :param python: the interpreter of the entrant's environment
    """

    #: None where the entrant has none.
    service: subprocess.Popen[str] | None = None

    def __init__(self, entrant: Entrant, python: Path) -> None:
        self._entrant = entrant
        self._command = [str(python), '-W', 'ignore', '-m', 'bench.peers', entrant.module]
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self._port = probe.getsockname()[1]

    def __enter__(self) -> 'Sides':
        with ExitStack() as stack:
            # What the peers have to say is of interest where they end.
            self._log = stack.enter_context(tempfile.TemporaryFile('w+'))
            if self._entrant.service is not None:
                options = json.dumps(self._entrant.service)
                self.service = stack.enter_context(self._running('serve', str(self._port), options))
                self._wait_for(self.service)
            self._driver = stack.enter_context(self._running('drive'))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @contextmanager
    def _running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
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

    def _wait_for(self, service: subprocess.Popen[str]) -> None:
        while service.poll() is None:
            with suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', self._port)):
                return
            time.sleep(0.02)
        self._log.seek(0)
        raise RuntimeError(f'{self._entrant.name} has ended: {self._log.read()[-1000:]}')

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """Have the driver do something.

        :returns: what it has measured, and ``cpu``: the seconds of processor time that the service took for a
            call, those for connections included
        :raises TimeoutError: where it takes too long
        """
        before = self._processor_time()
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps({'port': self._port, **task}) + '\n')
        self._driver.stdin.flush()
        if not select.select([self._driver.stdout], [], [], _PATIENCE)[0]:
            raise TimeoutError(f'no result of {self._command} for {task}')
        measured: dict[str, Any] = json.loads(self._driver.stdout.readline())
        if 'calls' in measured:
            measured['cpu'] = (self._processor_time() - before) / measured['calls']
        return measured

    def _processor_time(self) -> float:
        if self.service is None:
            return 0.0
        times = psutil.Process(self.service.pid).cpu_times()
        return float(times.user + times.system)


def environment() -> dict[str, str]:
    """Return the environment variables of what is measured: byte code is kept, as in any installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
