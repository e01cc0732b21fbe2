"""Messages and replies as they travel, and what a caller makes of them."""

import pytest
import zmq

from pyams_zmq.exceptions import ReplyError
from pyams_zmq.wire import Reply, decode, decode_message, encode, error_text


@pytest.mark.parametrize(
    ('sent', 'reply'),
    [
        (b'[200, {"a": 1}]', (200, {'a': 1})),
        (b'[404, null]', (404, None)),
        (b'null', (200, None)),
        (b'[true, 1]', (200, [True, 1])),
        (b'[200]', (200, [200])),
        (b'[200, 1, 2]', (200, [200, 1, 2])),
        (b'["200", 1]', (200, ['200', 1])),
        (b'[200.0, 1]', (200, [200.0, 1])),
        (b'{"status": 200}', (200, {'status': 200})),
    ],
)
def test_what_a_caller_gets(sent, reply):
    received = Reply.received(sent)
    assert received == reply
    status, body = received
    assert (status, body) == reply
    assert received.delivered


def test_status():
    assert Reply(204, None).ok
    assert not Reply(404, 'no').ok
    assert Reply(200, 'yes').raise_for_status() == (200, 'yes')
    with pytest.raises(ReplyError, match='409 taken') as caught:
        Reply(409, 'taken').raise_for_status()
    assert (caught.value.status, caught.value.body) == (409, 'taken')
    reply = Reply.undelivered(503, 'nobody')
    assert reply == (503, 'nobody')
    assert not reply.delivered


def test_frames_of_0mq_are_read():
    assert decode(zmq.Frame(b'[1, "\xc3\xa9"]')) == [1, 'é']
    assert decode_message(zmq.Frame(b'["type", NaN]'))[0] == 'type'


@pytest.mark.parametrize('sent', [b'\xff', b'[', b'\xef\xbb\xbf[]', b'[' * 100_000, b'9' * 5000, b''])
def test_what_is_no_json(sent):
    with pytest.raises(ValueError):
        decode(sent)


def test_encoding():
    assert encode([200, 'é', {'a': [None, True]}]) == b'[200, "\\u00e9", {"a": [null, true]}]'
    with pytest.raises(TypeError):
        encode({1})


def test_texts_of_errors():
    class Silent(Exception):
        def __str__(self):
            raise KeyboardInterrupt

    assert error_text(ValueError('x')) == 'ValueError: x'
    assert error_text(Silent()) == 'Silent: no description'
