"""Messages and replies as they travel, and what a caller makes of them."""

import copy
import json
import math
import pickle
from contextlib import suppress

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from pyams_zmq.client import Reply
from pyams_zmq.exceptions import AddressError, ExitCode, ProcessStartError, ReplyError
from pyams_zmq.wire import decode, decode_message, encode, error_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)

# Encoding


def test_encoding():
    assert encode([200, 'é', {'a': [None, True]}]) == b'[200, "\\u00e9", {"a": [null, true]}]'


@pytest.mark.parametrize('value', [None, 1, 'é', [1, {'a': [2.5]}], {'ü': '\U0001f600'}, '\ud800', 2**70])
def test_encode_writes_what_json_writes_by_default(value):
    assert encode(value) == json.dumps(value).encode()


def test_nan_and_infinity_travel_as_python_writes_them():
    assert encode([math.nan, math.inf, -math.inf]) == b'[NaN, Infinity, -Infinity]'
    nan, *infinities = decode(b'[NaN, Infinity, -Infinity]')
    assert math.isnan(nan)
    assert infinities == [math.inf, -math.inf]


def circular():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ('value', 'error'),
    [
        ({1, 2}, TypeError),
        (b'bytes', TypeError),
        (object(), TypeError),
        ({(1, 2): 3}, TypeError),
        (circular(), ValueError),
    ],
)
def test_what_json_cannot_hold(value, error):
    with pytest.raises(error):
        encode(value)


# Decoding


@pytest.mark.parametrize(
    ('frame', 'value'),
    [
        (b'null', None),
        (b' [1, 2] ', [1, 2]),
        ('"é"'.encode(), 'é'),
        (b'"\\u00e9"', 'é'),
        (b'{"a": 1, "a": 2}', {'a': 2}),
        (bytearray(b'[1]'), [1]),
        (memoryview(b'[1]'), [1]),
        (zmq.Frame(b'[1, "\xc3\xa9"]'), [1, 'é']),
    ],
)
def test_decode(frame, value):
    assert decode(frame) == value


@pytest.mark.parametrize(
    'frame',
    [
        b'',
        b'\0',
        b'\xff',
        b'\xed\xa0\x80',
        b'[200, "caf\xe9"]',
        b'[',
        b'nul',
        b'[1] [2]',
        b"['a']",
        b'[1,]',
        b'9' * 5000,
        b'[' * 100_000,
        b'{"a":' * 100_000,
        b'\xef\xbb\xbf[]',
        '[1]'.encode('utf-16'),
    ],
    ids=lambda frame: ascii(frame[:12]),
)
def test_what_is_not_json(frame):
    with pytest.raises(ValueError):
        decode(frame)


@settings(deadline=None)
@given(JSON)
def test_what_is_encoded_can_be_decoded(value):
    assert decode(encode(value)) == value


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_decoding_raises_nothing_but_value_error(frame):
    with suppress(ValueError):
        decode(frame)
    try:
        message_type, _data = decode_message(frame)
    except ReplyError as error:
        assert error.status == 400
        json.dumps(error.body)
    else:
        assert isinstance(message_type, str)


# Messages


def test_message():
    assert decode_message(b'["echo", {"a": 1}]') == ('echo', {'a': 1})
    assert decode_message(zmq.Frame(b'["", NaN]'))[0] == ''


@pytest.mark.parametrize(
    ('frame', 'reason'),
    [
        (b'', 'not JSON'),
        (b'\xff', 'not UTF-8'),
        (b'{', 'not JSON'),
        (b'[' * 100_000, 'not JSON'),
        (b'null', 'a pair'),
        (b'"ab"', 'a pair'),
        (b'{"a": 1, "b": 2}', 'a pair'),
        (b'["echo"]', 'a pair'),
        (b'["echo", 1, 2]', 'a pair'),
        (b'[1, 2]', 'a string'),
        (b'[null, 2]', 'a string'),
        (b'[["echo"], 2]', 'a string'),
    ],
    ids=lambda given: ascii(given[:12]),
)
def test_what_is_no_message(frame, reason):
    with pytest.raises(ReplyError) as error:
        decode_message(frame)
    assert error.value.status == 400
    assert reason in error.value.body


# The reply


def test_a_reply_is_a_pair():
    reply = Reply(200, {'a': 1})
    status, body = reply
    assert (status, body) == (200, {'a': 1}) == reply
    assert (reply.status, reply.body) == (reply[0], reply[1]) == (200, {'a': 1})
    assert len(reply) == 2
    assert isinstance(reply, tuple)
    assert hash(Reply(200, 'a')) == hash((200, 'a'))
    assert json.dumps(reply) == '[200, {"a": 1}]'
    assert repr(Reply(404, 'x')) == "Reply(status=404, body='x')"


