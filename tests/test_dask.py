"""Jobs on a cluster of Dask's: a scheduler and workers, each a process of its own, some of them killed."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import distributed  # noqa: F401 (here, so that not each process has to)
import pytest

from chaos.kills import free_address
from demos import demo_site
from peers import Peer, message
from pyams_zmq.exceptions import ProcessStartError
from pyams_zmq.jobs.dask import Dask, _cancel
from pyams_zmq.jobs.executor import ExecutorError
from pyams_zmq.jobs.work import Task
from remote_work import RemoteWork

QUIET = {
    'DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES': '1',
    'DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE': '0',
}


class Cluster:
    """A scheduler, which has the same address all the time, and workers of one thread each."""

    def __init__(self, folder):
        self.url = f'tcp://{free_address()}'
        self.workers = []
        self.folder = folder
        self._log = (folder / 'cluster.log').open('w')
        self.start_scheduler()

    def _run(self, kind, *arguments):
        path = f'{Path(__file__).parent}{os.pathsep}{self.folder}'
        return subprocess.Popen(
            [
                sys.executable,
                '-W',
                'ignore',
                '-m',
                f'distributed.cli.dask_{kind}',
                *arguments,
                '--no-dashboard',
            ],
            env={**os.environ, **QUIET, 'PYTHONPATH': path},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def start_scheduler(self):
        port = self.url.rpartition(':')[2]
        self.scheduler = self._run('scheduler', '--host', '127.0.0.1', '--port', port)

    def add_worker(self):
        options = [
            '--no-nanny',
            '--nthreads',
            '1',
            '--memory-limit',
            '0',
            '--local-directory',
            str(self.folder),
        ]
        self.workers.append(self._run('worker', self.url, *options))

    def kill(self, pid):
        (worker,) = (worker for worker in self.workers if worker.pid == pid)
        worker.kill()
        worker.wait()
        self.workers.remove(worker)

    def close(self):
        for one in (*self.workers, self.scheduler):  # in order, so that the coverage of the workers is kept
            one.terminate()
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        self._log.close()


@pytest.fixture(autouse=True)
def _no_process_left():
    """Workers outlive the test that starts them."""


@contextmanager
def _running_cluster(folder):
    """A scheduler and two workers."""
    cluster = Cluster(folder)
    try:
        cluster.add_worker()
        cluster.add_worker()
        host, port = cluster.url.removeprefix('tcp://').split(':')
        deadline = time.monotonic() + 60
        while not _listens(host, int(port)):
            assert time.monotonic() < deadline, 'the scheduler does not start'
            time.sleep(0.01)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    with _running_cluster(tmp_path_factory.mktemp('cluster')) as cluster:
        yield cluster


@pytest.fixture
def mortal(tmp_path):
    """A cluster that may be killed: what was killed tells of no coverage."""
    folder = tmp_path / 'cluster'
    folder.mkdir()
    with _running_cluster(folder) as cluster:
        yield cluster


def _serve(serve, cluster, delegate=RemoteWork, **options):
    """Start a process whose jobs run on a cluster."""
    return serve(delegate, executor=f'dask:{cluster.url}', **options)


def _listens(host, port):
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def _started(folder, job, wait_until):
    """Wait until a job holds; returns the ids of the workers that it has been on, in their order."""
    found = wait_until(lambda: list(folder.glob(f'{job}-[0-9]*')), 60)
    return {int(path.name.rpartition('-')[2]) for path in found}


def test_jobs_run_on_all_workers(serve, cluster, tmp_path, wait_until):
    client = _serve(serve, cluster)
    for name in 'ab':
        client.submit('hold', str(tmp_path), id=name)
    pids = _started(tmp_path, 'a', wait_until) | _started(tmp_path, 'b', wait_until)
    assert pids == {worker.pid for worker in cluster.workers}
    progress = wait_until(lambda: client.job('a').body['progress'], 30)
    assert progress == {'done': 1, 'total': 2, 'message': 'half'}
    client.submit('double', 21, id='c')
    assert client.job('c').body['state'] == 'queued'
    assert client.cancel('a').status == 202
    assert client.wait('a', 30).status == 410
    assert client.wait('c', 30) == (200, 42)
    (tmp_path / 'go').touch()
    assert client.wait('b', 30).ok
    with Peer(client.process.endpoint) as peer:
        peer.send(b'\xff\x00', message('frames', 1))
        job = peer.reply()[1]['job']
    assert client.wait(job, 30) == (200, ['ff00', 1])
    client.submit('fail', 'why', id='d')
    assert client.wait('d', 30) == (500, 'ValueError: why')


@pytest.mark.slow
def test_the_demonstration_runs_there_by_its_setting_alone(cluster, wait_until):
    executor = f'dask:{cluster.url}'
    with demo_site(pictures__delay=0, pyams_zmq__pictures__executor=executor) as demo:
        demo.start()
        slow = [demo.submit(sample, 2) for sample in ('Dawn', 'Ripples')]
        wait_until(lambda: [one['doing'] for one in demo.pictures()] == ['Thumbnail', 'Thumbnail'], 60)
        for job in slow:
            assert demo.client.cancel(job).status == 202
            assert demo.client.wait(job, 30).status == 410
        fog = demo.submit('Fog', 0)
        assert demo.client.wait(fog, 60).status == 422
        assert demo.client.retry(fog).status == 202
        assert demo.client.wait(fog, 60) == (200, {'renditions': 5})
        assert demo.picture('Fog', 'done')
        demo.stop()


def test_what_a_worker_cannot_import_has_failed(serve, cluster, tmp_path, monkeypatch):
    (tmp_path / 'only_here.py').write_text(
        'from remote_work import RemoteWork\nclass Here(RemoteWork):\n    pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Here

    client = _serve(serve, cluster, Here)
    client.submit('double', 1, id='one')
    reason = "The job cannot be loaded where it is to run: ModuleNotFoundError: No module named 'only_here'"
    assert client.wait('one', 30) == (500, reason)
    assert client.job('one').body['attempts'] == 1


def test_a_job_is_told_that_its_process_has_died(serve, cluster, tmp_path, wait_until):
    client = _serve(serve, cluster)
    client.submit('hold', str(tmp_path), id='one')
    _started(tmp_path, 'one', wait_until)
    client.process.kill()
    wait_until((tmp_path / 'one-over').exists, 60)


def test_a_job_whose_worker_is_killed_runs_elsewhere(serve, mortal, tmp_path, wait_until):
    client = _serve(serve, mortal, max_interruptions=1)
    client.submit('hold', str(tmp_path), id='one')
    (first,) = _started(tmp_path, 'one', wait_until)
    mortal.kill(first)
    wait_until(lambda: len(_started(tmp_path, 'one', wait_until)) == 2, 60)
    (tmp_path / 'go').touch()
    _, second = client.wait('one', 60)
    assert second == mortal.workers[0].pid
    # One that kills its workers does not go on with all of them. Dask's own limit is two here.
    mortal.add_worker()
    client.submit('die', id='two')
    assert client.wait('two', 60) == (500, 'Interrupted 1 times: 2 workers died while it ran')
    for worker in mortal.workers:
        worker.wait(30)
    mortal.workers.clear()
    client.submit('double', 1, id='three')
    mortal.add_worker()
    assert client.wait('three', 60) == (200, 2)


@pytest.mark.slow
def test_jobs_outlive_the_scheduler(serve, mortal, tmp_path, wait_until, log_file):
    client = _serve(serve, mortal, max_interruptions=1)
    client.submit('hold', str(tmp_path), id='one')
    _started(tmp_path, 'one', wait_until)
    mortal.scheduler.kill()
    mortal.scheduler.wait()
    (tmp_path / 'go').touch()
    client.submit('double', 1, id='two')
    for worker in mortal.workers:
        worker.kill()
        worker.wait()
    mortal.workers.clear()
    wait_until(lambda: 'Jobs wait: ' in log_file.read_text(), 60)
    mortal.start_scheduler()
    mortal.add_worker()
    assert client.wait('one', 60).ok
    assert client.wait('two', 60) == (200, 2)
    assert client.job('one').body['attempts'] >= 2


def test_what_runs_when_it_closes_is_told_so(cluster, tmp_path, wait_until):
    dask = Dask(cluster.url)
    message = [json.dumps(['hold', str(tmp_path)]).encode()]
    running = dask.submit(Task('one', 'hold', 1, message, -1, RemoteWork), print)
    _started(tmp_path, 'one', wait_until)
    dask.cancel('nobody')
    dask.close()
    with pytest.raises(ExecutorError, match=f'the Dask scheduler {cluster.url} was lost: '):
        running.result(30)
    wait_until((tmp_path / 'one-over').exists, 60)


def test_a_call_ends_once(cluster, tmp_path, monkeypatch, wait_until):
    dask = Dask(cluster.url)
    told = []
    monkeypatch.setattr(dask, '_take', lambda *what: told.append(what))  # the client tells nothing
    message = [json.dumps(['hold', str(tmp_path)]).encode()]
    task = Task('one', 'hold', 1, message, -1, RemoteWork)
    calls = [dask.submit(task, print), dask.submit(task._replace(attempt=2), print)]
    _started(tmp_path, 'one', wait_until)
    dask.close()
    for call in calls:
        with pytest.raises(ExecutorError, match='was lost: the connection was closed'):
            call.result(30)
    for key, _ in told:
        dask._end(key, ValueError('too late'))
    assert all(isinstance(call.exception(), ExecutorError) for call in calls)
    _cancel('somebody')
    wait_until((tmp_path / 'one-over').exists, 60)


def test_workers_without_pyams_zmq(serve, mortal):
    for worker in mortal.workers:
        worker.kill()
        worker.wait()
    mortal.workers.clear()
    (mortal.folder / 'pyams_zmq.py').write_text('raise ImportError("it is not installed here")')
    mortal.add_worker()
    client = _serve(serve, mortal)
    client.submit('double', 1, id='one')
    status, body = client.wait('one', 60)
    assert status == 500
    assert 'have different environments' in body


def test_a_scheduler_that_is_not_there(serve, monkeypatch):
    url = f'tcp://{free_address()}'
    monkeypatch.setattr('pyams_zmq.jobs.dask._PATIENCE', 0.5)
    with pytest.raises(ProcessStartError, match=f'the Dask scheduler {url} cannot be reached: '):
        serve(RemoteWork, executor=f'dask:{url}')


def test_the_extra_is_missing(serve, monkeypatch):
    monkeypatch.delitem(sys.modules, 'pyams_zmq.jobs.dask', raising=False)
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(ProcessStartError, match=r"needs the extra 'dask': pip install 'pyams_zmq\[dask\]'"):
        serve(RemoteWork, executor='dask:tcp://127.0.0.1:8786')
