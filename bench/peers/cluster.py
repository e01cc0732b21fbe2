"""A cluster of Dask's on this machine, of two workers with two threads each."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

# An attempt that has brought a worker down is over, so that attempts can be told apart.
_ENVIRONMENT = {'DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES': '0'}


@contextmanager
def running(executor: str) -> Iterator[str]:
    """Run a cluster where the executor is ``'dask'``; gives the setting for a process."""
    if executor != 'dask':
        yield executor
        return
    with socket.create_server(('127.0.0.1', 0)) as probe:
        host, port = probe.getsockname()
    url = f'tcp://{host}:{port}'
    with ExitStack() as stack:
        stack.enter_context(_script('scheduler', '--host', host, '--port', str(port)))
        _wait_for(host, port)
        for _ in range(2):
            stack.enter_context(_script('worker', url, '--nthreads', '2'))
        yield f'dask:{url}'


def _wait_for(host: str, port: int) -> None:
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection((host, port)):
            return
        time.sleep(0.1)


@contextmanager
def _script(kind: str, *arguments: str) -> Iterator[None]:
    command = [
        sys.executable,
        '-W',
        'ignore',
        '-m',
        f'distributed.cli.dask_{kind}',
        '--no-dashboard',
        *arguments,
    ]
    script = subprocess.Popen(command, env={**os.environ, **_ENVIRONMENT}, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        script.terminate()
        try:
            script.wait(5)
        except subprocess.TimeoutExpired:
            script.kill()
