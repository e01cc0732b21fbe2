"""The script of a service to be attacked: ``python service.py KIND [NAME=VALUE …]``.

The kind is ``pyams_zmq``, ours or version 2.0.0, whichever that Python has installed, or ``rep``: a
bare REP with a ZMQStream, which answers whatever comes. Class attributes of the process may follow, and
its ``auth``. It writes its process id and endpoint as JSON, and ends with its standard input.
"""

import asyncio
import json
import multiprocessing
import resource
import socket
import sys
import time

import zmq
from tornado.ioloop import IOLoop
from zmq.eventloop.zmqstream import ZMQStream

from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess


class Delegate:
    """What honest and hostile clients call."""

    process = None

    def echo(self, data):
        return [200, data]

    def slow(self, seconds):
        time.sleep(seconds)
        return [200, seconds]

    def large(self, size):
        return [200, 'x' * size]

    async def tasks(self, data):
        return [200, len(asyncio.all_tasks())]


class Handler(ZMQMessageHandler):
    handler = Delegate


class Attacked(ZMQProcess):
    stop_timeout = 5.0

    #: Descriptors that it may have at most; None: as many as ever.
    descriptors = None

    def setup(self):
        limit_descriptors(self.descriptors)
        super().setup()


def limit_descriptors(number):
    if number is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


class BareRep(multiprocessing.Process):
    """The heart of 2.0.0 without its handler: a careful user's own."""

    def __init__(self, address, _handler, _auth):
        super().__init__()
        self.address = address

    def run(self):
        limit_descriptors(Attacked.descriptors)
        sock = zmq.Context().socket(zmq.REP)
        sock.bind(f'tcp://{self.address}')
        loop = IOLoop(make_current=False)
        stream = ZMQStream(sock, loop)
        delegate = Delegate()

        def answer(frames):
            try:
                message_type, data = json.loads(frames[-1])
                method = {'echo': delegate.echo, 'slow': delegate.slow, 'large': delegate.large}[message_type]
                stream.send_json(method(data))
            except Exception as error:
                stream.send_json([500, repr(error)])

        stream.on_recv(answer)
        loop.start()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def main(kind, *options, handler=Handler):
    address = f'127.0.0.1:{free_port()}'
    values = {name: json.loads(value) for name, _, value in (option.partition('=') for option in options)}
    auth = values.pop('auth', None)
    for name, value in values.items():
        setattr(Attacked, name, value)
    process = (BareRep if kind == 'rep' else Attacked)(address, handler, auth)
    process.start()
    print(json.dumps([process.pid, f'tcp://{address}']), flush=True)
    sys.stdin.read()
    process.kill()
    process.join()


if __name__ == '__main__':
    main(*sys.argv[1:])
