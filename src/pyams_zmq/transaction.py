"""Messages that are sent when a transaction commits, and never when it does not."""

import logging
import time
from typing import Any, NamedTuple, Protocol

from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager, NoTransaction
from zope.interface import implementer

from .exceptions import NoTransactionError, ReplyError
from .wire import Reply

logger = logging.getLogger(__name__)

#: Seconds that each message may take where those before it have used up the time for all.
_LEAST = 1.0

#: Seconds between two attempts to send what may arrive twice.
_PAUSE = 0.1

#: Characters of a reply's body that the log shows.
_BODY_LENGTH = 500

#: Statuses that a further message to the same process would only get again.
_NOBODY = frozenset({401, 403, 503})

_KEY = object()

_OVER = 'the transaction has ended already; use call() or submit() in what is called after that'


class Sender(Protocol):
    """What sends the messages to one process."""

    name: str

    @property
    def timeout(self) -> float:
        """Seconds that a call may take."""

    def connect(self) -> Reply:
        """Make sure that the process is there, without sending anything."""

    def deliver(self, message: Any, payload: bytes, timeout: float) -> Reply:
        """Send a message."""


class _Waiting(NamedTuple):
    sender: Sender
    #: What is remembered of the message: a :class:`pyams_zmq.calls.Message`.
    message: Any
    payload: bytes
    repeatable: bool


