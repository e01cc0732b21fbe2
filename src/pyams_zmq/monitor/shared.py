"""Answers that those share who ask at about the same time."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar('Answer')

#: Seconds for which an answer serves those who ask next: however many look at the monitor, or however
#: often a probe that nobody has to authenticate for comes, a process is asked so often and not more.
FRESH = 0.5


class Shared(Generic[Answer]):
    """An answer that is asked for when it is wanted, and has grown old.

    :param ask: asks for it
    """

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._expires = 0.0
        self._answer: Answer

    def get(self) -> Answer:
        """Return the answer."""
        with self._lock:
            if time.monotonic() >= self._expires:
                self._answer = self._ask()
                self._expires = time.monotonic() + FRESH
            return self._answer

    def forget(self) -> None:
        """Ask anew the next time."""
        self._expires = 0.0
