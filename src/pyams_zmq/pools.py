"""What :mod:`concurrent.futures` knows of its threads, and does not publish."""

import concurrent.futures.thread
import threading
from collections.abc import MutableMapping
from typing import Any

_queues: MutableMapping[threading.Thread, Any] = getattr(concurrent.futures.thread, '_threads_queues', {})


def is_pooled(thread: threading.Thread) -> bool:
    """Whether a thread is one of a :class:`concurrent.futures.ThreadPoolExecutor`."""
    return thread in _queues


def waiting(executor: Any) -> int:
    """Return how many calls wait for a free thread of an executor; 0 where it cannot be told."""
    queue = getattr(executor, '_work_queue', None)
    return 0 if queue is None else queue.qsize()


def forget_pools() -> None:
    """Leave the pools behind in a forked process, where their threads do not exist.

    Python would join them at its end. If one of them is the thread that forked, that is an error, and the
    exit code 1.
    """
    _queues.clear()
