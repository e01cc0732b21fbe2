"""What must work where only the package itself is installed; run it with any Python that has it."""

import sys
from importlib.metadata import distributions
from pathlib import Path

from pyramid.config import Configurator

import pyams_zmq
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.process import ZMQProcess
from pyams_zmq.socket import zmq_response, zmq_socket


class Delegate:
    process = None

    def echo(self, data):
        return [200, data]


class Handler(ZMQMessageHandler):
    handler = Delegate


def main():
    package = Path(pyams_zmq.__file__).parent
    assert 'site-packages' in package.parts, f'not the installed package: {package}'
    assert (package / 'py.typed').exists()
    config = Configurator()
    config.include('pyams_zmq')
    config.commit()
    process = ZMQProcess('127.0.0.1', Handler, 'user:password', '127.0.0.1', config.registry)
    process.start()
    endpoint = process.wait_ready()
    with ZMQClient(endpoint, auth='user:password') as client:
        assert client.call('echo', 'client') == (200, 'client')
    socket = zmq_socket(endpoint, auth='user:password')
    socket.send_json(['echo', 'socket'])
    assert zmq_response(socket) == [200, 'socket']
    process.stop()
    process.join(10)
    assert process.exitcode == 0, process.exitcode
    names = sorted(one.name for one in distributions())
    sys.stdout.write(f'works with {len(names)} distributions: {", ".join(names)}\n')


if __name__ == '__main__':
    main()
