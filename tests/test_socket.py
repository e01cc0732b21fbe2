"""The helpers of a caller, as faithful as their users are careless."""

import gc
import json
import multiprocessing
import resource
import socket as sockets
import subprocess
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory

import psutil
import pytest
import zmq

from peers import STRICT_PYTHON, in_fork
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.socket import zmq_response, zmq_socket
from services import Echo

TIMEOUT = [503, 'Connection timeout']


@pytest.fixture(autouse=True, scope='module')
def _resource_tracker():
    """multiprocessing's helper for spawn, started here so that it outlives the test that needs it first."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # another module's tests may have ended it
        resource_tracker.ensure_running()


@pytest.fixture
def ipc_path():
    """A path short enough for a socket."""
    with TemporaryDirectory(prefix='zmq') as folder:
        yield f'{folder}/s'


@pytest.fixture
def nobody():
    """An address where nobody listens, while it is held."""
    with sockets.socket() as holder:
        holder.bind(('127.0.0.1', 0))
        yield f'127.0.0.1:{holder.getsockname()[1]}'


@pytest.fixture
def context():
    """A context for the other side."""
    with zmq.Context() as context:
        context.linger = 0
        yield context
        context.destroy(0)


def ask(address, message_type='echo', data=None, timeout=10, **kwargs):
    with zmq_socket(address, **kwargs) as socket:
        socket.send_json([message_type, data])
        return zmq_response(socket, timeout=timeout)


def host_and_port(process):
    return process.endpoint.removeprefix('tcp://')


# Addresses


def test_forms_of_an_address(start):
    process = start()
    host, _, port = host_and_port(process).rpartition(':')
    for address in (f'{host}:{port}', (host, int(port)), (host, port), [host, port], f'tcp://{host}:{port}'):
        assert ask(address, data='x') == [200, 'x']
    assert ask(f'localhost:{port}', data='x') == [200, 'x']
    assert ask(f'{host}:{port}', protocol='tcp', data='x') == [200, 'x']


def test_arguments_by_position(start):
    process = start(auth='user:pass:word')
    socket = zmq_socket(host_and_port(process), zmq.REQ, 0, 'tcp', 'user:pass:word')
    socket.send_json(['echo', 'x'])
    assert zmq_response(socket, zmq.POLLIN, 10) == [200, 'x']


def test_ipc(start, ipc_path):
    process = start(f'ipc://{ipc_path}')
    assert process.endpoint == f'ipc://{ipc_path}'
    assert ask(f'ipc://{ipc_path}', data='x') == [200, 'x']
    assert ask(ipc_path, protocol='ipc', data='x') == [200, 'x']


def test_ipv6(start):
    process = start('[::1]')
    port = process.endpoint.rpartition(':')[2]
    assert process.endpoint == f'tcp://[::1]:{port}'
    for address in (f'[::1]:{port}', ('::1', int(port)), process.endpoint):
        assert ask(address, data='x') == [200, 'x']


NO_ADDRESSES = [
    '',
    'localhost',
    'localhost:',
    'localhost:0',
    'localhost:*',
    ':5555',
    '*:5555',
    ('localhost',),
    ('localhost', 5555, 1),
    '[::1]',
    'a b:5555',
    'localhost:port',
    '127.0.0.1:70000',
    None,
    5555,
    b'localhost:5555',
    'tcp://',
    'ipc://',
    'foo://localhost:5555',
    'http://localhost:5555',
]


@pytest.mark.parametrize('address', NO_ADDRESSES)
def test_an_address_that_makes_no_sense(address):
    with pytest.raises(ValueError) as error:
        zmq_socket(address)
    assert str(error.value)


# Credentials


@pytest.mark.parametrize(
    'auth', ['user:password', 'user:pass:word', 'user::', 'üser:pässwörd€', 'u:' + 'p' * 255]
)
def test_credentials(start, auth):
    process = start(auth=auth)
    assert ask(process.endpoint, data='x', auth=auth) == [200, 'x']


NO_CREDENTIALS = [
    'no-colon-sesame',
    ':sesame',
    'sesame:',
    ':',
    5,
    b'user:sesame',
    ('user', 'sesame'),
    ['user:sesame'],
    'user:sesame' + 'x' * 250,
    'x' * 256 + ':sesame',
    'user:sesame' + 'é' * 125,
    'user:sesame\ud800',
]


@pytest.mark.parametrize('auth', NO_CREDENTIALS, ids=lambda auth: ascii(auth)[:30])
def test_credentials_that_make_no_sense(auth):
    with pytest.raises(ValueError) as error:
        zmq_socket('127.0.0.1:5555', auth=auth)
    assert 'auth' in str(error.value)
    assert 'sesame' not in str(error.value)
    assert 'sesame' not in repr(error.value.args)
    with pytest.raises(ValueError):
        ZMQClient('127.0.0.1:5555', auth=auth)


@pytest.mark.parametrize('auth', [None, ''])
def test_no_credentials(start, auth):
    assert ask(start().endpoint, data='x', auth=auth) == [200, 'x']


# Options


def test_defaults():
    with zmq_socket('127.0.0.1:5555') as socket:
        assert isinstance(socket, zmq.Socket)
        assert socket.type == zmq.REQ
        assert socket.linger == 0
        assert socket.mechanism == zmq.NULL


@pytest.mark.parametrize(
    'socket_type', [zmq.REQ, zmq.DEALER, zmq.PUSH, zmq.SUB, zmq.PUB, zmq.PAIR, zmq.ROUTER]
)
@pytest.mark.parametrize('linger', [0, 100, -1])
def test_types_and_linger(socket_type, linger):
    with zmq_socket('127.0.0.1:5555', socket_type, linger) as socket:
        assert socket.type == socket_type
        assert socket.linger == linger


def test_push_and_pull(context):
    with context.socket(zmq.PULL) as pull:
        port = pull.bind_to_random_port('tcp://127.0.0.1')
        with zmq_socket(f'127.0.0.1:{port}', zmq.PUSH, linger=5000) as push:
            push.send_json(['a', 1])
        # Closed at once; the linger gives the message its time.
        assert pull.poll(5000)
        assert pull.recv_json() == ['a', 1]


def test_sub(context):
    with context.socket(zmq.XPUB) as pub:
        port = pub.bind_to_random_port('tcp://127.0.0.1')
        with zmq_socket(f'127.0.0.1:{port}', zmq.SUB) as sub:
            sub.subscribe(b'')
            assert pub.poll(5000)
            assert pub.recv() == b'\x01'
            pub.send_json({'a': 1})
            assert zmq_response(sub) == {'a': 1}


# Replies


@pytest.fixture
def answering(context):
    """A plain REP that answers each request with the frames given; returns its address."""
    threads = []

    def answering(*frames):
        rep = context.socket(zmq.REP)
        port = rep.bind_to_random_port('tcp://127.0.0.1')

        def answer():
            with rep:
                while rep.recv_multipart() != [b'END']:
                    rep.send_multipart(frames)

        threads.append((threading.Thread(target=answer, daemon=True), port))
        threads[-1][0].start()
        return f'127.0.0.1:{port}'

    yield answering
    for thread, port in threads:
        with context.socket(zmq.REQ) as bell:
            bell.connect(f'tcp://127.0.0.1:{port}')
            bell.send(b'END')
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    'reply', [[200, {'a': 'é'}], None, 'text', 5, True, [], [1, 2, 3], {'a': 1}, 2.5, [404, 'x']]
)
def test_the_reply_is_decoded_and_nothing_else(answering, reply):
    address = answering(json.dumps(reply, ensure_ascii=False).encode())
    assert ask(address) == reply


def test_a_reply_that_is_not_json(answering):
    with pytest.raises(ValueError):
        ask(answering(b'\xff'))
    with pytest.raises(ValueError):
        ask(answering(b'[200'))


def test_messages_of_several_frames(start):
    class Frames(Echo):
        def echo(self, first, data):
            return [200, [bytes(first).decode(), data]]

    handler = type('FramesHandler', (ZMQMessageHandler,), {'handler': Frames})
    process = start(handler=handler)
    with zmq_socket(process.endpoint) as socket:
        for number in range(3):
            socket.send_multipart([b'first', json.dumps(['echo', number]).encode()])
            assert zmq_response(socket) == [200, ['first', number]]


# Time


@pytest.mark.parametrize('timeout', [0.2, 1])
def test_nobody_there(nobody, timeout):
    started = time.monotonic()
    assert ask(nobody, timeout=timeout) == TIMEOUT
    assert timeout - 0.05 <= time.monotonic() - started < timeout + 5


def test_nobody_there_by_ipc(ipc_path):
    assert ask(f'ipc://{ipc_path}', timeout=0.2) == TIMEOUT


def test_a_name_that_cannot_be_resolved():
    assert ask('no-such-host.invalid:5555', timeout=0.2) == TIMEOUT


@pytest.mark.parametrize('auth', [None, 'user:wrong'])
def test_refused(start, auth):
    process = start(auth='user:password')
    assert ask(process.endpoint, timeout=0.5, auth=auth) == TIMEOUT


def test_too_slow(start):
    process = start()
    with zmq_socket(process.endpoint) as socket:
        socket.send_json(['slow', 1])
        assert zmq_response(socket, timeout=0.2) == TIMEOUT
        # The reply is still to come, and may still be waited for.
        assert zmq_response(socket) == [200, process.pid]


def test_timeout_of_nothing(start, wait_until):
    process = start()
    with zmq_socket(process.endpoint) as socket:
        socket.send_json(['slow', 0.2])
        assert zmq_response(socket, timeout=0) == TIMEOUT
        wait_until(lambda: socket.poll(0))
        assert zmq_response(socket, timeout=0) == [200, process.pid]


def test_the_constant_is_the_callers_own(nobody):
    reply = ask(nobody, timeout=0)
    reply.append('changed')
    assert ask(nobody, timeout=0) == TIMEOUT


def in_time(script, *args):
    """Run a script in a process of its own, which may be stuck for ever; returns what it printed."""
    return run('import sys, zmq\nfrom pyams_zmq.socket import zmq_response, zmq_socket\n' + script, *args)


@pytest.mark.parametrize('flags', [zmq.POLLIN, zmq.POLLIN | zmq.POLLERR, zmq.POLLIN | zmq.POLLOUT])
def test_flags_with_an_answer(start, flags):
    process = start()
    with zmq_socket(process.endpoint) as socket:
        socket.send_json(['slow', 0.1])
        assert zmq_response(socket, flags) == [200, process.pid]


@pytest.mark.parametrize('flags', ['zmq.POLLIN', 'zmq.POLLOUT', 'zmq.POLLIN | zmq.POLLOUT'])
@pytest.mark.parametrize('socket_type', ['zmq.REQ', 'zmq.DEALER'])
def test_no_flags_wait_longer_than_the_timeout(nobody, flags, socket_type):
    # A DEALER can be written to all the time: that is no reply.
    script = f"""
