"""What a stranger who has read the documentation and the sources tries: see ``docs/security.rst``."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import psutil
import pytest

import work
from chaos import zmtp
from chaos.service import Attacked, Handler
from chaos.target import Target
from doors import Keys
from peers import handler_of, message
from pyams_zmq import security
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode, ProcessStartError, SettingError
from pyams_zmq.jobs.records import _short
from services import Process

# Folders in which others may write


def test_a_link_planted_where_the_journal_s_lock_will_be(start, tmp_path):
    precious = tmp_path / 'precious'
    precious.write_text('as it was')
    (tmp_path / 'journal.lock').symlink_to(precious)
    with pytest.raises(ProcessStartError, match='journal cannot be locked: .*symbolic link') as caught:
        start(handler=handler_of(work.Work()), cls=with_journal(tmp_path / 'journal'))
    assert caught.value.exitcode == ExitCode.SETUP
    assert precious.read_text() == 'as it was'


def test_a_journal_that_others_may_change(start, tmp_path):
    """They could have methods run with what they like."""
    journal = tmp_path / 'journal'
    journal.touch()
    journal.chmod(0o666)
    with pytest.raises(
        ProcessStartError, match=r'journal has mode 0666, so others may change it: chmod go-w'
    ):
        start(handler=handler_of(work.Work()), cls=with_journal(journal))
    assert journal.stat().st_size == 0


def with_journal(path):
    return type('Configured', (Process,), {'journal': str(path)})


# Mistakes of whoever closes the door


def test_no_user_at_all_is_not_everybody():
    with pytest.raises(SettingError, match='auth names no user'):
        Process('127.0.0.1', Handler, {})


# Too much of it


def test_a_crowd_at_the_door_does_not_fill_the_disk(start, log_file, wait_until, monkeypatch):
    """But the log tells how many there were."""
    monkeypatch.setattr(security, '_SPAN', 0.5)
    monkeypatch.setattr(security, '_REFUSALS', 2)
    process = start('127.0.0.1', handler_of(Recorder()), 'honest:sesame')
    service = Target(process.pid, process.endpoint)
    refused = 0

    def told():
        nonlocal refused
        with zmtp.dial(service) as connection:
            connection.sendall(PLAIN)
            zmtp.receive(connection, len(PLAIN))
            connection.sendall(WRONG)
            assert b'400' in connection.recv(4096)
        refused += 1
        return 'further connections were refused' in log_file.read_text()

    wait_until(told)
    log = log_file.read_text()
    lines = log.count('Connection refused: wrong user name or password from 127.0.0.1')
    others = sum(map(int, re.findall('([0-9]+) further connections were refused', log)))
    assert others >= 1
    assert lines + others == refused


@pytest.mark.parametrize('auth', [None, 'honest:sesame'])
def test_a_process_without_descriptors_ends_in_order(start, auth, wait_until):
    most = psutil.Process().num_fds() + 60  # it inherits those of the tests
    process = start(
        '127.0.0.1', Handler, auth, cls=type('Poor', (Attacked,), {'descriptors': most, 'workers': 1})
    )
    service = Target(process.pid, process.endpoint, auth)
    with (
        service.client() as one,
        service.client() as other,
        ExitStack() as stack,
        ThreadPoolExecutor() as pool,
    ):
        assert one.call('echo', 1) == other.call('echo', 1) == (200, 1)
        assert one.call('_status').ok  # which imports what it needs
        for _ in range(100):
            stack.enter_context(zmtp.dial(service))
        wait_until(lambda: psutil.Process(process.pid).num_fds() >= most)
        reply = pool.submit(one.call, 'slow', 0.3)
        wait_until(lambda: other.call('_status').body['in_flight'])
        process.stop()
        process.join(30)
        assert reply.result() == (200, 0.3)
    assert process.exitcode == ExitCode.OK


# Doors: whoever knows the protocol better than 0MQ's own clients

REQUEST = zmtp.header(0, more=True) + zmtp.header(len(message('echo', 1))) + message('echo', 1)
PLAIN = zmtp.greeting(b'PLAIN')
WRONG, RIGHT = zmtp.hello('honest:wrong'), zmtp.hello('honest:sesame')

#: Who waits for an answer after each step, and goes on whatever that is.
WORDS = {
    # Which has no greeting, but begins with an identity.
    'ZMTP 1.0': [b'\1\0', b'\1\1' + bytes([len(message('echo', 1)) + 1, 0]) + message('echo', 1)],
    'ZMTP 2.0': [b'\xff\0\0\0\0\0\0\0\1\x7f\1\3\0\0', REQUEST],
    'NULL, without an introduction': [zmtp.GREETING, REQUEST],
    'NULL': [zmtp.GREETING, zmtp.READY, REQUEST],
    'CURVE': [zmtp.greeting(b'CURVE'), REQUEST],
    'GSSAPI': [zmtp.greeting(b'GSSAPI'), REQUEST],
    'no mechanism': [zmtp.greeting(b''), zmtp.READY, REQUEST],
    'no HELLO': [PLAIN, REQUEST],
    'INITIATE without HELLO': [PLAIN, zmtp.INITIATE, REQUEST],
    'all at once': [PLAIN, WRONG + zmtp.INITIATE + REQUEST],
    'a message after a wrong password': [PLAIN, WRONG, REQUEST],
    'INITIATE after a wrong password': [PLAIN, WRONG, zmtp.INITIATE, REQUEST],
    'the right password after a wrong one': [PLAIN, WRONG + RIGHT, zmtp.INITIATE, REQUEST],
    'no INITIATE': [PLAIN, RIGHT, REQUEST],
}
LET_IN = [PLAIN, RIGHT, zmtp.INITIATE, REQUEST]


@pytest.mark.parametrize(
    ('auth', 'clients', 'let_in'),
    [
        ('honest:sesame', None, [LET_IN]),
        ('honest:sesame', '127.0.0.1', [LET_IN]),
        ('honest:sesame', '10.0.0.1', []),
        (None, '10.0.0.1', []),
        (None, '127.0.0.1', [WORDS['NULL']]),
    ],
)
def test_words_that_open_no_door(start, log_file, auth, clients, let_in):
    process = start('127.0.0.1', handler_of(Recorder()), auth, clients)
    service = Target(process.pid, process.endpoint)
    for name, words in [*WORDS.items(), ('let in', LET_IN)]:
        assert (b'[200' in said(service, words)) == (words in let_in), name
    assert log_file.read_text().count('executed') == len(let_in)


def test_words_that_open_no_door_with_a_lock(start, log_file, tmp_path):
    keys = Keys(tmp_path)
    process = start(handler=handler_of(Recorder()), cls=type('Locked', (Process,), keys.options))
    service = Target(process.pid, process.endpoint)
    for name, words in [*WORDS.items(), ('let in', LET_IN)]:
        assert b'[200' not in said(service, words), name
    assert log_file.read_text().count('executed') == 0
    with ZMQClient(process.endpoint, **keys.curve(keys.known)) as client:
        assert client.call('echo', 1) == (200, 1)


def said(service, words):
    """What a service answers to the last of them."""
    answer = b''
    with zmtp.dial(service) as connection, suppress(OSError):
        for index, step in enumerate(words):
            if index == 1:
                zmtp.receive(connection, len(zmtp.GREETING))
            elif index > 1:
                zmtp.receive(connection, zmtp.receive(connection, 2)[1])  # a frame
            connection.sendall(step)
        # Until it hangs up, or there is what should not.
        while b'[200' not in answer and (part := connection.recv(4096)):
            answer += part
    return answer


class Recorder:
    process = None

    def echo(self, data):
        logging.getLogger('recorder').info('executed')
        return [200, data]


# Names


@pytest.mark.parametrize(
    'name',
    [
        '\uff3fstatus',
        '\uff45cho',
        'echo.__func__',
        'echo ',
        'echo\0',
        'process',
        'process.stop',
        'mro',
        '',
        '%s',
        '{0}',
    ],
)
def test_names_that_are_no_messages(start, call, name):
    process = start(handler=handler_of(Recorder()))
    assert call(process, name) == (404, f'No such message type: {name}')


def test_a_name_forges_no_line_of_the_log(start, call, log_file):
    class Moody:
        process = None

        def __getattr__(self, name):
            raise LookupError

    process = start(handler=handler_of(Moody()))
    assert call(process, 'x\nCRITICAL all is lost\r\x1b[2J').status == 500
    log = log_file.read_text()
    assert "'x\\nCRITICAL all is lost\\r\\x1b[2J'" in log
    assert '\nCRITICAL' not in log


def test_a_failure_nested_deeply_does_not_keep_others_from_being_listed():
    """The beginning of what was raised is all that a list has of it."""
    assert _short('[' * 1000) == '[' * 1000
