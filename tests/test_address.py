"""The forms in which an address may be given."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyams_zmq.address import Address, parse_address


@pytest.mark.parametrize(
    ('given', 'host', 'port', 'url'),
    [
        ('127.0.0.1:5555', '127.0.0.1', 5555, 'tcp://127.0.0.1:5555'),
        ('localhost:1', 'localhost', 1, 'tcp://localhost:1'),
        ('db_1.example.com:65535', 'db_1.example.com', 65535, 'tcp://db_1.example.com:65535'),
        ('tcp://127.0.0.1:5555', '127.0.0.1', 5555, 'tcp://127.0.0.1:5555'),
        (('127.0.0.1', 5555), '127.0.0.1', 5555, 'tcp://127.0.0.1:5555'),
        (('127.0.0.1', '5555'), '127.0.0.1', 5555, 'tcp://127.0.0.1:5555'),
        (['127.0.0.1', 5555], '127.0.0.1', 5555, 'tcp://127.0.0.1:5555'),
        ('*:5555', '*', 5555, 'tcp://*:5555'),
        ('eth0:5555', 'eth0', 5555, 'tcp://eth0:5555'),
        ('127.0.0.1', '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        (('127.0.0.1',), '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        (('127.0.0.1', None), '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        ('127.0.0.1:', '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        ('127.0.0.1:0', '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        ('127.0.0.1:*', '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        (('127.0.0.1', 0), '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        (('127.0.0.1', '*'), '127.0.0.1', None, 'tcp://127.0.0.1:*'),
        ('*', '*', None, 'tcp://*:*'),
        ('[::1]:5555', '::1', 5555, 'tcp://[::1]:5555'),
        ('[::1]', '::1', None, 'tcp://[::1]:*'),
        ('::1', '::1', None, 'tcp://[::1]:*'),
        (('::1', 5555), '::1', 5555, 'tcp://[::1]:5555'),
        (('[::1]', 5555), '::1', 5555, 'tcp://[::1]:5555'),
        ('[::]:5555', '::', 5555, 'tcp://[::]:5555'),
        ('[2001:DB8:0::1]:5555', '2001:db8::1', 5555, 'tcp://[2001:db8::1]:5555'),
        ('tcp://[::1]:5555', '::1', 5555, 'tcp://[::1]:5555'),
        ('[fe80::1%eth0]:5555', 'fe80::1%eth0', 5555, 'tcp://[fe80::1%eth0]:5555'),
        ('[::ffff:127.0.0.1]:5555', '::ffff:127.0.0.1', 5555, None),
    ],
)
def test_tcp(given, host, port, url):
    address = parse_address(given)
    assert address.transport == 'tcp'
    assert address.port == port
    if url is not None:
        # IPv4-mapped addresses are written in two ways, depending on the version of Python.
        assert address.host == host
        assert address.url == url
    assert address.ipv6 is (':' in host)
    # What was understood is understood again.
    assert parse_address(address.url) == address


@pytest.mark.parametrize(
    ('given', 'transport', 'name', 'url'),
    [
        ('ipc:///run/app/socket', 'tcp', '/run/app/socket', 'ipc:///run/app/socket'),
        ('/run/app/socket', 'ipc', '/run/app/socket', 'ipc:///run/app/socket'),
        ('ipc://relative', 'tcp', 'relative', 'ipc://relative'),
        ('ipc:///with:colon', 'tcp', '/with:colon', 'ipc:///with:colon'),
        ('inproc://name', 'tcp', 'name', 'inproc://name'),
        ('name', 'inproc', 'name', 'inproc://name'),
    ],
)
def test_other_transports(given, transport, name, url):
    address = parse_address(given, transport)
    assert address == Address(url.partition(':')[0], name, None)
    assert address.url == url
    assert not address.ipv6


def test_the_transport_in_the_text_counts():
    assert parse_address('tcp://127.0.0.1:5555', 'ipc').url == 'tcp://127.0.0.1:5555'


BAD = [
    '',
    ':5555',
    ' ',
    'a b:5555',
    '127.0.0.1:port',
    '127.0.0.1:-1',
    '127.0.0.1:65536',
    '127.0.0.1:99999999999999999999',
    '127.0.0.1:' + '9' * 5000,
    '127.0.0.1:5555/path',
    '127.0.0.1:5.5',
    '127.0.0.1:5555 ',
    '127.0.0.1: 5555',
    '127.0.0.1:+5555',
    '127.0.0.1:5_555',
    '127.0.0.1:٥٥٥٥',
    '127.0.0.1:5555\n',
    ' 127.0.0.1:5555',
    '127.0.0.1:5555:5555',
    '1:2:3',
    '[::1',
    '[::1:5555',
    '::1]:5555',
    '[::1]5555',
    '[::1]:port',
    '[127.0.0.1',
    '[gg::1]:5555',
    '[]:5555',
    'user@host:5555',
    'host/path:5555',
    'tcp://',
    'tcp://:5555',
    'tcp://tcp://host:5555',
    'tcp:/127.0.0.1:5555',
    'ipc://',
    'ipc://a\0b',
    None,
    5555,
    5.5,
    True,
    b'127.0.0.1:5555',
    (),
    (None, 5555),
    ('', 5555),
    (b'127.0.0.1', 5555),
    ('127.0.0.1', 5555.0),
    ('127.0.0.1', True),
    ('127.0.0.1', b'5555'),
    ('127.0.0.1', -1),
    ('127.0.0.1', 65536),
    ('127.0.0.1', 5555, 5555),
    ('127.0.0.1:5555', 5555),
    ('tcp://127.0.0.1', 5555),
    ('[::1', 5555),
    ('::1]', 5555),
    Ellipsis,
]


@pytest.mark.parametrize('address', BAD, ids=lambda address: ascii(address)[:40])
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match=r'give|is written|names a path'):
        parse_address(address)


@pytest.mark.parametrize(
    ('address', 'culprit', 'advice'),
    [
        ('127.0.0.1:port', "'port'", 'number from 0 to 65535'),
        ('a b:5555', "'a b'", 'give a name, an address, an interface'),
        (None, 'None', "give 'host:port' or (host, port)"),
        (('a', 1, 2), "('a', 1, 2)", "give 'host:port' or (host, port)"),
        ('[::1:5555', "'[::1:5555'", "'[::1]:5555'"),
        ('ipc://', "''", 'names a path'),
    ],
)
def test_the_error_names_the_culprit_and_says_what_to_give(address, culprit, advice):
    with pytest.raises(ValueError) as error:
        parse_address(address)
    assert culprit in str(error.value)
    assert advice in str(error.value)


PORTS = st.none() | st.integers() | st.text() | st.floats() | st.booleans() | st.binary()
ANYTHING = (
    st.text()
    | st.text('0123456789:[]*./%abfx- ')
    | st.tuples(st.text(), PORTS)
    | st.lists(PORTS)
    | st.binary()
    | st.recursive(st.none() | st.integers() | st.floats(), st.lists)
    | st.dictionaries(st.text(), st.text())
)


@settings(deadline=None)
@given(ANYTHING, st.sampled_from(['tcp', 'ipc', 'inproc']))
def test_nothing_raises_anything_but_value_error(anything, transport):
    try:
        address = parse_address(anything, transport)
    except ValueError as error:
        assert str(error)
    else:
        assert '\0' not in address.url
        if address.transport == 'tcp':
            assert not set(address.url) & set(' \t\r\n/') - {'/'}
            assert address.port is None or 0 < address.port < 65536
            assert parse_address(address.url) == address


@settings(deadline=None)
@given(st.from_regex(r'[a-z][a-z0-9]{0,20}(\.[a-z0-9]{1,10}){0,3}', fullmatch=True), st.integers(1, 65535))
def test_all_forms_mean_the_same(host, port):
    expected = Address('tcp', host, port)
    for form in (f'{host}:{port}', (host, port), [host, str(port)], f'tcp://{host}:{port}'):
        assert parse_address(form) == expected
    assert expected.url == f'tcp://{host}:{port}'


@settings(deadline=None)
@given(st.ip_addresses(v=6), st.integers(1, 65535))
def test_ipv6_addresses(address, port):
    forms = [f'[{address}]:{port}', (str(address), port), f'tcp://[{address}]:{port}', (f'[{address}]', port)]
    assert {parse_address(form) for form in forms} == {Address('tcp', str(address), port)}
    assert parse_address(forms[0]).ipv6