socket = zmq_socket(sys.argv[1], {socket_type})
socket.send_json(['echo', 1])
print(zmq_response(socket, {flags}, 0.3))
"""
    assert in_time(script, nobody) == f'{TIMEOUT}\n'


def test_what_is_sent_after_a_refusal_does_not_wait_for_ever(start, log_file, wait_until):
    process = start(auth='user:sesame')
    script = """
socket = zmq_socket(sys.argv[1], auth='user:wrong')
events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
assert events.poll(10_000)
while socket.poll(0, zmq.POLLOUT):  # until the connection is given up
    pass
for _ in range(2):
    socket.send_json(['echo', 1])
    print(zmq_response(socket, timeout=0.1))
socket.disable_monitor()
events.close()
"""
    assert in_time(script, process.endpoint) == f'{TIMEOUT}\n' * 2


def test_other_sockets_wait_until_they_can_send(nobody):
    with zmq_socket(nobody, zmq.PUSH) as socket:
        socket.sndhwm = 1
        while socket.poll(0, zmq.POLLOUT):
            socket.send(b'', zmq.NOBLOCK)
        with pytest.raises(zmq.Again):
            socket.send(b'', zmq.NOBLOCK)
        socket.sndtimeo = 50
        with pytest.raises(zmq.Again):
            socket.send(b'')


# Sockets that nobody closes


def threads_and_descriptors():
    process = psutil.Process()
    return process.num_threads(), process.num_fds()


@pytest.mark.slow
def test_ten_thousand_calls_whose_sockets_nobody_closes(start, wait_until):
    process = start(auth='user:password')

    def view(number):
        socket = zmq_socket(process.endpoint, auth='user:password')
        socket.send_json(['echo', number])
        return zmq_response(socket)

    assert view(0) == [200, 0]
    threads, descriptors = threads_and_descriptors()
    gc.disable()  # the last reference is enough
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            for number in range(10_000):
                assert view(number) == [200, number]
                if not number % 1000:
                    now = threads_and_descriptors()
                    # 0MQ closes in the background.
                    assert now[0] <= threads
                    assert now[1] <= descriptors + 1000
    finally:
        gc.enable()
    assert [str(one.message) for one in caught] == []
    wait_until(lambda: threads_and_descriptors()[1] <= descriptors + 3)


def test_nothing_is_made_per_call_but_the_socket(start, wait_until):
    process = start()
    held = [zmq_socket(process.endpoint)]
    threads, descriptors = threads_and_descriptors()
    for _ in range(100):
        held.append(zmq_socket(process.endpoint))
        held[-1].send_json(['echo', 1])
    assert [zmq_response(socket) for socket in held[1:]] == [[200, 1]] * 100
    now = threads_and_descriptors()
    assert now[0] == threads
    assert now[1] <= descriptors + 300
    assert len({id(socket.context) for socket in held}) == 1
    held.clear()
    wait_until(lambda: threads_and_descriptors()[1] <= descriptors)


def test_cycles_with_sockets_are_collected_in_silence(nobody, wait_until):
    zmq_socket(nobody).close()
    descriptors = threads_and_descriptors()[1]
    for _ in range(50):
        cycle = [zmq_socket(nobody)]
        cycle.append(cycle)
        del cycle
    gc.collect()
    wait_until(lambda: threads_and_descriptors()[1] <= descriptors + 3)


def test_errors_leave_nothing_behind(wait_until):
    zmq_socket('127.0.0.1:5555').close()
    descriptors = threads_and_descriptors()[1]
    for _ in range(50):
        with pytest.raises((ValueError, zmq.ZMQError)):
            zmq_socket('ipc://' + 'x' * 200)
        with pytest.raises(zmq.ZMQError):
            zmq_socket('127.0.0.1:5555', 999)
    wait_until(lambda: threads_and_descriptors()[1] <= descriptors + 3)


def test_more_sockets_at_once_than_a_context_holds_by_itself(nobody):
    wanted = 1500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < wanted * 2:
        pytest.skip(f'this system allows {hard} descriptors only')
    if 0 <= soft < wanted * 2:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted * 2, hard))
    try:
        held = [zmq_socket(nobody) for _ in range(wanted)]
        assert len({socket.fileno() for socket in held}) == wanted
        for socket in held:
            socket.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Threads and forks


def test_sixteen_threads(start):
    process = start()

    def caller(thread):
        return [ask(process.endpoint, data=[thread, number]) for number in range(50)]

    with ThreadPoolExecutor(16) as executor:
        for thread, replies in enumerate(executor.map(caller, range(16))):
            assert replies == [[200, [thread, number]] for number in range(50)]


def test_threads_that_come_first_share_one_context():
    script = """
