"""What goes wrong in a process, and what those who see it are told: the table in ``docs/faults.rst``."""

import asyncio
import ctypes
import faulthandler
import io
import logging
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from pyramid.threadlocal import get_current_request

from chaos.kills import KILLS, free_address
from peers import handler_of, suspend
from pyams_zmq.client import ZMQClient
from pyams_zmq.exceptions import ExitCode, ProcessStartError
from pyams_zmq.process import process_exit_func
from services import Echo, Process

pytestmark = pytest.mark.lifecycle

fork = multiprocessing.get_context('fork')

WORKERS = pytest.mark.parametrize('workers', [0, 2])


class Failing(Echo):
    """Methods as no one should write them."""

    def exit_at_once(self, code):
        os._exit(code)

    async def exit_at_once_async(self, code):
        os._exit(code)

    def crash(self, data):
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)

    def recurse(self, data):
        return self.recurse(data)

    def use_up_memory(self, data):
        """Real shortage: the system gives no more."""
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 64 * 2**20, hard))
        try:
            return [200, len(bytearray(2**30))]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def leave(self, data):
        raise SystemExit(data)

    def interrupt(self, data):
        raise KeyboardInterrupt

    def ignore_signals(self, data):
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)
        return [200, 'deaf']

    def never_return(self, data):
        threading.Event().wait()

    def hold_the_interpreter(self, data):
        """Python's other threads do not run until this is done, which takes hours."""
        return 7**10**9

    def last_words(self, data):
        self.process.stop()
        raise RuntimeError('it ended badly')


FailingHandler = handler_of(Failing())


class Impatient(Process):
    stop_timeout = 0.3


@pytest.mark.parametrize('kill', KILLS.values(), ids=KILLS)
def test_kills_at_random_moments(kill):
    kill.run(kill.short)


# Logging


class Demanding(logging.Filter):
    """Wants a request, as a filter written for the views may; here is none."""

    def filter(self, record):
        record.user = get_current_request().authenticated_userid
        return True


class DemandingProcess(Process):
    max_in_flight = 2
    level = logging.WARNING

    def _prepare(self, guardian):
        super()._prepare(guardian)
        handler = logging.StreamHandler(io.StringIO())
        handler.addFilter(Demanding())
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(self.level)


@WORKERS
def test_a_filter_of_the_log_raises(start, call, workers):
    process = start(handler=FailingHandler, cls=DemandingProcess, workers=workers)
    for _ in range(3):
        assert call(process, 'fail', 'x') == (500, 'ValueError: x')
    assert call(process, 'echo', 1) == (200, 1)
    assert call(process, '_status').body['in_flight'] == 0


def test_a_filter_of_the_log_raises_where_connections_are_checked(start, call):
    cls = type('Guarded', (DemandingProcess,), {'level': logging.INFO})
    process = start('127.0.0.1', FailingHandler, 'user:password', cls=cls)
    for _ in range(3):
        assert call(process, 'echo', 1, auth='user:wrong').status == 403
        assert call(process, 'echo', 2, auth='user:password') == (200, 2)


@WORKERS
def test_what_a_worker_cannot_hand_over(start, call, workers):
    """Whatever goes wrong where it should not: the caller learns of it, and its place is free again."""

    class Handler(FailingHandler):
        def _perform(self, *args):
            raise SystemExit('broken')

    process = start(handler=Handler, workers=workers, cls=DemandingProcess)
    for _ in range(3):
        assert call(process, 'echo', 1) == (500, 'SystemExit: broken')


# SIGSTOP and SIGCONT


def test_a_process_is_stopped_and_continued(start, call, wait_until):
    process = start()
    assert call(process, 'echo', 1) == (200, 1)
    suspend(process, wait_until)
    reply = call(process, 'echo', 2, timeout=0.2)
    assert (reply.status, reply.delivered) == (504, False)
    # Somebody new is not even let in.
    assert ZMQClient(process.endpoint, timeout=0.2).call('echo', 3).status == 503
    os.kill(process.pid, signal.SIGCONT)
    # The reply that nobody waited for any more goes to nobody else.
    assert [call(process, 'echo', number) for number in range(4, 8)] == [(200, n) for n in range(4, 8)]


def test_a_stopped_process_is_asked_to_end(start, wait_until):
    """It does so when it is continued."""
    process = start()
    suspend(process, wait_until)
    process.stop()
    assert process.is_alive()
    os.kill(process.pid, signal.SIGCONT)
    process.join(30)
    assert process.exitcode == ExitCode.OK


def test_calls_while_a_process_is_stopped_again_and_again(start, call):
    process = start()
    over = threading.Event()

    def stop_and_continue():
        while not over.wait(0.002):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.002)
            os.kill(process.pid, signal.SIGCONT)

    thread = threading.Thread(target=stop_and_continue)
    thread.start()
    try:
        assert [call(process, 'echo', n, timeout=30) for n in range(200)] == [(200, n) for n in range(200)]
    finally:
        over.set()
        thread.join()


# Methods that do what they should not


@pytest.mark.parametrize(
    ('method', 'data', 'exitcode'),
    [('exit_at_once', 7, 7), ('exit_at_once_async', 7, 7), ('crash', None, -signal.SIGSEGV)],
)
@WORKERS
def test_a_method_that_ends_the_process(start, call, method, data, exitcode, workers):
    """The caller is told at once, and the parent by the exit code."""
    process = start('127.0.0.1', FailingHandler, workers=workers)
    reply = call(process, method, data, timeout=30)
    assert (reply.status, reply.delivered) == (504, False)
    assert 'Connection lost' in reply.body
    process.join(30)
    assert process.exitcode == exitcode


