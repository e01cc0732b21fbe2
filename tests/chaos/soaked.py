"""The service of the soak: that of :mod:`chaos.service`, and jobs."""

import sys

from service import Delegate, main

from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.jobs import job


class Soaked(Delegate):
    @job
    def work(self, data):
        return [200, data]

    @job
    def nap(self, seconds):
        return self.slow(seconds)


class Handler(ZMQMessageHandler):
    handler = Soaked


if __name__ == '__main__':
    main(*sys.argv[1:], handler=Handler)