import threading
from pyams_zmq.socket import zmq_socket
ready, contexts = threading.Barrier(16), []
def call():
    ready.wait()
    contexts.append(zmq_socket('127.0.0.1:5555').context)
threads = [threading.Thread(target=call) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(set(map(id, contexts))))
"""
    assert run(script) == '1\n'


def run(script, *args, timeout=10):
    """Run a script to its end; fails where it does not end in time, or says something wrong."""
    command = [*STRICT_PYTHON, '-X', 'dev', '-c', script, *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert result.stderr == ''
    assert result.returncode == 0
    return result.stdout


def test_a_forked_child_has_a_context_of_its_own(start):
    process = start()
    parents = zmq_socket(process.endpoint)
    parents.send_json(['echo', 'before'])

    def child():
        own = zmq_socket(process.endpoint)
        own.send_json(['echo', 'child'])
        return [zmq_response(own), own.context is parents.context]

    assert in_fork(child) == [[200, 'child'], False]
    # The child's end took nothing from its parent.
    assert zmq_response(parents) == [200, 'before']
    assert ask(process.endpoint, data='after') == [200, 'after']


def test_a_fork_of_a_fork(start):
    process = start()
    assert ask(process.endpoint, data='parent') == [200, 'parent']

    def child():
        return [
            ask(process.endpoint, data='child'),
            in_fork(lambda: ask(process.endpoint, data='grandchild')),
        ]

    assert in_fork(child) == [[200, 'child'], [200, 'grandchild']]
    assert ask(process.endpoint, data='parent') == [200, 'parent']


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_calls_from_a_process_of_multiprocessing(start, method):
    process = start()
    assert ask(process.endpoint, data='parent') == [200, 'parent']
    # Left open: the child's garbage collector finds it.
    left = zmq_socket(process.endpoint)
    context = multiprocessing.get_context(method)
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=call_and_tell, args=(process.endpoint, writer))
    child.start()
    writer.close()
    assert reader.poll(30)
    assert reader.recv() == [200, 'child']
    child.join(10)
    assert child.exitcode == 0
    reader.close()
    left.send_json(['echo', 'left'])
    assert zmq_response(left) == [200, 'left']


def call_and_tell(endpoint, writer):
    writer.send(ask(endpoint, data='child'))


def test_forks_while_other_threads_call(start):
    process = start()
    done = threading.Event()

    def caller():
        while not done.is_set():
            assert ask(process.endpoint, data=1) == [200, 1]

    with ThreadPoolExecutor(4) as executor:
        futures = [executor.submit(caller) for _ in range(4)]
        try:
            for number in range(20):
                assert in_fork(lambda n=number: ask(process.endpoint, data=n)) == [200, number]
        finally:
            done.set()
        for future in futures:
            future.result()


# The end of the interpreter


LEAVING = """
import sys
from pyams_zmq.socket import zmq_socket, zmq_response
from pyams_zmq.client import ZMQClient
"""


@pytest.mark.parametrize('linger', [0, -1, 60_000])
def test_the_interpreter_exits_with_messages_unsent(nobody, linger):
    # With a linger 0MQ would wait for a peer that never comes.
    script = f"""{LEAVING}
