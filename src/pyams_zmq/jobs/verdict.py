"""What becomes of a job after an attempt."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ..wire import encode
from .attempts import Claim
from .decorator import JobOptions
from .progress import Report
from .store import Store
from .work import CANCELLED, Outcome

#: Seconds before a job is tried again that could not be run.
_PAUSE = 1.0


class Interruption(NamedTuple):
    """Why an attempt came to no end of its own."""

    reason: str
    #: Whether the job may have been what did it.
    blamed: bool


class Run:
    """A job that is running."""

    def __init__(self, claim: Claim, options: JobOptions) -> None:
        self.claim = claim
        self.options = options
        self.report: Report | None = None
        self.cancelled = False
        self.timed_out = False
        self.task: asyncio.Task[None] | None = None


def judge(run: Run, outcome: Outcome | Interruption, max_interruptions: int) -> Callable[[Store], None]:
    """Return what has to be recorded of the end of an attempt."""
    claim, options = run.claim, run.options
    failed = isinstance(outcome, Interruption) or outcome.status is None or outcome.status >= 400
    if failed and run.timed_out and not run.cancelled:
        outcome = Outcome(504, encode(f'TimeoutError: it took longer than {options.timeout} s').decode())
    if outcome == CANCELLED or (run.cancelled and failed):
        return lambda store: store.end(claim.seq, 'cancelled', None, None)
    delay = options.delay(claim.failures + claim.interruptions + 1)
    if isinstance(outcome, Interruption):
        reason = outcome.reason
        if outcome.blamed:
            return lambda store: store.interrupt(claim.seq, reason, max_interruptions, delay)
        return lambda store: store.postpone(claim.seq, _PAUSE)
    status, body = outcome.status or 0, outcome.body or 'null'
    if status >= 500 and claim.failures < options.retries:
        return lambda store: store.put_back(claim.seq, status, body, delay)
    state = 'failed' if failed else 'done'
    return lambda store: store.end(claim.seq, state, status, body)
