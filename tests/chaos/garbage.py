"""What comes to a port that is not meant for it."""

import random
import ssl
from contextlib import suppress


def random_bytes():
    generator = random.Random(0)
    while True:
        yield generator.randbytes(generator.randrange(400, 4000))


def client_hello():
    context = ssl.create_default_context()
    while True:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname='localhost')
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        yield outgoing.read()


def http_request():
    while True:
        yield b'GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ' + b'0123456789' * 100 + b'\r\n\r\n'


def ssh_banner():
    while True:
        yield b'SSH-2.0-OpenSSH_9.9\r\n' + bytes(1000)
