"""Ours."""

import sys

from chaos.queues import work
from pyams_zmq.client import ZMQClient
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.jobs import job
from pyams_zmq.process import ZMQProcess


class Delegate:
    @job(backoff=0.01)
    def note(self, data):
        work.run(*data)


class Handler(ZMQMessageHandler):
    handler = Delegate


def serve(folder, executor):
    process = ZMQProcess(f'ipc://{folder}/socket', Handler)
    # The kills are no fault of the jobs that they meet.
    process.configure(
        journal=f'{folder}/journal', executor=executor, max_interruptions=1000, stop_timeout=5.0
    )
    process.run()


def submit(folder, clients, jobs):
    callers = [ZMQClient(f'ipc://{folder}/socket', timeout=5) for _ in range(int(clients))]

    def accepted(number, name):
        return callers[number].submit('note', [folder, name], id=name).status in (200, 202)

    work.submit_all(folder, int(clients), int(jobs), accepted)


if __name__ == '__main__':
    {'serve': serve, 'submit': submit}[sys.argv[1]](*sys.argv[2:])
