"""Messages and replies as they travel.

A message is JSON ``[type, data]``, a reply any JSON, by habit ``[status, body]``. The JSON is what Python's
:mod:`json` writes and reads, ``NaN`` and ``Infinity`` included, in UTF-8.
"""

import json
from typing import Any, NamedTuple

from .exceptions import ReplyError

_write = json.JSONEncoder().encode
_read = json.JSONDecoder().raw_decode
_WHITE_SPACE = ' \t\n\r'  # JSON's


def encode(value: Any) -> bytes:
    """Write a value as JSON.

    :raises TypeError, ValueError, RecursionError: where JSON cannot hold it
    """
    return _write(value).encode()


def decode(frame: Any) -> Any:
    """Read a frame's JSON.

    :param frame: ``bytes``, or anything with a buffer, such as a :class:`zmq.Frame`
    :raises ValueError: where the frame is not UTF-8 or not JSON
    """
    text = str(frame, 'utf-8').strip(_WHITE_SPACE)
    try:
        value, end = _read(text)
    except RecursionError:
        raise ValueError('nested too deeply') from None
    if end != len(text):
        raise json.JSONDecodeError('Extra data', text, end)
    return value


def decode_message(frame: Any) -> tuple[str, Any]:
    """Read a message.

    :returns: its type and its data
    :raises ReplyError: with status 400 where the frame holds no message
    """
    try:
        message = decode(frame)
    except UnicodeDecodeError as error:
        raise ReplyError(400, f'The message is not UTF-8: {error.reason}') from None
    except ValueError as error:
        raise ReplyError(400, f'The message is not JSON: {error}') from None
    if not isinstance(message, list) or len(message) != 2:
        raise ReplyError(400, 'A message is a pair: [type, data]')
    message_type, data = message
    if not isinstance(message_type, str):
        raise ReplyError(400, 'The type of a message is a string')
    return message_type, data


def error_text(error: BaseException) -> str:
    """What a client is told of an exception: ``'ValueError: …'``."""
    try:
        text = str(error)
    except BaseException:
        text = 'no description'
    return f'{type(error).__name__}: {text}'


def split_reply(value: Any) -> tuple[int, Any]:
    """Return the status and the body of a reply; anything but ``[int, body]`` is the body of a 200."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and type(value[0]) is int:
        return value[0], value[1]
    return 200, value


class _Pair(NamedTuple):
    status: int
    body: Any


class Reply(_Pair):
    """A reply as the caller sees it: a pair ``(status, body)``.

    ``status`` is a number with the meaning that HTTP gives it, ``body`` anything that JSON can hold.
    """

    #: False where the client itself made the reply, since none came.
    delivered: bool = True

    #: Bytes of the reply as it came, 0 where the client itself made it.
    size: int = 0

    @classmethod
    def received(cls, frame: Any) -> 'Reply':
        """Make a reply of what a process sent; anything but ``[int, body]`` becomes the body of a 200.

        :raises ValueError: where the frame is not JSON
        """
        reply = cls(*split_reply(decode(frame)))
        reply.size = len(frame)
        return reply

    @classmethod
    def undelivered(cls, status: int, body: str) -> 'Reply':
        """Make a reply that tells why none came."""
        reply = cls(status, body)
        reply.delivered = False
        return reply

    @property
    def ok(self) -> bool:
        """Whether the status is one of success: 200 to 299."""
        return 200 <= self.status < 300

    def raise_for_status(self) -> 'Reply':
        """Raise where the reply is no success.

        :returns: the reply itself
        :raises ReplyError: with the reply's status and body
        """
        if not self.ok:
            raise ReplyError(self.status, self.body)
        return self
