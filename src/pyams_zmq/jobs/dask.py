"""``dask:tcp://scheduler:8786``: jobs on a cluster of Dask's.

What a job tells goes to the process as an event, by way of the scheduler; that it is not wanted goes to
its worker as a function to run there. Nothing has to reach anything but the scheduler.
"""

import logging
import pickle
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from typing import Any

from distributed import Client, KilledWorker, get_worker

from ..wire import error_text
from .elsewhere import pack, perform_packed
from .executor import ExecutorError, JobExecutor
from .progress import Report
from .work import Outcome, Task

logger = logging.getLogger(__name__)

#: Seconds that the scheduler may take to answer.
_PATIENCE = 5.0

#: Seconds between two looks at how many threads the workers have.
_LOOK = 1.0

#: Seconds between two reports of a job; the last one of that time is told.
_PERIOD = 0.1


class _Call:
    """A running job as the process sees it."""

    def __init__(self, job: str, report: Callable[[Report], Any]) -> None:
        self.job = job
        self.report = report
        self.future: Future[Outcome] = Future()
        self.cancelled = False
        #: The address of what runs it; None where that is not known yet.
        self.worker: str | None = None


class Dask(JobExecutor):
    """Runs jobs on the workers of a scheduler, as many at once as they have threads.

    :param address: of the scheduler
    :raises ExecutorError: where it cannot be reached
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._topic = f'pyams_zmq-{uuid.uuid4().hex}'
        self._calls: dict[str, _Call] = {}
        self._keys: dict[str, str] = {}
        self._closing = threading.Event()
        self._client = self._connect()
        self._look()
        self._keeper = threading.Thread(target=self._keep, name='pyams_zmq-dask', daemon=True)
        self._keeper.start()

    def _connect(self) -> Client:
        try:
            client = Client(self._address, timeout=_PATIENCE, set_as_default=False, name='pyams_zmq')
        except Exception as error:
            raise ExecutorError(
                f'the Dask scheduler {self._address} cannot be reached: {error_text(error)}'
            ) from error
        client.subscribe_topic(self._topic, self._told)
        return client

    def _keep(self) -> None:
        while not self._closing.wait(_LOOK):
            try:
                if self._client.status != 'running':
                    self._drop()
                    self._client = self._connect()
                    logger.warning('The Dask scheduler %s is there again', self._address)
                self._look()
            except Exception as error:
                if self.slots:
                    logger.error('Jobs wait: %s', error_text(error))  # noqa: TRY400
                self.slots = 0

    def _look(self) -> None:
        before, threads = self.slots, self._client.nthreads(callback_timeout=_PATIENCE)
        self.slots = sum(threads.values())
        if self.slots > before:
            self.on_change()
        elif before and not self.slots:
            logger.warning('Jobs wait, since the Dask scheduler %s has no workers', self._address)

    def _drop(self) -> None:
        with suppress(Exception):
            self._client.close(timeout=_PATIENCE)
        for key in list(self._calls):  # of which the client may say nothing any more
            self._end(key, self._lost('the connection was closed'))

    def _lost(self, reason: str) -> ExecutorError:
        return ExecutorError(f'the Dask scheduler {self._address} was lost: {reason}')

    def submit(self, task: Task, report: Callable[[Report], Any]) -> 'Future[Outcome]':
        key = f'{task.type}-{uuid.uuid4().hex}'  # what Dask's own pages show as its type
        call = self._calls[key] = _Call(task.id, report)
        self._keys[task.id] = key
        try:
            pool = self._client.get_executor(pure=False, retries=0)
            # One argument of bytes: in a text Dask would look for keys.
            inner = pool.submit(_run, pickle.dumps((self._topic, pack(task))), key=key)
        except Exception as error:
            self._end(key, self._lost(error_text(error)))
        else:
            inner.add_done_callback(lambda ended: self._take(key, ended))
        return call.future

    def _take(self, key: str, ended: 'Future[Any]') -> None:
        try:
            self._end(key, ended.result())
        except KilledWorker as error:
            self._end(key, BrokenExecutor(f'{error.allowed_failures + 1} workers died'))
        except (CancelledError, OSError) as error:
            self._end(key, self._lost(error_text(error)))
        except Exception as error:
            self._end(key, error)

    def _end(self, key: str, outcome: Outcome | Exception) -> None:
        """End a call, unless that was done before."""
        call = self._calls.pop(key, None)
        if call is None:
            return
        if self._keys[call.job] == key:
            del self._keys[call.job]
        if isinstance(outcome, Exception):
            call.future.set_exception(outcome)
        else:
            call.future.set_result(outcome)

    def _told(self, event: tuple[float, dict[str, Any]]) -> None:
        """Called with each event, in the client's thread."""
        _, message = event
        call = self._calls.get(message['key'])
        if call is None:
            return
        if 'report' in message:
            call.report(Report(*message['report']))
        else:
            call.worker = message['address']
            self._tell(message['key'], call)

    def cancel(self, job: str) -> None:
        key = self._keys.get(job, '')
        call = self._calls.get(key)
        if call is not None:
            call.cancelled = True
            self._tell(key, call)

    def _tell(self, key: str, call: _Call) -> None:
        if call.cancelled and call.worker is not None:
            options = {'workers': [call.worker], 'on_error': 'ignore'}
            self._client.loop.add_callback(self._client.run, _cancel, key, **options)

    def close(self) -> None:
        self._closing.set()
        self._keeper.join()
        self._drop()


# On the worker

_running: dict[str, '_Attempt'] = {}


class _Attempt:
    """A running job as its worker sees it."""

    def __init__(self, worker: Any, topic: str, key: str) -> None:
        self._worker = worker
        self._topic = topic
        self._key = key
        self._next: Report | None = None
        self._lock = threading.Lock()
        self.unwanted = False

    def tell(self, **message: Any) -> None:
        self._worker.log_event(self._topic, {'key': self._key, **message})

    def report(self, report: Report) -> None:
        with self._lock:
            scheduled, self._next = self._next is not None, report
        if not scheduled:
            self._worker.loop.add_callback(self._worker.loop.call_later, _PERIOD, self._send)

    def _send(self) -> None:
        with self._lock:
            report, self._next = self._next, None
        self.tell(report=list(report or ()))

    def cancelled(self) -> bool:
        """Whether it was cancelled, or Dask does not want it any more, since the process has ended."""
        state = self._worker.state.tasks.get(self._key)
        return self.unwanted or state is None or state.state == 'cancelled'


def _run(content: bytes) -> Outcome:
    topic, packed = pickle.loads(content)  # noqa: S301 (the process's own)
    worker = get_worker()
    key = str(worker.get_current_task())
    attempt = _running[key] = _Attempt(worker, topic, key)
    try:
        attempt.tell(address=worker.address)
        return perform_packed(packed, attempt.report, attempt.cancelled)
    finally:
        del _running[key]


def _cancel(key: str) -> None:
    attempt = _running.get(key)
    if attempt is not None:
        attempt.unwanted = True
