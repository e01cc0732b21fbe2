"""What takes part in the tests of the life cycle: gates, a delegate that waits at them, processes."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import zmq
from pyramid.threadlocal import get_current_registry

from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from services import Echo

# Nobody waits longer than a test takes, even where the test has died.
PATIENCE = 60.0


class Gate:
    """A file that is there while somebody waits at the gate; removed, it lets them through."""

    def __init__(self, path):
        self.path = Path(path)

    def __str__(self):
        return str(self.path)

    @property
    def reached(self):
        return self.path.exists()

    def open(self):
        self.path.unlink()

    def wait(self, pause=0.005):
        self.path.touch()
        end = time.monotonic() + PATIENCE
        while self.path.exists() and time.monotonic() < end:
            if pause is not None:
                time.sleep(pause)

    async def wait_async(self):
        self.path.touch()
        while self.path.exists():
            await asyncio.sleep(0.005)


def _leave_a_mark(gate, mark):
    Gate(gate).wait()
    Path(mark).touch()


def _tell_how_it_ends(gate, mark):
    """In a grandchild: wait, and write down what ended the wait."""
    try:
        Gate(gate).wait()
        end = 'released'
    except KeyboardInterrupt:
        end = 'KeyboardInterrupt'
    Path(mark).write_text(end)


class Actor(Echo):
    """Methods that wait, and methods that start what waits; they tell the process ids."""

    def hold(self, gate):
        Gate(gate).wait()
        return [200, 'done']

    def busy(self, gate):
        Gate(gate).wait(pause=None)
        return [200, 'done']

    async def hold_async(self, gate):
        await Gate(gate).wait_async()
        return [200, 'done']

    def sleep(self, data):
        gate, seconds = data
        Path(gate).touch()
        time.sleep(seconds)
        return [200, 'done']

    def shout(self, gate):
        """Log to a pipe that nobody reads, until that blocks."""
        Path(gate).touch()
        while True:
            logging.getLogger('actor').error('x' * 1000)

    def use_up_descriptors(self, gate):
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        Path(gate).touch()
        with contextlib.suppress(OSError):
            while True:
                os.dup(0)
        while Path(gate).exists():
            time.sleep(0.005)
        return [200, 'done']

    def stop_from_thread(self, data):
        thread = threading.Thread(target=self.process.stop)
        thread.start()
        thread.join()
        return [200, 'stopping']

    def stop_from_timer(self, data):
        self.process.loop.call_later(0.01, self.process.stop)
        return [200, 'stopping']

    def exit(self, data):
        self.process.exit()
        return [200, 'stopping']

    def registry_name(self, data):
        return [200, getattr(get_current_registry(), 'package_name', None)]

    def start_method(self, data):
        return [200, type(self.process._popen).__name__, multiprocessing.get_start_method()]

    # What outlives the method

    def thread_with_gate(self, data):
        threading.Thread(target=_leave_a_mark, args=data).start()
        return [200, 'started']

    def child(self, data):
        return [200, self._child(*data)]

    def child_from_thread(self, data):
        """An index update: a thread which starts a process when it has waited."""
        first, gate, mark = data

        def update():
            Gate(first).wait()
            child = multiprocessing.get_context('fork').Process(target=_leave_a_mark, args=(gate, mark))
            child.start()
            child.join()

        threading.Thread(target=update).start()
        return [200, 'started']

    def stubborn_child(self, gate):
        """A grandchild which does not listen to SIGTERM."""

        def ignore():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Gate(gate).wait()

        child = multiprocessing.get_context('fork').Process(target=ignore)
        child.start()
        return [200, child.pid]

    async def child_async(self, data):
        return [200, self._child(*data)]

    def _child(self, kind, gate, mark):
        if kind == 'subprocess':
            code = f'import sys; sys.path[:] = {sys.path!r}; from parents import actors as a;'
            command = f'{code} a._tell_how_it_ends({gate!r}, {mark!r})'
            self.popen = subprocess.Popen([sys.executable, '-c', command])
            return self.popen.pid
        if kind == 'os.fork':
            pid = os.fork()
            if pid == 0:
                _tell_how_it_ends(gate, mark)
                os._exit(0)
            return pid
        context = multiprocessing.get_context(kind)
        self.grandchild = context.Process(target=_tell_how_it_ends, args=(gate, mark))
        self.grandchild.start()
        return self.grandchild.pid

    def end_of_child(self, kind):
        """Wait for the grandchild; returns its exit code as multiprocessing gives it."""
        if kind == 'subprocess':
            return [200, self.popen.wait()]
        if kind == 'os.fork':
            return [200, os.waitstatus_to_exitcode(os.wait()[1])]
        self.grandchild.join()
        return [200, self.grandchild.exitcode]

    def terminate_child(self, data):
        self.grandchild.terminate()
        self.grandchild.join()
        return [200, self.grandchild.exitcode]


class ActorHandler(ZMQMessageHandler):
    handler = Actor


class Service(ZMQProcess):
    """A process for the scripts, which ends soon when it is asked to."""

    stop_timeout = 1.0


class ServiceWithWorkers(Service):
    workers = 2


class LateService(Service):
    """Does work of its own before it serves, as a consumer's does."""

    def run(self):
        Gate(os.environ['GATE']).wait()
        super().run()


class SlowSetup(Service):
    """Takes its time in set-up, before and after it is bound."""

    stop_timeout = 30.0

    def setup(self):
        Gate(os.environ['GATE']).wait()
        super().setup()

    def init_stream(self):
        super().init_stream()
        Gate(os.environ['GATE_BOUND']).wait()


class TwoSockets(Service):
    """Has a second bound socket."""

    def init_stream(self):
        super().init_stream()
        self.stream(zmq.PULL, os.environ['SECOND'], True, callback=print)


class Spawned(Service):
    start_method = 'spawn'


class Forkserved(Service):
    start_method = 'forkserver'
