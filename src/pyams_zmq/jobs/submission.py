"""Jobs on their way into a pool of threads."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..wire import error_text
from .executor import ExecutorError
from .work import Outcome


def submit(pool: ThreadPoolExecutor, function: Callable[..., Outcome], *arguments: Any) -> 'Future[Outcome]':
    """Have a thread of a pool run a job, or nobody.

    :raises ExecutorError: where it cannot be run now, and will not be; the next job needs another pool
    """
    outcome: Future[Outcome] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            result = function(*arguments)
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    try:
        submitted = pool.submit(run)
    except Exception as error:
        # Without a thread for it, the pool has queued the job nevertheless: another one may have it by now,
        # or take it later, and then count as free while it is not. So that is the end of this pool.
        pool.shutdown(wait=False)
        if outcome.cancel():
            raise ExecutorError(error_text(error)) from error
    else:
        submitted.add_done_callback(lambda submitted: _pass(submitted.exception(), outcome))
    return outcome


def _pass(error: BaseException | None, outcome: 'Future[Outcome]') -> None:
    if error is not None:  # the pool is broken, and did not run it
        outcome.set_exception(error)
