"""The message handler: finds the delegate's method that a message names, calls it, and replies."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, ClassVar, cast

from zope.interface import implementer

from .exceptions import ReplyError
from .fork import end_copy
from .interfaces import IZMQMessageHandler
from .jobs.commands import COMMANDS, Command, accept
from .jobs.decorator import job_options
from .jobs.ids import new_id
from .jobs.runner import Runner
from .jobs.service import JobSettings
from .logs import Log
from .request import Request
from .signatures import fits
from .stream import Stream
from .wire import decode_message, encode, error_text

logger = Log(__name__)


def _of_jobs(command: Command) -> Callable[..., Any]:
    def method(handler: 'ZMQMessageHandler', *arguments: Any) -> Any:
        if handler._jobs is None:
            raise ReplyError(404, 'This process has no journal, and so no jobs')
        return command(handler._jobs, list(arguments), handler._json_load)

    return method


@implementer(IZMQMessageHandler)
class ZMQMessageHandler:
    """Calls the delegate's methods by the type of the message.

    A message is a list of frames, one of which is JSON ``[type, data]``. The delegate's method of that name
    is called with all the frames, ``data`` in place of the JSON one, and what it returns is the reply, by
    habit ``[status, body]``. A plain method runs on the loop, or in a thread where the process has
    ``workers``; an ``async def`` method is awaited on the loop. Types that begin with an underscore belong
    to the library: ``_ping``, ``_status``, and those of jobs, ``_submit``, ``_job``, ``_jobs``, ``_cancel``
    and ``_retry``.

    :param process: the :class:`pyams_zmq.process.ZMQProcess` that runs
    :param stream: the stream that replies are sent through, made by the process
    :param stop: callable without arguments that ends the process
    :param handler: a delegate; by default an instance of the class attribute ``handler``
    :param json_load: index of the frame that holds the JSON
    """

    #: The delegate's class.
    handler: Any = None

    def __init__(
        self, process: Any, stream: Any, stop: Callable[[], Any], handler: Any = None, json_load: int = -1
    ) -> None:
        self.process = process
        self.rep_stream: Stream = stream
        self._stop = stop
        self._json_load = json_load
        self._pid = os.getpid()
        self.rep_handler = self.handler() if handler is None else handler
        self.rep_handler.process = process
        if isinstance(process, JobSettings):
            process.check_jobs(self.rep_handler)
        if self._jobs is not None:
            self._jobs.attach(self.rep_handler, json_load)

    def __call__(self, frames: list[Any]) -> Any:
        """Handle a message; it gets exactly one reply, whatever it holds.

        :param frames: the message's frames, without those that lead the reply back
        """
        request = self.rep_stream.current_request(frames, self._json_load)
        try:
            message_type, arguments = self._read(frames)
            request.message_type = message_type
            method = self._find(message_type)
        except ReplyError as error:
            request.reply([encode([error.status, error.body])])
            return
        is_job = self._jobs is not None and job_options(method) is not None
        if is_job:
            method = partial(self._accept, message_type, frames)
        if (
            is_job
            or self._executor is None
            or message_type in self._commands
            or inspect.iscoroutinefunction(method)
        ):
            self._finish(request, message_type, self._perform(message_type, method, arguments))
        else:
            request.detach()
            future = self._executor.submit(copy_context().run, self._perform, message_type, method, arguments)
            future.add_done_callback(lambda done: self._hand_over(request, message_type, done))

    @property
    def _executor(self) -> Any:
        return getattr(self.process, 'pool', None)

    @property
    def _jobs(self) -> Runner | None:
        return getattr(self.process, 'jobs', None)

    def _accept(self, message_type: str, frames: list[Any], *_arguments: Any) -> Awaitable[Any]:
        """Write a message down as a job."""
        return accept(cast(Runner, self._jobs), message_type, frames, new_id())

    def _read(self, frames: list[Any]) -> tuple[str, list[Any]]:
        """Return the message's type and the arguments of its method."""
        try:
            frame = frames[self._json_load]
        except IndexError:
            raise ReplyError(400, f'The message has no frame {self._json_load} to hold the JSON') from None
        message_type, data = decode_message(frame)
        arguments = list(frames)
        arguments[self._json_load] = data
        return message_type, arguments

    def _find(self, message_type: str) -> Callable[..., Any]:
        """Return the method for a type.

        :raises ReplyError: with status 404 where there is none
        """
        command = self._commands.get(message_type)
        if command is not None:
            return partial(command, self)
        method: Any = None
        if not message_type.startswith('_'):
            try:
                method = getattr(self.rep_handler, message_type, None)
            except ReplyError:
                raise
            except Exception as error:
                logger.exception('The delegate could not give its attribute %r', message_type)
                self.rep_stream.count_failure(message_type, error)
                raise ReplyError(500, error_text(error)) from None
        if not callable(method):
            raise ReplyError(404, f'No such message type: {message_type}')
        return method  # type: ignore[no-any-return]

    def _perform(
        self, message_type: str, method: Callable[..., Any], arguments: list[Any]
    ) -> bytes | Awaitable[Any]:
        """Call a method; return its encoded reply, or what has to be awaited for it."""
        try:
            result = method(*arguments)
            if type(result) is not list and inspect.isawaitable(result):
                return result
            return encode(result)
        except BaseException as error:
            end_copy(self._pid, error)
            if isinstance(error, TypeError) and _does_not_fit(error, method, arguments):
                return encode([400, f'Wrong number of frames for {message_type}: {len(arguments)}'])
            return self._error_reply(message_type, error)
        finally:
            end_copy(self._pid)

    def _error_reply(self, message_type: str, error: BaseException) -> bytes:
        if isinstance(error, ReplyError):
            try:
                return encode([error.status, error.body])
            except BaseException as unfit:
                error = unfit
        logger.error('The method for %r raised', message_type, exc_info=error)
        self.rep_stream.count_failure(message_type, error)
        return encode([500, error_text(error)])

    def _hand_over(self, request: Request, message_type: str, done: 'Future[bytes | Awaitable[Any]]') -> None:
        """Bring the outcome of a worker thread to the loop."""
        try:
            outcome = done.result()
        except BaseException as error:
            outcome = self._error_reply(message_type, error)
        self.rep_stream.io_loop.add_callback(self._finish, request, message_type, outcome)

    def _finish(self, request: Request, message_type: str, outcome: bytes | Awaitable[Any]) -> None:
        if isinstance(outcome, bytes):
            request.reply([outcome])
        else:
            if not request.detached:
                request.detach()
            if type(outcome) is asyncio.Future:  # without the cost of a task
                outcome.add_done_callback(partial(self._settle, request, message_type))
            else:
                task = asyncio.ensure_future(self._await(request, message_type, outcome))
                self.rep_stream.keep(task)
                task.add_done_callback(partial(self._reply_for_cancelled, request, message_type))

    def _settle(self, request: Request, message_type: str, future: 'asyncio.Future[Any]') -> None:
        try:
            reply = encode(future.result())
        except BaseException as error:
            reply = self._error_reply(message_type, error)
        request.reply([reply])

    async def _await(self, request: Request, message_type: str, outcome: Awaitable[Any]) -> None:
        try:
            reply = encode(await outcome)
        except BaseException as error:
            end_copy(self._pid, error)
            reply = self._error_reply(message_type, error)
        end_copy(self._pid)
        request.reply([reply])

    def _reply_for_cancelled(self, request: Request, message_type: str, task: 'asyncio.Future[Any]') -> None:
        if task.cancelled():  # before it began
            self._settle(request, message_type, task)

    # The library's own message types

    def _ping(self, *_frames: Any) -> list[Any]:
        return [200, 'pong']

    def _status(self, *_frames: Any) -> list[Any]:
        return [200, {**self.process.status(), **self.rep_stream.status()}]

    _commands: ClassVar[dict[str, Callable[..., Any]]] = {
        '_ping': _ping,
        '_status': _status,
        **{name: _of_jobs(command) for name, command in COMMANDS.items()},
    }


def _does_not_fit(error: TypeError, method: Callable[..., Any], arguments: list[Any]) -> bool:
    """Whether it was the call itself that failed, and not the method."""
    trace, function = error.__traceback__, method
    while trace is not None and trace.tb_next is not None:
        # A decorator may have been entered, the method itself not.
        if not hasattr(function, '__wrapped__'):
            return False
        trace, function = trace.tb_next, function.__wrapped__
    return not fits(method, arguments)
