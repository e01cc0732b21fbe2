"""A service under attack, and what it has to bear."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pyams_zmq.client import ZMQClient

MB = 1024 * 1024


@dataclass
class Target:
    """A running service.

    :param pid: id of its process
    :param endpoint: where it answers
    :param auth: ``'user:password'`` that it wants
    """

    pid: int
    endpoint: str
    auth: str | None = None

    def client(self, timeout=30.0):
        """An honest one."""
        return ZMQClient(self.endpoint, self.auth, timeout)


@contextmanager
def running(kind='pyams_zmq', python=sys.executable, script='service.py', **options):
    """Run a service in a process of its own; see :mod:`chaos.service`."""
    command = [python, Path(__file__).with_name(script), kind]
    command += [f'{name}={json.dumps(value)}' for name, value in options.items()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as script:
        target = Target(*json.loads(script.stdout.readline()), options.get('auth'))
        latency(target, 30)  # it is not bound at once
        yield target


def latency(service, timeout=30.0):
    """Call the service as a client that comes for the first time.

    :returns: seconds until the reply; None where none came in time
    """
    began = time.monotonic()
    with service.client(timeout) as client:
        reply = client.call('echo', 'served')
    return time.monotonic() - began if reply == (200, 'served') else None


def peak(pid):
    """Return the most bytes of memory that a process has had; what it has now, where no peak is kept."""
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except FileNotFoundError:
        return psutil.Process(pid).memory_info().rss
    (line,) = (line for line in status.splitlines() if line.startswith('VmHWM:'))
    return int(line.split()[1]) * 1024


@dataclass
class Outcome:
    """What an attack did to a service; times in seconds, None where no reply came; memory in bytes."""

    note: str
    #: A client that had been served before, at the attack's worst.
    known: float | None
    #: A client that came at the attack's worst.
    new: float | None
    #: A client that came when it was over.
    after: float | None
    growth: int

    @property
    def borne(self):
        """Whether all honest clients were served."""
        return None not in {self.known, self.new, self.after}


def endure(service, attack, number, timeout=30.0):
    """Attack a service, and call it meanwhile and afterwards."""
    before = psutil.Process(service.pid).memory_info().rss
    known = new = None
    with service.client(timeout) as client:
        client.call('echo', 'known')
        try:
            with attack.under_way(service, number) as note:
                began = time.monotonic()
                known = time.monotonic() - began if client.call('echo', 1) == (200, 1) else None
                new = latency(service, timeout)
        except AssertionError as error:
            note = f'not borne: {error}'
    after = latency(service, timeout)
    return Outcome(note, known, new, after, max(0, peak(service.pid) - before))