kept = zmq_socket(sys.argv[1], linger={linger})
kept.send_json(['echo', 1])
def view():
    socket = zmq_socket(sys.argv[1], linger={linger})
    socket.send_json(['echo', 1])
view()
client = ZMQClient(sys.argv[1])
print(client.call('echo', timeout=0.1).status)
"""
    assert run(script, nobody) == '503\n'


def test_the_interpreter_exits_with_sockets_open(start):
    process = start()
    script = f"""{LEAVING}
kept = [zmq_socket(sys.argv[1]) for _ in range(10)]
kept[0].send_json(['echo', 1])
print(zmq_response(kept[0])[0])
client = ZMQClient(sys.argv[1])
print(client.call('echo').status)
kept[1].send_json(['slow', 5])
cycle = [ZMQClient(sys.argv[1]), zmq_socket(sys.argv[1])]
cycle.append(cycle)
"""
    assert run(script, process.endpoint) == '200\n200\n'
    process.kill()


def test_the_interpreter_exits_while_threads_wait(nobody):
    script = f"""{LEAVING}
import threading
waiting = threading.Event()
def wait():
    socket = zmq_socket(sys.argv[1])
    socket.send_json(['echo', 1])
    waiting.set()
    zmq_response(socket, timeout=60)
threading.Thread(target=wait, daemon=True).start()
waiting.wait()
print('left')
"""
    assert run(script, nobody) == 'left\n'


def test_linger_lets_the_last_message_of_a_script_leave(context):
    # As in 2.0.0, where each call had a context of its own, which waited for its messages.
    with context.socket(zmq.PULL) as pull:
        port = pull.bind_to_random_port('tcp://127.0.0.1')
        for number in range(4):
            script = f"""{LEAVING}
def job():
    socket = zmq_socket(sys.argv[1], 8, linger=5000)
    socket.send_json(['index', {number}])
job()
"""
            assert run(script, f'127.0.0.1:{port}') == ''
            assert pull.poll(2000), f'message {number} was lost'
            assert pull.recv_json() == ['index', number]


def test_bare_process_class(start):
    class Bare(ZMQProcess):
        stop_timeout = 5.0

    assert ask(start(cls=Bare).endpoint, data='x') == [200, 'x']
