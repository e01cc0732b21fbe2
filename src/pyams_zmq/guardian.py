"""The guardian of a process: a thread that notices what the loop may be too busy to notice.

It sees signals while a method blocks the loop, sees the parent die, and ends the process when the time for a
graceful end is over.
"""

import logging
import multiprocessing
import os
import queue
import signal
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any

from .exceptions import ExitCode
from .listener import Listener, close_copies, make_dummy
from .pools import forget_pools

logger = logging.getLogger(__name__)

#: Signals that ask the process to end.
SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Seconds between two looks at the parent's id: a sibling may hold the pipe open that tells of its death.
PARENT_CHECK = 1.0


class Guardian:
    """Watches over the process that calls :meth:`start`, from a thread of its own.

    :param on_signal: called in the guardian's thread with the number of a signal that asks for the end, and
        with SIGTERM when the parent has died
    :param listeners: called for what the process listens on
    :param stop_timeout: seconds that a graceful end may take
    """

    def __init__(
        self,
        on_signal: Callable[[int], None],
        listeners: Callable[[], Iterable[Listener]],
        stop_timeout: float,
    ) -> None:
        self._on_signal = on_signal
        self._listeners = listeners
        self._stop_timeout = stop_timeout
        self._deadline: float | None = None
        self._closing = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._parent_pid: int | None = None
        #: Whether the parent has died, and the ports are given back.
        self.orphaned = False
        #: What the process ends with if it has to be ended by force.
        self.exit_code = ExitCode.STOP_TIMEOUT
        self._cutting_off = threading.Lock()
        self._wake_up, self._bell = sockets.socketpair()
        # For numbers that went elsewhere, since a delegate has set another descriptor. Its method is
        # not interrupted by the next signal, as a handler in Python is, which recurses in a storm.
        self._heard: queue.SimpleQueue[int] = queue.SimpleQueue()
        # Made in good time: when it is needed, there may be no descriptor left.
        self._dummy = make_dummy()
        self._thread = threading.Thread(target=self._watch, name='pyams_zmq-guardian', daemon=True)

    def start(self) -> None:
        """Take the signals over and watch.

        Outside the main thread, where Python lets nobody handle signals, they stay as they are.
        """
        global _active  # noqa: PLW0603 (the hook of os.register_at_fork has no other way)
        self._wake_up.setblocking(False)
        self._bell.setblocking(False)
        if threading.current_thread() is threading.main_thread():
            # The interpreter writes a signal's number there at once, even while a method blocks.
            signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
            heard: Any = self._heard.put  # it takes the number, and does not care for the frame
            self._handlers = {number: signal.signal(number, heard) for number in SIGNALS}
        parent = multiprocessing.parent_process()
        self._parent_pid = None if parent is None else parent.pid
        # Not so where a fork server is in between.
        self._is_child = os.getppid() == self._parent_pid
        _active = self
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer, and handle signals as before."""
        global _active  # noqa: PLW0603
        _active = None
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._closing = True
        self._ring()
        self._thread.join()
        self._wake_up.close()
        self._bell.close()
        self._dummy.close()

    def expect_end(self) -> None:
        """End the process by force if it has not ended in ``stop_timeout`` from now."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._stop_timeout
            self._ring()

    def time_left(self) -> float:
        """Seconds until the process is ended by force."""
        return self._stop_timeout if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _ring(self) -> None:
        with suppress(BlockingIOError):
            self._bell.send(b'\0')

    def _watch(self) -> None:
        parent = multiprocessing.parent_process()
        watched: list[Any] = [self._wake_up]
        if parent is not None:
            watched.append(parent.sentinel)
        while not self._closing:
            ready = connection.wait(watched, self._patience())
            numbers = set(self._wake_up.recv(4096)) if self._wake_up in ready else set()
            while not self._heard.empty():
                numbers.add(self._heard.get())
            for number in numbers.intersection(SIGNALS):
                self._ask_to_end(number)
            if self._parent_pid is not None and (set(ready) - {self._wake_up} or not self._parent_lives()):
                self._parent_pid = None
                del watched[1:]
                self._become_orphan()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._end_by_force()

    def _patience(self) -> float:
        """Seconds until there is something to look at that rings no bell."""
        if self._deadline is None:
            return PARENT_CHECK
        return min(PARENT_CHECK, self.time_left())

    def _parent_lives(self) -> bool:
        if self._is_child:
            return os.getppid() == self._parent_pid
        try:
            os.kill(self._parent_pid or 0, 0)
        except OSError as error:
            return not isinstance(error, ProcessLookupError)
        return True

    def _become_orphan(self) -> None:
        self.orphaned = True
        self.give_back()
        self._ask_to_end(signal.SIGTERM)
        _say(logging.WARNING, 'The parent process has died; ending')

    def give_back(self) -> None:
        """Free the ports of an orphan; to be called whenever a socket was bound, too."""
        if self.orphaned:
            for listener in self._listeners():
                listener.give_back(self._dummy)

    def _ask_to_end(self, number: int) -> None:
        self.expect_end()
        self._on_signal(number)

    def _end_by_force(self) -> None:
        self._cutting_off.acquire()  # for good
        try:
            _say(logging.ERROR, 'What was under way took longer than stop_timeout; it is cut off')
            for child in multiprocessing.active_children():
                with suppress(Exception):  # a class of the user's own may raise anything
                    child.terminate()
        finally:
            os._exit(self.exit_code)

    def end_by_force_if_begun(self) -> None:
        """Do not let the process end in order where what it waited for ended only because it was cut off."""
        with self._cutting_off:
            pass

    @property
    def handles_signals(self) -> bool:
        """Whether signals are handled here, which only the main thread can have begun."""
        return bool(self._handlers)

    def in_forked_child(self) -> None:
        """Undo, in a process forked from the guarded one, what is meant for the guarded one alone."""
        if self.handles_signals:
            reset_signals()
        close_copies(self._listeners())
        forget_pools()


def reset_signals() -> None:
    """Handle signals as a new interpreter does, whatever the process that was forked had in mind."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals that ask for the end wait, in the calling thread and in what it forks."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _say(level: int, text: str) -> None:
    """Log, unless nobody reads the log: what holds the loop up may be just that."""
    thread = threading.Thread(target=logger.log, args=(level, text), daemon=True)
    with suppress(RuntimeError):  # handlers may have used up the threads that the system gives
        thread.start()
        thread.join(PARENT_CHECK)


_active: Guardian | None = None

# What has to be undone when the thread has forked.
_held = threading.local()


def _before_fork() -> None:
    # The child has the handlers of the guarded process until it has its own: what is sent to it meanwhile
    # would ask its parent to end.
    if _active is not None and _active.handles_signals:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release() -> None:
    mask = vars(_held).pop('mask', None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork() -> None:
    global _active
    guardian, _active = _active, None
    if guardian is not None:
        guardian.in_forked_child()
        vars(_held).clear()
    _release()


os.register_at_fork(before=_before_fork, after_in_parent=_release, after_in_child=_after_fork)
