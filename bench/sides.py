"""The two sides of an entrant, its service and what drives its clients: a process each."""

import json
import os
import select
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from .entrants import Entrant
from .environments import ROOT

#: Seconds that a measurement may take.
_PATIENCE = 120


class Sides:
    """Runs both; a context manager.

    :param python: the interpreter of the entrant's environment
    """

    def __init__(self, entrant: Entrant, python: Path) -> None:
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self._port = probe.getsockname()[1]
        self._command = [str(python), '-W', 'ignore', '-m', 'bench.peers', entrant.module]
        #: None where the entrant has none.
        self.service: psutil.Popen | None = None
        if entrant.service is not None:
            self.service = self._run('serve', str(self._port), json.dumps(entrant.service))
            self._wait_for(self.service)
        self._driver = self._run('drive')

    def _run(self, *arguments: str) -> psutil.Popen:
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
        return psutil.Popen([*self._command, *arguments], cwd=ROOT, env=environment(), **pipes)

    def _wait_for(self, service: psutil.Popen) -> None:
        while service.poll() is None:
            with suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', self._port)):
                return
            time.sleep(0.02)
        service.communicate()
        raise RuntimeError(f'{self._command} has ended')

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """Have the driver do something.

        :returns: what it has measured, and ``cpu``: the seconds of processor time that the service took for a
            call, those for connections included
        :raises TimeoutError: where it takes too long
        """
        before = self._processor_time()
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
        times = self.service.cpu_times()
        return float(times.user + times.system)

    def __enter__(self) -> 'Sides':
        return self

    def __exit__(self, *_error: object) -> None:
        for process in (self._driver, self.service):
            if process is not None:
                process.terminate()
                try:
                    process.communicate(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()


def environment() -> dict[str, str]:
    """Return the environment variables of what is measured: byte code is kept, as in any installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
