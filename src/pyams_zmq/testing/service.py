"""A process without a process: its parts, run in the thread of whoever waits for a reply."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import zmq
import zmq.asyncio
from pyramid.threadlocal import manager
from tornado.platform.asyncio import AsyncIOLoop

from ..jobs.executor import JobExecutor
from ..jobs.journal import Journal
from ..jobs.progress import Progress, Report
from ..jobs.runner import Runner
from ..jobs.work import Outcome, Task, perform
from ..process import ZMQProcess
from ..wire import Reply

_ADDRESS = 'inproc://service'

#: Seconds between two looks whether jobs have ended.
_TURN = 0.001


class Service:
    """What a :class:`~pyams_zmq.process.ZMQProcess` consists of while it runs.

    :param process: what it is made after; it becomes a part of it
    :raises ValueError: where the process does not reply to requests
    """

    def __init__(self, process: ZMQProcess) -> None:
        if process.socket_type != zmq.REP:
            raise ValueError(f'{process.name} has no socket of type REP; only such a process can have a stub')
        self.name = process.name
        #: What is replied where the process does not run any more; None while it runs.
        self.undelivered: Reply | None = None
        self._registry = process.registry
        # One call at a time, as the loop can be run by one thread only.
        self._lock = threading.Lock()
        self._context = process.context = zmq.Context(0)
        self._loop = process.loop = AsyncIOLoop(make_current=False)
        self._jobs = process.jobs = _make_jobs(process)
        if process.workers:
            process.pool = _Here()  # type: ignore[assignment]
        process.stop = self.stop  # type: ignore[method-assign]
        self._stream, _ = process.stream(zmq.REP, _ADDRESS, bind=True)
        process.rep_stream = self._stream
        self.handler = process.handler(process, self._stream, self.stop)
        self._stream.on_recv(self.handler)
        if self._jobs is not None:
            self._jobs.types = {name: replace(one, backoff=0) for name, one in self._jobs.types.items()}
            self._loop.add_callback(self._jobs.start)

    def exchange(self, payload: bytes, seconds: float) -> Reply:
        """Send a message and wait for the reply, and for the jobs that it makes.

        :param seconds: that the reply may take
        """
        nobody = Reply.undelivered(504, f'No answer within {seconds:g} s')
        if not self._lock.acquire(timeout=seconds):
            return nobody
        if self._registry is not None:
            manager.push({'registry': self._registry, 'request': None})
        try:
            self._stream.moved()
            frames = self._run(self._exchange(payload, seconds))
        except asyncio.TimeoutError:
            return nobody
        finally:
            if self._registry is not None:
                manager.pop()
            self._lock.release()
        if len(frames) != 1:
            raise ValueError(f'The reply has {len(frames)} frames, not one of JSON')
        return Reply.received(frames[0])

    async def _exchange(self, payload: bytes, seconds: float) -> list[bytes]:
        with zmq.asyncio.Context.shadow(self._context).socket(zmq.REQ) as caller:
            caller.linger = 0
            caller.connect(_ADDRESS)
            await caller.send(payload)
            frames = await asyncio.wait_for(caller.recv_multipart(), seconds)
        while self._jobs is not None and self._has_work(self._jobs):
            await asyncio.sleep(_TURN)
        return frames

    @staticmethod
    def _has_work(jobs: Runner) -> bool:
        # The journal's thread knows first that a job is claimed, the runner knows last that it has ended.
        counts = jobs.status()
        return bool(counts['queued'] or counts['running'] or jobs.running)

    def _run(self, coroutine: Any) -> Any:
        with _outside_loops():  # a delegate may call the stub of another process
            return self._loop.asyncio_loop.run_until_complete(coroutine)

    def stop(self) -> None:
        """What the process's ``stop`` does: the reply to the message under way is the last one."""
        self.undelivered = Reply.undelivered(503, 'Nobody there: it was stopped')

    def close(self) -> None:
        """End."""
        self.stop()
        if self._jobs is not None:
            self._run(self._jobs.drain())
            self._jobs.close()
        self._stream.close(0)
        self._context.term()
        self._loop.close()


@contextmanager
def _outside_loops() -> Iterator[None]:
    """Be as in a thread without a running loop, of which asyncio allows only one."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


class _Here(Executor):
    """Does things at once, in the thread that asks for them."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> 'Future[Any]':
        future: Future[Any] = Future()
        with _outside_loops():
            future.set_result(function(*args, **kwargs))
        return future


class _JobsHere(JobExecutor):
    """Runs jobs at once."""

    slots = 1
    local = True

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        return _Here().submit(
            perform, task, Progress(task.id, task.type, task.attempt, report, lambda: False)
        )

    def cancel(self, job: str) -> None:
        """Do nothing: it has ended."""

    def close(self) -> None:
        """Do nothing."""


def _make_jobs(process: ZMQProcess) -> Runner | None:
    if process.journal is None:
        return None
    return Runner(
        Journal(':memory:'), _JobsHere(), process.max_pending, process.max_interruptions, process.max_kept
    )
