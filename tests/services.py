"""Delegates, handlers and processes that several tests use."""

import asyncio
import os
import threading
import time
from contextlib import contextmanager

from pyams_zmq.exceptions import ReplyError
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess


class Echo:
    """A delegate as users write it, with all that can go wrong in one."""

    process = None
    attribute = 'not callable'

    def echo(self, data):
        return [200, data]

    @staticmethod
    def static(data):
        return [200, data]

    async def later(self, data):
        await asyncio.sleep(data or 0)
        return [200, data]

    def nothing(self, data):
        pass

    def slow(self, seconds):
        time.sleep(seconds)
        return [200, os.getpid()]

    def fail(self, data):
        raise ValueError(data)

    def refuse(self, data):
        raise ReplyError(409, {'conflict': data})

    def unfit(self, data):
        return {1, 2}

    def thread(self, data):
        return [200, threading.current_thread().name]

    def stop(self, data):
        self.process.stop()
        return [200, 'stopping']

    def _private(self, data):
        return [200, 'never']


class EchoHandler(ZMQMessageHandler):
    handler = Echo


class Process(ZMQProcess):
    """Ends soon when it is asked to."""

    stop_timeout = 5.0


@contextmanager
def running(process):
    """Start a process for as long as a module's tests take; it has its ``endpoint``."""
    process.start()
    process.endpoint = process.wait_ready(30)
    yield process
    process.stop()
    process.join(30)
