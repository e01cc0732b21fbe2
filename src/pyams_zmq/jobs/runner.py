"""The runner: takes jobs from the journal, first come, first started, and records how they end."""

import asyncio
import logging
import pickle
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from ..exceptions import ReplyError, SettingError
from ..signatures import fits
from ..wire import encode, error_text
from .attempts import Claim
from .decorator import JobOptions, jobs_of
from .executor import ExecutorError, JobExecutor
from .journal import Journal, JournalFault
from .store import Store
from .verdict import Interruption, Run, judge
from .work import Outcome, Task

logger = logging.getLogger(__name__)

#: Seconds between two looks for what has expired.
_HOUSEKEEPING = 60.0

#: Seconds before the journal is tried again after an error.
_PAUSE = 1.0


class Runner:
    """Runs the jobs of a process.

    :param journal: where they are written down
    :param executor: what runs them
    :param max_pending: how many may wait and run
    :param max_interruptions: how often a job may be running when its process or worker dies
    :param max_kept: how many ended jobs are kept
    """

    def __init__(
        self, journal: Journal, executor: JobExecutor, max_pending: int, max_interruptions: int, max_kept: int
    ) -> None:
        self.journal = journal
        self.executor = executor
        self.max_pending = max_pending
        self._max_interruptions = max_interruptions
        self._max_kept = max_kept
        self._delegate: Any = None
        self._json_load = -1
        #: The delegate's jobs by their types.
        self.types: dict[str, JobOptions] = {}
        #: The jobs that are running, by their ids.
        self.running: dict[str, Run] = {}
        # Which numbers of frames they take.
        self._arities: dict[tuple[str, int], bool] = {}
        # Set where there may be a job, or a free place.
        self._work = asyncio.Event()
        self._draining = False
        self._taker: asyncio.Task[None]
        self._cleaner: asyncio.Task[None]

    def attach(self, delegate: Any, json_load: int) -> None:
        """Tell whose methods the jobs are, and which frame of a message is its JSON.

        :raises SettingError: where there is another one already
        """
        types = jobs_of(delegate)
        if types and self.types:
            raise SettingError('Only one delegate of a process may have jobs')
        if types and not self.executor.local:
            _check_class(type(delegate))
        if types or self._delegate is None:
            self._delegate, self._json_load, self.types = delegate, json_load, types

    def start(self) -> None:
        """Run the jobs from now on."""
        loop = asyncio.get_running_loop()
        self.executor.on_change = partial(loop.call_soon_threadsafe, self._work.set)
        self._taker = loop.create_task(self._take())
        self._cleaner = loop.create_task(self._clean())

    async def _take(self) -> None:
        await self._insist(self._resume)
        while not self._draining:
            await self._insist(self._look)

    async def _insist(self, step: Callable[[], Awaitable[Any]]) -> None:
        """Do what must not be left undone, whatever should not happen and does: memory may be short."""
        while True:
            try:
                await step()
            except Exception:
                logger.exception('Jobs are held up, and go on in %s s', _PAUSE)
                await asyncio.sleep(_PAUSE)
            else:
                return

    async def _resume(self) -> None:
        await self._record(lambda store: store.resume(self.types, self._max_interruptions))
        unknown = await self._record(Store.unknown)
        for job_type, number in unknown.items():
            logger.error('%d jobs wait for a method %r, which the delegate does not have', number, job_type)

    async def _look(self) -> None:
        """Begin what may run now, and wait until there may be more."""
        self._work.clear()
        free = self.executor.slots - len(self.running)
        due = None
        if free > 0:
            claims, due = await self._record(partial(Store.claim, number=free, known=self.types))
            for claim in claims:
                await self._insist(partial(self._begin, claim))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._work.wait(), due)

    async def _begin(self, claim: Claim) -> None:
        run = self.running[claim.id] = Run(claim, self.types[claim.type])
        run.task = asyncio.get_running_loop().create_task(self._execute(run))

    async def _execute(self, run: Run) -> None:
        outcome = await self._attempt(run)
        await self._insist(partial(self._end, run, outcome))
        del self.running[run.claim.id]
        self._work.set()

    async def _end(self, run: Run, outcome: Outcome | Interruption) -> None:
        """Write down what becomes of a job after an attempt."""
        claim, operation = run.claim, judge(run, outcome, self._max_interruptions)
        try:
            await self._record(operation)
        except Exception as error:
            logger.exception('The outcome of the job %s (%s) cannot be written', claim.id, claim.type)
            body = encode(f'The outcome cannot be written: {error_text(error)}').decode()
            await self._record(lambda store: store.end(claim.seq, 'failed', 500, body))

    async def _attempt(self, run: Run) -> Outcome | Interruption:
        """Have a job run once."""
        claim, delegate, timeout = run.claim, self._delegate, run.options.timeout
        factory = (lambda: delegate) if self.executor.local else type(delegate)
        task = Task(claim.id, claim.type, claim.attempt, claim.frames, self._json_load, factory)
        timer = None
        try:
            future = self.executor.submit(task, partial(setattr, run, 'report'))
            if run.cancelled:  # before the executor knew of the job, so it could not be told
                self.executor.cancel(claim.id)
            if timeout is not None:
                timer = asyncio.get_running_loop().call_later(timeout, self._time_out, run)
            return await asyncio.wrap_future(future)
        except BrokenExecutor as error:
            return Interruption(str(error) or 'its worker died', blamed=True)
        except (ExecutorError, asyncio.CancelledError) as error:
            logger.warning('The job %s (%s) is tried again: %s', claim.id, claim.type, error_text(error))
            return Interruption(error_text(error), blamed=False)
        except Exception as error:
            logger.exception('The executor could not run the job %s (%s)', claim.id, claim.type)
            return Outcome(500, encode(error_text(error)).decode())
        finally:
            if timer is not None:
                timer.cancel()

    def _time_out(self, run: Run) -> None:
        run.timed_out = True
        self.executor.cancel(run.claim.id)

    async def _record(self, operation: Callable[[Store], Any]) -> Any:
        """Do something with the journal; where the disk fails, again and again."""
        while True:
            try:
                return await self.journal.do(operation)
            except JournalFault as error:
                if not error.passes:
                    raise
                logger.error(  # noqa: TRY400
                    'The journal cannot be written, and is tried again in %s s: %s', _PAUSE, error
                )
                await asyncio.sleep(_PAUSE)

    async def _clean(self) -> None:
        while True:
            await self._insist(self._remove_expired)

    async def _remove_expired(self) -> None:
        more = await self._record(lambda store: store.remove_expired(self._max_kept))
        if not more:
            await asyncio.sleep(_HOUSEKEEPING)

    # What callers ask for

    def accept(
        self, job: str, job_type: str, frames: Sequence[bytes], number: int
    ) -> 'asyncio.Future[tuple[int, dict[str, Any]]]':
        """Write a job down.

        :param number: of arguments that its method will get
        :returns: status and body of the reply, once it is on disk
        :raises ReplyError: with status 400 where the method does not take so many
        """
        if not self._takes(job_type, number):
            raise ReplyError(400, f'Wrong number of frames for {job_type}: {number}')
        keep = self.types[job_type].keep
        accepted = self.journal.do(lambda store: store.accept(job, job_type, frames, keep, self.max_pending))
        accepted.add_done_callback(self._wake)
        return accepted

    def _wake(self, _accepted: Any) -> None:
        self._work.set()

    def _takes(self, job_type: str, number: int) -> bool:
        found = self._arities.get((job_type, number))
        if found is None:
            progress = {'progress': None} if self.types[job_type].takes_progress else {}
            found = fits(getattr(self._delegate, job_type), list(range(number)), progress)
            self._arities[job_type, number] = found
        return found

    async def cancel(self, job: str) -> tuple[int, dict[str, Any]]:
        """Cancel a job.

        :returns: status and body of the reply
        """
        status, body = await self.journal.do(lambda store: store.cancel(job))
        run = self.running.get(job)
        if run is not None and status == 202 and not run.cancelled:
            run.cancelled = True
            self.executor.cancel(job)
        return status, body

    async def retry(self, job: str) -> tuple[int, dict[str, Any]]:
        """Let a job that failed or was cancelled run again.

        :returns: status and body of the reply
        """
        reply = await self.journal.do(lambda store: store.retry(job, self.max_pending))
        self._work.set()
        return reply

    def with_progress(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add to what is known of a job how far it is."""
        run = self.running.get(record['job'])
        report = None if run is None or run.report is None else run.report._asdict()
        return {**record, 'progress': report}

    def status(self) -> dict[str, Any]:
        """What ``_status`` tells of the jobs: how many there are in each state."""
        return dict(self.journal.counts)

    # The end

    async def drain(self) -> None:
        """Start no more jobs, and wait until those that run have ended."""
        self._draining = True
        self._work.set()
        self._cleaner.cancel()
        # What it has claimed in the meantime runs.
        await asyncio.wait([self._taker, self._cleaner])
        if self.running:
            await self._record(Store.excuse)
        while self.running:
            self._work.clear()
            await self._work.wait()

    def close(self) -> None:
        """Let the executor and the journal go."""
        self.executor.close()
        self.journal.close()


def _check_class(delegate: type) -> None:
    """Refuse a delegate that cannot be made anew elsewhere."""
    try:
        found = pickle.loads(pickle.dumps(delegate))  # noqa: S301 (our own)
    except Exception:
        found = None
    if found is not delegate:
        raise SettingError(
            f'{delegate.__qualname__} cannot be imported elsewhere by its name, as it has to where jobs run'
            ' outside the process: define it at the top level of a module'
        )
