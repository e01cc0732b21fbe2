"""Messages that nobody would write by hand, for :mod:`hypothesis`: any bytes, and any JSON."""

import json

from hypothesis import strategies as st

_NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(json.dumps),  # NaN and Infinity among them
    st.sampled_from(['-0', '1e999', '-1e-999', '0.' + '1' * 400]),
    st.integers(1, 6000).map(lambda digits: '7' * digits),
)
_ANY_CHARACTERS = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates, too
_STRINGS = st.one_of(_ANY_CHARACTERS, st.text()).map(json.dumps)
# Few keys, so that some stand twice in an object.
_KEYS = st.sampled_from(['"a"', '"b"', '""', '"\\ud800"', '"__class__"'])


def _containers(inner):
    members = st.tuples(_KEYS, inner).map(':'.join)
    return st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f'[{",".join(items)}]'),
        st.lists(members, max_size=4).map(lambda items: f'{{{",".join(items)}}}'),
        st.tuples(st.integers(1, 1200), inner).map(lambda pair: '[' * pair[0] + pair[1] + ']' * pair[0]),
        st.tuples(st.integers(1, 1200), inner).map(lambda pair: '{"a":' * pair[0] + pair[1] + '}' * pair[0]),
    )


#: The text of any JSON that Python's parser may meet.
json_texts = st.recursive(
    st.one_of(st.sampled_from(['null', 'true', 'false']), _NUMBERS, _STRINGS), _containers, max_leaves=8
)


def message_texts(types):
    """Return a strategy for the text of a message of one of these types, or of any other."""
    names = st.one_of(st.sampled_from(types), _ANY_CHARACTERS).map(json.dumps)
    return st.tuples(names, json_texts).map(lambda pair: f'[{pair[0]}, {pair[1]}]')


def frames(types):
    """Return a strategy for a frame: any bytes, any text, any JSON, messages, and torn ones of them all."""
    whole = st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.one_of(json_texts, message_texts(types)).map(lambda text: text.encode('utf-8', 'surrogatepass')),
    )
    return st.one_of(
        whole, st.tuples(whole, st.integers(0, 50)).map(lambda pair: pair[0][: -pair[1] or None])
    )