@pytest.mark.parametrize(
    ('status', 'ok'),
    [
        *[(status, True) for status in (200, 202, 204, 299)],
        *[(status, False) for status in (0, -1, 100, 199, 300, 304, 400, 404, 500, 503, 2000)],
    ],
)
def test_ok_and_raise_for_status(status, ok):
    reply = Reply(status, ['body'])
    assert reply.ok is ok
    assert reply.delivered is True
    if ok:
        assert reply.raise_for_status() is reply
    else:
        with pytest.raises(ReplyError) as error:
            reply.raise_for_status()
        assert (error.value.status, error.value.body) == (status, ['body'])


@pytest.mark.parametrize(
    ('frame', 'expected'),
    [
        (b'[200, {"a": 1}]', (200, {'a': 1})),
        (b'[404, null]', (404, None)),
        (b'[-5, [1, 2]]', (-5, [1, 2])),
        (b'[0, 0]', (0, 0)),
        (b'null', (200, None)),
        (b'true', (200, True)),
        (b'503', (200, 503)),
        (b'"text"', (200, 'text')),
        (b'{"status": 500}', (200, {'status': 500})),
        (b'[]', (200, [])),
        (b'[500]', (200, [500])),
        (b'[500, 1, 2]', (200, [500, 1, 2])),
        (b'["500", 1]', (200, ['500', 1])),
        (b'[500.0, 1]', (200, [500.0, 1])),
        (b'[null, 1]', (200, [None, 1])),
        (b'[[500], 1]', (200, [[500], 1])),
    ],
)
def test_anything_but_a_status_and_a_body_is_the_body_of_a_200(frame, expected):
    reply = Reply.received(frame)
    assert reply == expected
    assert type(reply) is Reply
    assert reply.delivered


@pytest.mark.parametrize('frame', [b'[true, 1]', b'[false, 1]'])
def test_a_truth_value_is_no_status(frame):
    reply = Reply.received(frame)
    assert reply == (200, json.loads(frame))
    assert type(reply.status) is int


@pytest.mark.parametrize('frame', [b'', b'\xff', b'[200, '])
def test_a_reply_that_is_not_json(frame):
    with pytest.raises(ValueError):
        Reply.received(frame)


@settings(deadline=None)
@given(JSON)
def test_every_reply_can_be_received(value):
    reply = Reply.received(encode(value))
    assert isinstance(reply.status, int)
    assert not isinstance(reply.status, bool)
    assert reply.body == (value if reply == (200, value) else value[1])


def test_a_reply_that_never_came():
    reply = Reply.undelivered(503, 'nobody')
    assert reply == (503, 'nobody')
    assert type(reply) is Reply
    assert not reply.ok
    assert reply.delivered is False
    # It is no property of the class, nor of other replies.
    assert Reply.delivered is True
    assert Reply(503, 'busy').delivered is True


PICKLES = [
    lambda value, n=n: pickle.loads(pickle.dumps(value, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)
]


@pytest.mark.parametrize('duplicate', [copy.copy, copy.deepcopy, *PICKLES])
def test_copies(duplicate):
    for reply in (Reply(200, {'a': [1]}), Reply.undelivered(504, 'late')):
        twin = duplicate(reply)
        assert type(twin) is Reply
        assert twin == reply
        assert twin.delivered is reply.delivered
    for error in (
        ReplyError(409, {'a': 1}),
        ReplyError(500),
        ProcessStartError('no port', 3),
        ProcessStartError('who knows'),
        AddressError(98, 'tcp://127.0.0.1:1: in use'),
    ):
        twin = duplicate(error)
        assert type(twin) is type(error)
        assert twin.args == error.args
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


# Exceptions


def test_reply_error():
    error = ReplyError(409, 'taken')
    assert (error.status, error.body) == (409, 'taken')
    assert str(error) == '409 taken'
    assert ReplyError(404).body is None


def test_process_start_error():
    error = ProcessStartError('the reason', 3)
    assert (error.reason, error.exitcode) == ('the reason', 3)
    assert isinstance(error, RuntimeError)
    assert 'the reason' in str(error)
    assert '3' in str(error)
    assert ProcessStartError('the reason').exitcode is None


def test_address_error():
    error = AddressError(98, 'tcp://127.0.0.1:1: in use')
    assert isinstance(error, OSError)
    assert error.errno == 98
    assert 'tcp://127.0.0.1:1' in str(error)


def test_exit_codes_are_distinct():
    codes = [int(code) for code in ExitCode]
    assert len(ExitCode.__members__) == len(set(codes))
    assert ExitCode.OK == 0
    # From 126 on they mean something to shells.
    assert all(0 < code < 126 for code in codes if code)


@pytest.mark.parametrize('mute', [ValueError, KeyboardInterrupt])
def test_texts_of_errors(mute):
    class Silent(Exception):
        def __str__(self):
            raise mute

    assert error_text(ValueError('bad')) == 'ValueError: bad'
    assert error_text(KeyError('bad')) == "KeyError: 'bad'"
    assert error_text(Silent()) == 'Silent: no description'
