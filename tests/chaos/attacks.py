"""The table of attacks.

Each is a generator function, called with the service and a number that tells how hard to hit. It yields once,
when it is at its worst: honest clients have to be served then, and when it is over.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from peers import Peer, message

from . import garbage, zmtp
from .messages import frames

KB, MB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Attack:
    """One row of the table."""

    #: Called with the service and a number; yields what there is to note.
    run: Callable[[Any, int], Iterator[str]]
    #: How hard to hit in the tests.
    short: int
    #: How hard to hit under ``make chaos``.
    long: int
    #: Class attributes of the service, so that the attack is about its subject.
    options: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def under_way(self, service, number):
        """The attack at its worst."""
        steps = self.run(service, number)
        yield next(steps)
        for _ in steps:
            raise RuntimeError('an attack yields once')


ATTACKS: dict[str, Attack] = {}


def attack(short, long, **options):
    """Add a function to the table."""

    def add(function):
        ATTACKS[function.__name__.replace('_', ' ')] = Attack(function, short, long, options)
        return function

    return add


# Those who speak another language, or none


@attack(short=10, long=500)
def random_bytes(service, number):
    yield _babble(service, number, garbage.random_bytes())


@attack(short=10, long=500)
def tls_client_hello(service, number):
    yield _babble(service, number, garbage.client_hello())


@attack(short=10, long=500)
def http_requests(service, number):
    yield _babble(service, number, garbage.http_request())


@attack(short=10, long=500)
def ssh_banners(service, number):
    yield _babble(service, number, garbage.ssh_banner())


def _babble(service, number, texts):
    for _ in range(number):
        connection = zmtp.dial(service)
        with suppress(OSError):  # it may have hung up already
            connection.sendall(next(texts))
        zmtp.hang_up(connection)
    return f'{number} connections'


@attack(short=60, long=2000)
def half_greetings(service, number):
    with ExitStack() as stack:
        for index in range(number):
            connection = stack.enter_context(zmtp.dial(service))
            connection.sendall(zmtp.GREETING[: index % len(zmtp.GREETING)])
        yield f'{number} connections held'


@attack(short=60, long=2000)
def idle_connections(service, number):
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(zmtp.dial(service))
        yield f'{number} connections held'


@attack(short=30, long=2000)
def silent_peers(service, number):
    """Peers that have introduced themselves, and say nothing from then on."""
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(zmtp.shake_hands(service))
        yield f'{number} connections held'


@attack(short=100, long=2000, auth='honest:sesame')
def wrong_passwords(service, number):
    """Peers who may not come in, all at once."""
    with ExitStack() as stack:
        for index in range(number):
            connection = stack.enter_context(zmtp.dial(service))
            connection.sendall(zmtp.greeting(b'PLAIN') + zmtp.hello(f'honest:{index}'))
        yield f'{number} passwords'


@attack(short=20, long=1000, auth='honest:sesame')
def large_introductions(service, number):
    """So many MB in all, from strangers whose HELLO is said to have 100 MB, as a message may have."""
    with ExitStack() as stack:
        taken = 0
        for begin in range(0, number, 100):
            connection = stack.enter_context(zmtp.dial(service))
            connection.sendall(zmtp.greeting(b'PLAIN') + zmtp.header(100 * MB, flags=zmtp.COMMAND))
            taken += zmtp.pour(connection, bytes(MB), min(99, number - begin))
        yield f'{taken} MB taken'


@attack(short=30, long=1000)
def torn_messages(service, number):
    """Peers that leave in the middle of a frame, or of a message."""
    request = zmtp.header(0, more=True) + zmtp.header(100) + b'["echo", "'
    for index in range(number):
        connection = zmtp.shake_hands(service)
        connection.sendall(request[: index % len(request)])
        zmtp.hang_up(connection)
    yield f'{number} connections'


# Too much


@attack(short=20, long=300, max_message_size=16 * MB)
def huge_frame(service, number):
    """One frame of so many MB."""
    with zmtp.shake_hands(service) as connection:
        connection.sendall(zmtp.header(0, more=True) + zmtp.header(number * MB))
        taken = zmtp.pour(connection, bytes(MB), number)
        yield f'{taken} of {number} MB taken'


@attack(short=100, long=1000, max_message_size=MB)
def many_frames(service, number):
    """One message with so many frames of the limit's size."""
    with zmtp.shake_hands(service) as connection:
        connection.sendall(zmtp.header(0, more=True))
        taken = zmtp.pour(connection, zmtp.header(MB, more=True) + bytes(MB), number)
        with suppress(OSError):
            connection.sendall(zmtp.header(0))
        yield f'{taken} of {number} frames of 1 MB taken'


