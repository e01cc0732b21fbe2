"""Copies of the process that a handler made with :func:`os.fork`."""

import logging
import os
import sys
from contextlib import suppress

logger = logging.getLogger(__name__)

# Asked for with each message; the system takes longer to tell.
_pid = os.getpid()


def _after_fork() -> None:
    global _pid  # noqa: PLW0603 (the hook has no other way)
    _pid = os.getpid()


os.register_at_fork(after_in_child=_after_fork)


def end_copy(pid: int, error: BaseException | None = None) -> None:
    """End the calling process where it is a copy that was about to go on as if it were the service.

    A copy that returned from the handler would read the messages and write the replies of its original.

    :param pid: the original's process id; nothing happens there
    :param error: what the copy's handler raised: :exc:`SystemExit` gives the exit code
    """
    if _pid == pid:
        return
    code = error.code if isinstance(error, SystemExit) else 0 if error is None else 1
    try:
        if error is not None and not isinstance(error, SystemExit):
            logger.error('A process forked by a handler raised', exc_info=error)
        for stream in sys.stdout, sys.stderr:
            with suppress(Exception):  # there may be none, or nobody who reads it
                stream.flush()
    finally:
        os._exit(code if isinstance(code, int) else int(code is not None))