@implementer(ISavepointDataManager)
class Outbox:
    """The messages that wait for one transaction.

    :param transaction_manager: the one whose transaction it is
    """

    def __init__(self, transaction_manager: Any) -> None:
        self.transaction_manager = transaction_manager
        self._waiting: list[_Waiting] = []
        #: Whether the messages have been sent, or never will be: the transaction has ended.
        self.is_over = False

    def add(self, sender: Sender, message: Any, payload: bytes, repeatable: bool) -> None:
        """Keep a message until the transaction commits.

        :param sender: what will send it
        :param message: what is remembered of it, a :class:`pyams_zmq.calls.Message`
        :param payload: JSON ``[type, data]``
        :param repeatable: whether it may arrive twice
        """
        self._waiting.append(_Waiting(sender, message, payload, repeatable))

    def sortKey(self) -> str:
        """Vote late, but before ~sqlalchemy, which commits in its vote: nothing can be undone after it."""
        return '~pyams_zmq'

    def tpc_begin(self, transaction: Any) -> None:
        """Do nothing."""

    def commit(self, transaction: Any) -> None:
        """Do nothing."""

    def tpc_vote(self, transaction: Any) -> None:  # noqa: ARG002
        """Make sure that the processes are there.

        :raises ReplyError: where one is not, so that the transaction is aborted
        """
        for sender in {one.sender.name: one.sender for one in self._waiting}.values():
            reply = sender.connect()
            if not reply.ok:
                raise ReplyError(
                    reply.status, f'Not committed, as {sender.name!r} cannot be reached: {reply.body}'
                )

    def tpc_finish(self, transaction: Any) -> None:
        """Do nothing: others may not have finished yet, and what goes wrong here would be an error page."""

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the messages."""
        self.abort(transaction)

    def abort(self, transaction: Any) -> None:
        """Forget the messages."""
        _take_back(self._waiting, 0)
        # A savepoint from before this joined makes it leave; messages after that need another one.
        transaction.set_data(_KEY, None)

    def savepoint(self) -> '_Savepoint':
        """Return what takes the later messages back."""
        return _Savepoint(self._waiting)

    def committed(self, success: bool) -> None:
        """Send the messages: called when all resources have finished.

        :param success: whether the transaction was committed
        """
        self.is_over = True
        if success:
            waiting = self._waiting.copy()
            self._waiting.clear()
            _send(waiting)
        else:
            _take_back(self._waiting, 0)


@implementer(IDataManagerSavepoint)
class _Savepoint:
    def __init__(self, waiting: list[_Waiting]) -> None:
        self._waiting = waiting
        self._length = len(waiting)

    def rollback(self) -> None:
        """Take back what came later."""
        _take_back(self._waiting, self._length)


def _take_back(waiting: list[_Waiting], length: int) -> None:
    """Forget the messages that came after the first ``length`` of them."""
    for one in waiting[length:]:
        one.message.taken_back = True
    del waiting[length:]


def _send(waiting: list[_Waiting]) -> None:
    """Send messages whose transaction is committed: whatever happens, nobody can undo it any more."""
    deadlines: dict[str, float] = {}
    unreachable: dict[str, Reply] = {}
    try:
        while waiting:
            sender = waiting[0].sender
            reply = unreachable.get(sender.name)
            if reply is None:
                deadline = deadlines.setdefault(sender.name, time.monotonic() + sender.timeout)
                reply = _deliver(waiting[0], max(deadline, time.monotonic() + _LEAST))
            if not reply.delivered and reply.status in _NOBODY:
                unreachable[sender.name] = reply
            if not reply.delivered:
                waiting[0].message.status, waiting[0].message.problem = reply
            if not reply.ok:
                fate = 'failed' if reply.delivered else 'may be lost' if reply.status == 504 else 'is lost'
                _log(waiting[0], fate, f'{reply.status} {str(reply.body)[:_BODY_LENGTH]}')
            del waiting[0]
    finally:
        for one in waiting:
            one.message.problem = 'interrupted'
            _log(one, 'may be lost', one.message.problem)


def _deliver(one: _Waiting, deadline: float) -> Reply:
    while True:
        try:
            reply = one.sender.deliver(one.message, one.payload, max(_PAUSE, deadline - time.monotonic()))
        except Exception as error:
            reply = Reply.undelivered(504, f'{type(error).__name__}: {error}')
        lost = reply.status == 504 and not reply.delivered
        if not (lost and one.repeatable and time.monotonic() + _PAUSE < deadline):
            return reply
        time.sleep(_PAUSE)


def _log(one: _Waiting, fate: str, reason: str) -> None:
    # The data is the application's and may be secret: only for those who ask for it.
    logger.error(
        'Committed, but the message %r to %r (%d bytes) %s: %s',
        one.message.type,
        one.sender.name,
        len(one.payload),
        fate,
        reason,
    )
    logger.debug('The message that %s: %r', fate, one.payload)


def join(request: Any) -> Outbox:
    """Return what keeps the messages for the transaction of a request.

    :param request: a Pyramid request with the attribute ``tm`` of pyramid_tm
    :raises NoTransactionError: where there is no transaction, or it is not known whether there is one
    """
    manager = getattr(request, 'tm', None)
    if manager is None:
        raise NoTransactionError(
            "the request has no transaction manager: config.include('pyramid_tm'), which"
            " pip install 'pyams_zmq[tm]' installs"
        )
    if not getattr(manager, 'explicit', False) and not request.environ.get('tm.active'):
        # It would begin a transaction when asked, which perhaps nobody commits.
        raise NoTransactionError(
            'pyramid_tm has not begun a transaction for this request; to begin one yourself, set'
            ' tm.manager_hook = pyramid_tm.explicit_manager'
        )
    try:
        transaction = manager.get()
    except NoTransaction:
        raise NoTransactionError(
            'there is no transaction: it has ended, or none has begun; use call() where none is wanted'
        ) from None
    outbox = _outbox(transaction, manager)
    if outbox.is_over:
        raise NoTransactionError(_OVER)
    return outbox


def _outbox(transaction: Any, manager: Any) -> Outbox:
    try:
        found: Outbox | None = transaction.data(_KEY)
    except KeyError:
        found = None
    if found is None:
        found = Outbox(manager)
        try:
            transaction.join(found)
        except ValueError:  # in a hook that is called when it has committed
            raise NoTransactionError(_OVER) from None
        transaction.addAfterCommitHook(found.committed)
        transaction.set_data(_KEY, found)
    return found
