"""Huey, with SQLite: a consumer, and tasks that are enqueued from another process."""

import sqlite3
import sys

from huey import SqliteHuey

from chaos.queues import work


def _queue(folder):
    queue = SqliteHuey(filename=f'{folder}/huey', fsync=True, results=False)

    def note(folder, name):
        work.run(folder, name)

    return queue, queue.task()(note)


def serve(folder, executor):
    kind, _, workers = executor.partition(':')
    queue, _ = _queue(folder)
    kind = {'threads': 'thread', 'processes': 'process'}[kind]
    consumer = queue.create_consumer(
        workers=int(workers),
        worker_type=kind,
        periodic=False,
        initial_delay=0.001,
        max_delay=0.01,
        health_check_interval=1,
    )
    consumer.run()


def submit(folder, clients, jobs):
    _, note = _queue(folder)

    def accepted(_number, name):
        try:
            note(folder, name)
        except sqlite3.OperationalError:  # locked for too long
            return False
        return True

    work.submit_all(folder, int(clients), int(jobs), accepted)


if __name__ == '__main__':
    {'serve': serve, 'submit': submit}[sys.argv[1]](*sys.argv[2:])
