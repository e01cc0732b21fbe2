"""A delegate with jobs of every kind, and what they share with the tests across all processes."""

import asyncio
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time

from pyams_zmq.exceptions import ReplyError
from pyams_zmq.jobs import JobCancelled, job

fork = multiprocessing.get_context('fork')


class Gate:
    """Lets all pass once it is set; the death of a waiter would break a :class:`multiprocessing.Event`."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def set(self):
        os.write(self.writer, b'.')

    def wait(self, timeout):
        return bool(select.select([self.reader], [], [], timeout)[0])

    def clear(self):
        while self.wait(0):
            os.read(self.reader, 100)


#: Opens for the jobs that wait for it.
gate = Gate()

#: How many attempts of jobs have begun, and how many have cleaned up after themselves.
begun = fork.Semaphore(0)
cleaned = fork.Semaphore(0)


def reset():
    gate.clear()
    for semaphore in (begun, cleaned):
        while semaphore.acquire(block=False):
            pass


class Work:
    process = None

    @job
    def double(self, number, progress):
        return [200, 2 * number]

    @staticmethod
    @job
    def static(data):
        return data

    @job
    async def later(self, data):
        await asyncio.sleep(0)
        return [201, data]

    @job
    def frames(self, picture, data):
        return [200, [picture.hex(), data]]

    @job(retries=2, backoff=0.01)
    def fail(self, data):
        begun.release()
        raise ValueError(data)

    @job(retries=2, backoff=0.01)
    def decide(self, status):
        begun.release()
        raise ReplyError(status, 'decided')

    @job
    def decide_unfit(self, data):
        raise ReplyError(409, {1, 2})

    @job(keep=0)
    def brief(self, data):
        return [200, data]

    @job(retries=3, backoff=0.01)
    def recover(self, attempts, progress):
        if progress.attempt < attempts:
            raise ValueError('not yet')
        return [200, progress.attempt]

    @job
    def block(self, data, progress):
        begun.release()
        progress(1, 2, 'half')
        try:
            while not gate.wait(0.01):
                progress.check()
        finally:
            cleaned.release()
        return [200, data]

    @job
    def stubborn(self, data):
        begun.release()
        gate.wait(60)
        return [200, data]

    @job
    def careless(self, data, progress):
        begun.release()
        while True:
            time.sleep(0.01)
            try:
                progress.check()
            except JobCancelled:
                raise ValueError('anything else') from None

    @job
    def pid(self, data):
        return [200, [os.getpid(), self.process is not None]]

    @job(backoff=0.01)
    def die(self, how):
        begun.release()
        if how == 'exit':
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

    @job
    def leave(self, data):
        sys.exit(data)

    @job
    def copy(self, data):
        if os.fork() == 0:
            return [200, 'the copy']
        os.wait()
        return [200, 'the original']

    @job
    def unfit(self, data):
        return {1, 2}

    @job
    def status(self, status):
        return [status, 'body']

    @job
    def run(self, command):
        begun.release()
        try:
            subprocess.run(command, check=True)
        finally:
            cleaned.release()

    def plain(self, data):
        return [200, data]


class LimitedWork:
    process = None

    @job(timeout=0.2)
    def polite(self, data):
        begun.release()
        try:
            gate.wait(60)
        finally:
            cleaned.release()

    @job(timeout=0.2, retries=1, backoff=0.01)
    def rude(self, data):
        begun.release()
        while True:
            try:
                gate.wait(60)
            except BaseException:
                continue

    @job(timeout=0.2)
    def late(self, data):
        begun.release()
        try:
            gate.wait(60)
        except SystemExit:
            return [200, data]

    @job(timeout=60)
    def fast(self, data):
        return [200, data]
