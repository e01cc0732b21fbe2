"""Jobs while what runs them is killed at random: each that was accepted has to run to an end."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Jobs, and kills: in the tests, and under ``make chaos``.
SHORT, LONG = (60, 3), (2500, 60)

#: Clients that submit at once.
CLIENTS = 4

#: Seconds without the end of a job after which no more are expected.
SILENCE = 10.0


@dataclass(frozen=True)
class Queue:
    """A queue of jobs to be put to the test."""

    name: str
    #: Module of :mod:`chaos.queues`.
    module: str
    executor: str
    python: str = sys.executable
    #: Whether its workers outlive it, and have to be killed with it.
    orphans: bool = False


OURS = (Queue('pyams_zmq', 'ours', 'threads:4'), Queue('pyams_zmq', 'ours', 'processes:4'))


def hueys(python):
    """Return Huey's, by a Python that has it."""
    return (
        Queue('Huey', 'huey', 'threads:4', python),
        Queue('Huey', 'huey', 'processes:4', python, orphans=True),
    )


@dataclass
class Tally:
    """What became of the jobs."""

    accepted: int
    #: Kills of the process, and of workers.
    kills: Counter
    #: Accepted jobs that have never run to an end.
    lost: int
    #: Jobs that have been begun more than once.
    again: int
    #: Jobs that have run to an end more than once.
    twice: int
    #: The most seconds from acceptance to the first end.
    longest: float


def survive(queue, jobs, kills, seed=0):
    """Submit jobs, and meanwhile kill what runs them.

    :param jobs: how many
    :param kills: how many times
    """
    moments = random.Random(seed)
    killed = Counter()
    with tempfile.TemporaryDirectory(prefix='jobs-') as folder:
        runs = Path(folder, 'runs')
        runs.touch()
        with _running(queue, 'submit', folder, str(CLIENTS), str(jobs)) as clients:
            while killed.total() < kills:
                with _running(queue, 'serve', folder, queue.executor) as service:
                    process = psutil.Process(service.pid)
                    while killed.total() < kills:
                        # After so many ends that the kills are spread over all of the jobs.
                        _wait_for(runs, moments.uniform(0, 1.8 * jobs / kills))
                        time.sleep(moments.uniform(0, 0.02))
                        workers = process.children(recursive=True)
                        if not workers or moments.random() < 0.5:
                            break
                        moments.choice(workers).kill()
                        killed['worker'] += 1
                killed['process'] += 1
            with _running(queue, 'serve', folder, queue.executor):
                while clients.poll() is None:
                    _wait_for(runs, 1)
                _wait_for_the_end(runs)
        return _tally(Path(folder), killed)


@contextmanager
def _running(queue, *arguments):
    """Run one of a queue's scripts, and kill it in the end."""
    process = subprocess.Popen(
        [queue.python, '-W', 'ignore', '-m', f'chaos.queues.{queue.module}', *arguments],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if queue.orphans:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for(runs, ends):
    """Wait until so many more jobs have ended, or for too long."""
    wanted = _ends(runs) + ends
    deadline = time.monotonic() + SILENCE
    while _ends(runs) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)


def _ends(runs):
    return runs.read_text().count('ended')


def _wait_for_the_end(runs):
    accepted = set(runs.with_name('accepted').read_text().split()[::2])
    deadline, before = time.monotonic() + SILENCE, set()
    while accepted - before and time.monotonic() < deadline:
        time.sleep(0.02)
        now = _times(runs)['ended'].keys()
        if now != before:
            deadline, before = time.monotonic() + SILENCE, now


def _times(runs):
    """Return when each job was begun, and when it has ended."""
    times = {'begun': {}, 'ended': {}}
    for line in runs.read_text().splitlines():
        what, job, moment = line.split()
        times[what].setdefault(job, []).append(float(moment))
    return times


def _tally(folder, killed):
    accepted = dict(line.split() for line in (folder / 'accepted').read_text().splitlines())
    times = _times(folder / 'runs')
    ended = times['ended']
    return Tally(
        len(accepted),
        killed,
        lost=len(accepted.keys() - ended.keys()),
        again=sum(len(moments) > 1 for moments in times['begun'].values()),
        twice=sum(len(moments) > 1 for moments in ended.values()),
        longest=max(ended[job][0] - float(moment) for job, moment in accepted.items() if job in ended),
    )


def report(queues, jobs, kills):
    """Print a line for each queue; returns whether ours have lost any."""
    columns = ('accepted', 'kills', 'of workers', 'lost', 'begun again', 'run twice', 'longest wait, s')
    print(f'{"queue":12}{"executor":14}' + ''.join(f'{column:>16}' for column in columns))
    lost = 0
    for queue in queues:
        tally = survive(queue, jobs, kills)
        cells = (
            tally.accepted,
            tally.kills.total(),
            tally.kills['worker'],
            tally.lost,
            tally.again,
            tally.twice,
            f'{tally.longest:.1f}',
        )
        print(f'{queue.name:12}{queue.executor:14}' + ''.join(f'{cell:>16}' for cell in cells), flush=True)
        lost += tally.lost if queue in OURS else 0
    return lost > 0