@attack(short=100, long=2000)
def announced_frames(service, number):
    """Frames that are announced, in all sizes there are, and never come."""
    with ExitStack() as stack:
        for index in range(number):
            connection = stack.enter_context(zmtp.shake_hands(service))
            connection.sendall(zmtp.header(2 ** (index % 63)))
        yield f'{number} connections held'


@attack(short=50, long=10_000)
def frames_without_end(service, number):
    """So many thousand empty frames of one message, the last of which does not come."""
    with zmtp.shake_hands(service) as connection:
        taken = zmtp.pour(connection, zmtp.header(0, more=True) * 1000, number)
        yield f'{taken * 1000} frames'


@attack(short=20, long=1000)
def message_of_empty_frames(service, number):
    """The same with an end: as long as they are read, nobody else is served."""
    with zmtp.shake_hands(service) as connection:
        zmtp.pour(connection, zmtp.header(0, more=True) * 1000, number)
        began = time.monotonic()
        connection.sendall(zmtp.header(0))
        with suppress(TimeoutError):
            connection.recv(1)
        yield f'{number * 1000} frames, read within {time.monotonic() - began:.1f} s'


@attack(short=150, long=1000, descriptors=100, handshake_timeout=0.3)
def no_descriptors_left(service, number):
    """More silent peers than the service has descriptors for."""
    with ExitStack() as stack:
        held = []
        with suppress(TimeoutError):  # nor has the system room for more to wait
            while len(held) < number:
                held.append(stack.enter_context(zmtp.dial(service, timeout=2)))
        yield f'{len(held)} connections held'


# Messages that are none


#: Messages that :mod:`hypothesis` makes at once: it remembers all of them.
_AT_ONCE = 5000


@attack(short=300, long=100_000)
def fuzzed_messages(service, number):
    """Any bytes, any JSON: each gets one reply."""
    answers = Counter()
    with Peer(service.endpoint, auth=service.auth) as peer:
        peer.socket.linger = 0

        def exchange(frame):
            peer.send(frame)
            assert peer.socket.poll(5000), f'no reply to message {answers.total() + 1}'
            status, _body = peer.reply()
            answers[status] += 1

        for begin in range(0, number, _AT_ONCE):
            some = settings(
                max_examples=min(_AT_ONCE, number - begin),
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            some(seed(begin)(given(frames(['echo', 'none', '_ping'])))(exchange))()
            # The very next thing that comes is the answer to what is sent now.
            assert peer.ask('echo', begin) == [200, begin], 'a second reply'
        yield f'{answers.total()} messages: {dict(sorted(answers.items()))}'


@attack(short=20, long=2000)
def odd_envelopes(service, number):
    rows = [
        [b'garbage'],
        [b''],
        [b'', b''],
        [b'', b'', b'', b''],
        [message('echo', 1)],
        [b'a', b'b', b'c'],
        [b'', b'a', b'', b'b', b'', message('echo', 1)],
        [b'x'] * 100,
        [b''] * 100,
        [b'', *[b'x'] * 98, message('echo', 1)],
        [*[b'hop'] * 98, b'', message('echo', 1)],
    ]
    with Peer(service.endpoint, (), auth=service.auth) as peer:
        peer.socket.linger = 0
        for index in range(number):
            peer.send_raw(*rows[index % len(rows)])
            # They come one at a time, since the replies are read.
            while peer.socket.poll(0):
                peer.receive()
        yield f'{number} messages'


@attack(short=20, long=2000)
def vanishing_clients(service, number):
    """Clients that leave while their request runs, or before it does."""
    generator = random.Random(0)
    for _ in range(number):
        connection = zmtp.shake_hands(service)
        text = message('slow', generator.choice([0, 0.001, 0.01]))
        connection.sendall(zmtp.header(0, more=True) + zmtp.header(len(text)) + text)
        connection.close()
    yield f'{number} clients'


@attack(short=100, long=2000, high_water_mark=100)
def client_that_reads_no_replies(service, number):
    """A client that asks for 100 KB, again and again, and never reads a reply."""
    text = message('large', 100 * KB)
    request = zmtp.header(0, more=True) + zmtp.header(len(text)) + text
    with zmtp.shake_hands(service) as connection, service.client() as client:
        connection.settimeout(5)
        sent = zmtp.pour(connection, request, number)
        # Both have their turns: when this one was served as often, so was the other.
        served = sum(client.call('echo', index).ok for index in range(number))
        yield f'{sent} requests, {served} of {number} honest ones served'


@attack(short=100, long=300)
def requests_without_pause(service, number):
    """A client that does not wait for replies, while honest ones do: so many requests a time."""
    with Peer(service.endpoint, auth=service.auth) as peer:
        peer.socket.linger = 0
        for index in range(number):
            peer.send(message('echo', index))
        yield f'{number} requests'
        while peer.socket.poll(0):
            peer.receive()
