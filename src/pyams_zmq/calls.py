"""The messages of one request."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .declaration import Declaration
from .exceptions import ReplyError
from .jobs.client import JobCalls
from .jobs.ids import check_id, new_id
from .wire import Reply, encode, error_text

#: Key of the messages in the environ of a request.
_MESSAGES = 'pyams_zmq.messages'

#: Messages of a request that are remembered at most: the last ones.
MOST = 500


@dataclass
class Message:
    """A message of a request, and how it went; without what it held."""

    #: Name of the process.
    process: str
    #: Type of the message.
    type: str
    #: Bytes of the message.
    size: int
    #: Whether it waits, or waited, for the transaction to commit.
    on_commit: bool = False
    #: Whether it never will be sent, since the transaction was aborted, or rolled back to before it.
    taken_back: bool = False
    #: Status of the reply; None where there is none yet.
    status: int | None = None
    #: Why no reply came; empty where one did.
    problem: str = ''
    #: Seconds from the call to the reply.
    duration: float = 0.0
    #: Bytes of the reply.
    received: int = 0


def remember(request: Any) -> 'deque[Message]':
    """Let the messages of a request be remembered from now on; nobody does where this is not called.

    :param request: the Pyramid request
    :returns: the messages, which grow as they are sent; of more than :data:`MOST`, the last ones
    """
    messages: deque[Message] = deque(maxlen=MOST)
    request.environ[_MESSAGES] = messages
    return messages


class RequestClient(JobCalls):
    """A process as one request sees it: calls it, and remembers the calls.

    :param declaration: the process
    :param request: the Pyramid request
    """

    def __init__(self, declaration: Declaration, request: Any) -> None:
        self.name = declaration.name
        self._declaration = declaration
        self._request = request

    @property
    def timeout(self) -> float:
        """Seconds that a call may take."""
        return self._declaration.client.timeout

    def call(self, message_type: str, data: Any = None, *, timeout: float | None = None) -> Reply:
        """Send a message and wait for the reply; as :meth:`pyams_zmq.client.ZMQClient.call`."""
        payload = encode([message_type, data])
        if message_type == '_submit' and isinstance(data, dict):
            message_type = _submission(data.get('type'), data.get('id'))
        return self.send(message_type, payload, timeout=timeout)

    def send(self, message_type: str, payload: bytes, *, timeout: float | None = None) -> Reply:
        """Send a message that is encoded already, and wait for the reply.

        :param message_type: what is remembered as its type
        :param payload: what :func:`pyams_zmq.wire.encode` made of ``[type, data]``
        :param timeout: seconds; None: the client's own
        """
        return self.deliver(self._remember(message_type, payload), payload, timeout)

    def call_on_commit(self, message_type: str, data: Any = None) -> None:
        """Send a message when the transaction of the request (``request.tm``) commits, or never.

        It is encoded now, so that what is wrong with it is told now. Before the transaction commits, the
        processes that have messages waiting have to be there, else it is aborted. After it has committed, the
        messages are sent in their order, at most once each. What goes wrong from then on is logged, since
        nothing can be undone any more: where that is not enough, use :meth:`submit_on_commit`.

        :param message_type: name of the delegate's method
        :param data: anything that JSON can hold
        :raises TypeError: where JSON cannot hold the data
        :raises ValueError: likewise
        :raises ReplyError: with status 413, where it is too large
        :raises NoTransactionError: where there is no transaction
        """
        if not isinstance(message_type, str):
            raise TypeError(f'the type of a message is a string, not {message_type!r}')
        self._send_on_commit(message_type, encode([message_type, data]))

    def submit_on_commit(self, job_type: str, data: Any = None, id: str | None = None) -> str:
        """Submit a job when the transaction of the request commits, or never.

        As :meth:`call_on_commit`; but a submission whose reply was lost is repeated, since a job with the
        same id is the same job. The id is no promise: only the 202 is one, which comes after the commit.
        Whether there is a job can be asked for by its id.

        :param job_type: name of the delegate's method
        :param data: anything that JSON can hold
        :param id: as for ``submit``
        :returns: the job's id
        :raises ValueError: also where the id can be none
        """
        job = new_id() if id is None else id
        try:
            check_id(job)
        except ReplyError as error:
            raise ValueError(error.body) from None
        payload = encode(['_submit', {'type': job_type, 'data': data, 'id': job}])
        self._send_on_commit(_submission(job_type, job), payload, repeatable=True)
        return job

    def _send_on_commit(self, message_type: str, payload: bytes, repeatable: bool = False) -> None:
        from .transaction import join  # noqa: PLC0415 (needs the extra tm)

        refusal = self._declaration.client.too_large(payload)
        if refusal is not None:
            refusal.raise_for_status()
        outbox = join(self._request)
        outbox.add(self, self._remember(message_type, payload, on_commit=True), payload, repeatable)

    def connect(self) -> Reply:
        """Make sure that the process is there; as :meth:`pyams_zmq.client.ZMQClient.connect`."""
        return self._unless_given_up(self._declaration.client.connect)

    def deliver(self, message: Message, payload: bytes, timeout: float | None = None) -> Reply:
        """Send a message which is remembered already, and remember how it went.

        :param message: how it is remembered
        :param payload: what :func:`pyams_zmq.wire.encode` made of ``[type, data]``
        :param timeout: seconds; None: the client's own
        """
        began = time.monotonic()
        try:
            reply = self._unless_given_up(self._declaration.client.send, payload, timeout=timeout)
        except BaseException as error:
            message.problem = error_text(error)
            raise
        finally:
            message.duration = time.monotonic() - began
        message.status = reply.status
        message.received = reply.size
        if not reply.delivered:
            message.problem = reply.body
        return reply

    def _remember(self, message_type: str, payload: bytes, on_commit: bool = False) -> Message:
        message = Message(self.name, message_type, len(payload), on_commit)
        messages = self._request.environ.get(_MESSAGES)
        if messages is not None:
            messages.append(message)
        return message

    def _unless_given_up(self, action: Callable[..., Reply], *args: Any, **options: Any) -> Reply:
        problem = self._declaration.problem
        return action(*args, **options) if problem is None else Reply.undelivered(503, problem)

    def __repr__(self) -> str:
        return f'<RequestClient {self.name}>'


def _submission(job_type: Any, job: Any) -> str:
    return f'_submit {job_type} {job}'
