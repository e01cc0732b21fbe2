"""Clients that say what they like, and delegates made to order."""

import json
import os
import signal
import sys

import psutil
import zmq

from pyams_zmq.handler import ZMQMessageHandler

#: An interpreter to which every warning is an error, but for those of Pyramid's own imports.
STRICT_PYTHON = [
    sys.executable,
    *('-W', 'error'),
    *('-W', 'ignore:pkg_resources is deprecated'),
    *('-W', 'ignore:Deprecated call to `pkg_resources'),
    *('-W', "ignore:'cgi' is deprecated"),
]


def suspend(process, wait_until):
    """Stop a process, and wait until each of its threads has stopped."""
    os.kill(process.pid, signal.SIGSTOP)
    threads = [psutil.Process(one.id) for one in psutil.Process(process.pid).threads()]
    wait_until(lambda: {one.status() for one in threads} == {psutil.STATUS_STOPPED})


def message(message_type, data=None):
    return json.dumps([message_type, data]).encode()


def handler_of(delegate, handler=ZMQMessageHandler):
    """Return a handler class for an instance of a delegate, made in the parent."""
    return type('Handler', (handler,), {'handler': staticmethod(lambda: delegate)})


class Peer:
    """A client that may send several messages before it reads the replies, and frames as it pleases.

    :param envelope: the frames put before each message, and expected before each reply
    :param auth: ``'user:password'`` that it presents
    """

    def __init__(self, endpoint, envelope=(b'',), socket_type=zmq.DEALER, auth=None):
        self.envelope = list(envelope)
        # A context of its own: to end it is to know that all has left.
        self.context = zmq.Context()
        self.socket = self.context.socket(socket_type)
        self.socket.linger = 2000
        if auth:
            self.socket.plain_username, self.socket.plain_password = map(str.encode, auth.split(':', 1))
        self.socket.connect(endpoint)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self.socket.close()
        self.context.term()

    def send(self, *frames):
        self.send_raw(*self.envelope, *frames)

    def send_raw(self, *frames):
        self.socket.send_multipart(frames)

    def receive(self, timeout=5):
        """Return the frames of the next reply, without the envelope."""
        assert self.socket.poll(timeout * 1000), 'no reply'
        frames = self.socket.recv_multipart()
        depth = len(self.envelope)
        assert frames[:depth] == self.envelope
        return frames[depth:]

    def reply(self):
        """Return the next reply, decoded."""
        (frame,) = self.receive()
        return json.loads(frame)

    def ask(self, message_type, data=None):
        """Send a message; return its reply, which has to be the next that comes."""
        self.send(message(message_type, data))
        return self.reply()

    def status(self):
        code, body = self.ask('_status')
        assert code == 200
        return body

    def assert_nothing_comes(self):
        """Nothing is on its way: the very next thing that comes is the answer to what is sent now."""
        assert self.ask('_ping') == [200, 'pong']
        assert not self.socket.poll(0)


def in_fork(function):
    """Run a function in a forked child; returns what it returned."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        try:
            os.write(write, json.dumps(function()).encode())
        except BaseException as error:
            os.write(write, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, 'rb') as pipe:
        result = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(result)
