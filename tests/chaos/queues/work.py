"""What each of the queues does: the standard library only, as it runs in the environment of each."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor


def note(path, *words):
    """Add a line to a file that several processes write to; with it the time."""
    line = ' '.join([*words, f'{time.time():.6f}']) + '\n'
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def run(folder, job):
    """What a job does."""
    note(f'{folder}/runs', 'begun', job)
    time.sleep(random.uniform(0, 0.02))
    note(f'{folder}/runs', 'ended', job)


def submit_all(folder, clients, jobs, submit):
    """Submit jobs from several threads; each that was accepted is noted.

    :param submit: called with the number of the client and the id of a job, again and again until it returns
        true
    """

    def client(number):
        for index in range(number, jobs, clients):
            job = f'job-{index}'
            while not submit(number, job):
                time.sleep(0.01)
            note(f'{folder}/accepted', job)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
