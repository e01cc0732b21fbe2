"""What is done with the journal takes as long with many jobs in it as with few."""

import time

import pytest

from pyams_zmq.figures import STATES
from pyams_zmq.jobs.schema import open_database
from pyams_zmq.jobs.store import Store

MANY = 10**6


def accept(store, job):
    return store.accept(job, 'note', [b'["note", 1]'], 3600, MANY)


OPERATIONS = {
    'accept': lambda store: accept(store, 'new'),
    'accept again': lambda store: accept(store, 'q7'),
    'claim': lambda store: store.claim(4, {'note': None}),
    'end': lambda store: store.end(store.claim(1, {'note': None})[0][0].seq, 'done', 200, 'null'),
    'put back': lambda store: store.put_back(store.claim(1, {'note': None})[0][0].seq, 500, '"no"', 1.0),
    'interrupt': lambda store: store.interrupt(store.claim(1, {'note': None})[0][0].seq, 'it died', 5, 1.0),
    'excuse': lambda store: store.excuse(),
    'cancel': lambda store: store.cancel('q8'),
    'read': lambda store: store.read('d9'),
    'list': lambda store: store.list(STATES, None, 10),
    'remove': lambda store: store.remove_expired(MANY),
    'counts': lambda store: store.counts(),
}


def store_with(jobs):
    """Return a store with so many jobs that wait, and as many that are done, and its database."""
    connection = open_database(':memory:', durable=False)
    store = Store(connection)
    with store.transaction():
        for number in range(jobs):
            accept(store, f'd{number}')
        for claim in store.claim(jobs, {'note': None})[0]:
            store.end(claim.seq, 'done', 200, 'null')
        for number in range(jobs):
            accept(store, f'q{number}')
        # A few that wait for their next attempt.
        for claim in store.claim(3, {'note': None})[0]:
            store.put_back(claim.seq, 500, '"no"', -time.time())
    return store, connection


def steps(jobs, operation):
    """Return how many steps SQLite's machine takes."""
    store, connection = store_with(jobs)
    taken = []
    connection.set_progress_handler(lambda: taken.append(1), 1)
    operation(store)
    connection.close()
    return len(taken)


@pytest.mark.parametrize('name', OPERATIONS)
def test_steps(name):
    few, many = steps(20, OPERATIONS[name]), steps(2000, OPERATIONS[name])
    assert many < 1.2 * few + 50
