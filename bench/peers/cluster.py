"""A cluster of Dask's on this machine, of two workers with two threads each."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# An attempt that has brought a worker down is over, so that attempts can be told apart.
_ENVIRONMENT = {'DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES': '0'}


@contextmanager
def running(executor: str) -> Iterator[str]:
    """Run a cluster where the executor is ``'dask'``; gives the setting for a process."""
    if executor != 'dask':
        yield executor
        return
    with socket.create_server(('127.0.0.1', 0)) as probe:
        url = f'tcp://127.0.0.1:{probe.getsockname()[1]}'
    with ExitStack() as stack:
        stack.enter_context(_script('scheduler', '--host', '127.0.0.1', '--port', url.rpartition(':')[2]))
        for _ in range(2):
            stack.enter_context(_script('worker', url, '--nthreads', '2'))
        yield f'dask:{url}'


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