@pytest.mark.parametrize(
    ('method', 'told'),
    [
        ('leave', 'SystemExit: 3'),
        ('interrupt', 'KeyboardInterrupt: '),
        ('recurse', 'RecursionError: maximum recursion depth'),
        ('use_up_memory', 'MemoryError: '),
    ],
)
@WORKERS
def test_a_method_that_fails_as_few_do(start, call, log_file, method, told, workers):
    process = start('127.0.0.1', FailingHandler, workers=workers)
    status, body = call(process, method, 3, timeout=30)
    assert status == 500
    assert body.startswith(told)
    assert f"The method for '{method}' raised" in log_file.read_text()
    assert call(process, 'echo', 1) == (200, 1)
    process.stop()
    process.join(30)
    assert process.exitcode == ExitCode.OK


@pytest.mark.parametrize('error', [SystemExit, KeyboardInterrupt])
@WORKERS
def test_a_task_of_a_method_that_leaves(start, call, log_file, workers, error):
    """asyncio lets it out of the loop; others are served all the same, also those under way."""
    gate = fork.Event()

    class Leaving(Echo):
        async def held(self, data):
            while not gate.is_set():
                await asyncio.sleep(0.01)
            return [200, data]

        async def gather(self, data):
            async def leave():
                raise error(data)

            return await asyncio.gather(leave())

        async def call_soon(self, data):
            def leave():
                raise error(data)

            asyncio.get_running_loop().call_soon(leave)
            return [200, data]

    process = start('127.0.0.1', handler_of(Leaving()), workers=workers)
    with ThreadPoolExecutor(1) as pool, ZMQClient(process.endpoint, timeout=30) as client:
        held = pool.submit(client.call, 'held', 1)
        assert call(process, 'gather', 3) == (500, f'{error.__name__}: 3')
        assert call(process, 'call_soon', 4) == (200, 4)
        assert call(process, 'echo', 5) == (200, 5)
        gate.set()
        assert held.result() == (200, 1)
    assert 'A task or a callback raised; the process goes on' in log_file.read_text()
    process.stop()
    process.join(30)
    assert process.exitcode == ExitCode.OK


@WORKERS
def test_a_method_that_never_returns(start, call, log_file, workers):
    process = start('127.0.0.1', FailingHandler, cls=Impatient, workers=workers)
    assert call(process, 'never_return', timeout=0.2).status == 504
    before = time.monotonic()
    process_exit_func(process)
    assert time.monotonic() - before < process.stop_timeout + 10
    assert process.exitcode == ExitCode.STOP_TIMEOUT
    assert 'took longer than stop_timeout; it is cut off' in log_file.read_text()


@pytest.mark.parametrize(
    ('method', 'workers'),
    # Python lets no thread but the first handle signals.
    [('hold_the_interpreter', 0), ('hold_the_interpreter', 2), ('ignore_signals', 0)],
)
def test_a_method_against_which_force_alone_helps(start, call, log_file, method, workers):
    process = start('127.0.0.1', FailingHandler, cls=Impatient, workers=workers)
    # In the parent, where the bound is this and some 5 seconds more.
    process.stop_timeout = -4.5
    call(process, method, timeout=0.2)
    before = time.monotonic()
    process_exit_func(process)
    assert time.monotonic() - before < 10
    assert process.exitcode == -signal.SIGKILL
    assert 'did not end in time and was killed' in log_file.read_text()


def test_a_method_that_fails_after_it_asked_for_the_end(start, call):
    process = start('127.0.0.1', FailingHandler)
    assert call(process, 'last_words') == (500, 'RuntimeError: it ended badly')
    process.join(30)
    assert process.exitcode == ExitCode.OK


# Signals while it ends


def test_a_storm_of_signals_while_the_last_method_runs(start, wait_until):
    """The loop, the authenticator, the sockets: each step of the end is hit."""
    process = start('127.0.0.1', FailingHandler, 'user:sesame', '127.0.0.1', workers=2)
    replies = []

    def ask():
        with ZMQClient(process.endpoint, 'user:sesame') as client:
            replies.append(client.call('slow', 0.2, timeout=30))

    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    with ZMQClient(process.endpoint, 'user:sesame') as client:
        wait_until(lambda: client.call('_status').body['in_flight'] == 2)
    deadline = time.monotonic() + 30
    while process.exitcode is None:
        assert time.monotonic() < deadline
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    for caller in callers:
        caller.join()
    assert replies == [(200, process.pid)] * 2
    assert process.exitcode == ExitCode.OK


# The port


def test_a_port_that_is_taken_and_given_back(start, call):
    address = free_address()
    host, _, port = address.partition(':')
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        with pytest.raises(ProcessStartError, match='Address already in use') as caught:
            start(address)
    assert caught.value.exitcode == ExitCode.ADDRESS
    process = start(address)
    assert call(process, 'echo', 1) == (200, 1)
    # Connections that the first one left behind do not hinder the second.
    process.kill()
    process.join(30)
    assert call(start(address), 'echo', 2) == (200, 2)


def test_two_processes_want_the_same_port(start, call):
    """The first has it; the second says so, and the first goes on."""
    first = start()
    with pytest.raises(ProcessStartError, match='Address already in use'):
        start(first.endpoint)
    assert call(first, 'echo', 1) == (200, 1)
