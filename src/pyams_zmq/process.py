"""The process: puts a service together from its parts, runs it, and ends it."""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import zmq
from pyramid.threadlocal import get_current_registry, manager
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOLoop
from zope.interface import implementer

from .address import Address, AnyAddress, parse_address
from .credentials import AnyPath, Auth, parse_auth
from .exceptions import AddressError, ExitCode, ProcessStartError, SettingError
from .fork import end_copy
from .guardian import Guardian, reset_signals, signals_held
from .interfaces import IZMQProcess, ZMQProcessStartedEvent, ZMQProcessStoppingEvent
from .jobs.runner import Runner
from .jobs.service import JobSettings
from .limits import raise_descriptor_limit
from .listener import Listener, listen
from .metrics import resources, version
from .pools import waiting
from .readiness import Readiness, join
from .rep import ReplyStream
from .security import Access, Authenticator, is_exposed, parse_clients, protect
from .stream import Stream
from .wire import error_text

logger = logging.getLogger(__name__)

# Milliseconds that what was sent last has to leave when the process ends, where nothing tells when it has.
_LINGER = 1000

# Said of a socket that other hosts may reach.
_OPEN = (
    '%s lets everybody in who reaches %s: use keys (curve_secret_key; "pyams_zmq keys" makes them), auth or'
    ' clients, or an address of this host alone, as 127.0.0.1'
)
_IN_CLEAR_TEXT = (
    '%s takes passwords at %s, and whoever is on the way there can read them, as all else: use keys instead'
    ' (curve_secret_key; "pyams_zmq keys" makes them), or an address of this host alone, as 127.0.0.1'
)


@implementer(IZMQProcess)
class ZMQProcess(JobSettings, Access, multiprocessing.Process):
    """A process that answers messages which arrive on a 0MQ socket.

    :param bind_addr: ``'host:port'``, ``(host, port)``, ``'host'`` alone for any free port,
        ``'tcp://host:port'`` or ``'ipc:///path'``; the host is an address, an interface or ``*``
    :param handler: class of the message handler, as :class:`pyams_zmq.handler.ZMQMessageHandler`
    :param auth: ``'user:password'`` that clients have to present, or ``{'user': 'password', …}``; None or
        empty: they need not
    :param clients: text with the addresses, networks and names of the hosts that are let in, separated by
        white space or commas; None or empty: all are
    :param registry: the Pyramid registry that handlers find in the process; by default the current one
    :param workers: number of threads for the delegate's plain methods, 0 to run them on the loop, one at a
        time; None: the class attribute
    :param auth_file: see :class:`pyams_zmq.security.Access`, as for the following; None: the class attribute
    :param curve_secret_key: the file of the process's secret key
    :param curve_clients: the folder with the public keys of its clients
    :raises ValueError: where an address, ``auth``, ``clients`` or a file cannot be read
    """

    #: 0MQ type of the response socket. A :data:`zmq.REP` is run on a :data:`zmq.ROUTER`, see
    #: :class:`pyams_zmq.rep.ReplyStream`.
    socket_type: int = zmq.REP

    #: The :class:`pyams_zmq.security.Authenticator` of the running process; None where nothing is enforced.
    auth_thread: Authenticator | None = None

    #: How the process is started: ``'fork'``, ``'spawn'`` or ``'forkserver'``.
    start_method: str = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'

    def __init__(
        self,
        bind_addr: AnyAddress,
        handler: Any,
        auth: Auth | None = None,
        clients: str | None = None,
        registry: Any = None,
        *,
        workers: int | None = None,
        auth_file: AnyPath | None = None,
        curve_secret_key: AnyPath | None = None,
        curve_clients: AnyPath | None = None,
    ) -> None:
        super().__init__()
        self.context: zmq.Context[Any] | None = None
        self.loop: IOLoop | None = None
        self.bind_addr = bind_addr
        self.rep_stream: Any = None
        self.handler = handler
        self.passwords = self._auth = parse_auth(auth)
        self.clients = parse_clients(clients)
        self.registry = registry
        #: The threads of the running process; None without ``workers``.
        self.pool: ThreadPoolExecutor | None = None
        #: The jobs of the running process; None without a ``journal``.
        self.jobs: Runner | None = None
        given = {
            'workers': workers,
            'auth_file': auth_file,
            'curve_secret_key': curve_secret_key,
            'curve_clients': curve_clients,
        }
        vars(self).update((name, value) for name, value in given.items() if value is not None)
        self.check_options()
        if parse_address(bind_addr).transport == 'ipc' and self.clients:
            raise ValueError(
                'clients names hosts, but only processes of this host can reach an ipc socket; leave clients'
                ' empty: the mode of the file lets only its owner in'
            )
        self._readiness: Readiness | None = None
        self._guardian: Guardian | None = None
        self._streams: list[Stream] = []
        self._owner: int | None = None
        self._serving = False
        self._asked_to_end: int | None = None
        self._draining = self._drained = False
        self._started, self._started_at = time.time(), time.monotonic()

    # In the parent

    @property
    def _start_method(self) -> str:  # type: ignore[override]
        return self.start_method

    @staticmethod
    def _Popen(process: Any) -> Any:
        context = multiprocessing.get_context(process.start_method)
        if process.start_method != 'fork':
            return context.Process._Popen(process)
        # Until _bootstrap() the child has the parent's handlers of signals, which would swallow those sent to
        # the child, or ring the bell of the parent's loop.
        with signals_held():
            return context.Process._Popen(process)

    def _bootstrap(self, parent_sentinel: Any = None) -> int:
        # What the child does first. Until it takes them over, signals are not those of its parent's loop.
        reset_signals()
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        if self._guardian is not None:
            self._guardian.end_by_force_if_begun()
        else:
            self._close_sockets()  # a run() of one's own has not done it
        return code

    def start(self) -> None:
        """Start the process, from the thread that calls; see :meth:`wait_ready` for how it went."""
        previous, self._readiness = self._readiness, Readiness()
        try:
            super().start()
        except BaseException:
            self._readiness.started()
            self._readiness = previous
            raise
        self._readiness.started()

    def wait_ready(self, timeout: float = 10.0) -> str:
        """Wait until the process answers messages.

        :param timeout: seconds
        :returns: its endpoint, such as ``'tcp://127.0.0.1:5555'``
        :raises ProcessStartError: where it could not start, with the reason
        :raises TimeoutError: where it is not ready after that time
        """
        if self._readiness is None or self._parent_pid != os.getpid():  # type: ignore[attr-defined]
            raise ProcessStartError('the process was not started here: call start() first')
        return self._readiness.wait(self, timeout)

    def stop(self) -> None:
        """End the process gracefully: the messages under way are answered first, those still waiting are not.

        In the process itself, from any thread, and in the one that started it; does nothing anywhere else.
        """
        if self._owner == os.getpid():
            if self.loop is None:
                self._asked_to_end = signal.SIGTERM
            self._on_loop(self._drain)
        elif self._popen is not None and self._parent_pid == os.getpid():  # type: ignore[attr-defined]
            self.terminate()

    # In the child

    def run(self) -> None:
        """Set up, tell that the process has started, and answer messages until it is asked to end."""
        self._owner = os.getpid()
        self._started, self._started_at = time.time(), time.monotonic()
        self._asked_to_end, self._streams, self.loop = None, [], None
        self._draining = self._drained = False
        guardian = self._guardian = Guardian(self._signalled, self._listeners, self.stop_timeout)
        guardian.start()
        if self.registry is not None:
            manager.push({'registry': self.registry, 'request': None})
        try:
            self._prepare(guardian)
            self._run_loop()
        finally:
            self._tear_down(guardian)
            if self.registry is not None:
                manager.pop()
            if self._parent_pid == self._owner and not self._serving:  # type: ignore[attr-defined]
                # Run in the foreground: the process has other things to do afterwards.
                guardian.stop()

    def serve(self) -> None:
        """Run in the process that calls, which does nothing else and ends afterwards.

        As :meth:`run`, but ``stop_timeout`` goes on until the end of that process, what handlers have started
        included.

        :raises SystemExit: with the :class:`~pyams_zmq.exceptions.ExitCode`, where it could not start
        """
        self._serving = True
        self.run()

    def _prepare(self, guardian: Guardian) -> None:
        try:
            self.setup()
            self.init_stream()
            get_current_registry().notify(ZMQProcessStartedEvent(self))
        except AddressError as error:
            guardian.exit_code = ExitCode.ADDRESS
            self._give_up(guardian.exit_code, str(error.args[-1]))
        except Exception as error:
            guardian.exit_code = ExitCode.SETUP
            # A setting that makes no sense needs no traceback.
            self._give_up(
                guardian.exit_code, error_text(error), None if isinstance(error, SettingError) else error
            )
        endpoint = next((listener.endpoint for listener in self._listeners()), '')
        logger.info('%s is ready at %s', self.name, endpoint)
        if self._readiness is not None:
            self._readiness.report(endpoint)
        if self.jobs is not None:
            self._on_loop(self.jobs.start)
        if self._asked_to_end is not None:
            self._on_loop(self.exit, self._asked_to_end, None)

    def _run_loop(self) -> None:
        while not self._drained:  # pragma: no branch (something left in the very last turn of the loop)
            try:
                self.loop.start()  # type: ignore[union-attr] # setup() has made it
            except (SystemExit, KeyboardInterrupt) as error:
                # These two alone asyncio lets out of any task and callback, whoever has begun it.
                end_copy(self._owner, error)  # type: ignore[arg-type] # run() has set it
                logger.exception('A task or a callback raised; the process goes on: stop() would end it')
            else:
                break

    def _give_up(self, code: ExitCode, reason: str, error: Exception | None = None) -> None:
        logger.error('%s could not start: %s', self.name, reason, exc_info=error)
        if self._readiness is not None:
            self._readiness.report(None, reason)
        raise SystemExit(code)

    def setup(self) -> None:
        """Create the context, the authenticator, the loop and the response stream."""
        self._owner = os.getpid()
        threadlocals = partial(manager.push, manager.get())
        self.jobs = self.make_jobs(threadlocals)
        raise_descriptor_limit()
        self.context = zmq.Context()
        if self.passwords or self.clients or self.curve_keys:
            self.auth_thread = Authenticator(self.context)
            if self.clients:
                self.auth_thread.allow(*self.clients)
            if self.passwords:
                self.auth_thread.configure_plain(passwords=self.passwords)
            if self.curve_keys:
                self.auth_thread.configure_keys(self.curve_keys.clients)
            self.auth_thread.start()
        # Never the current loop: in a forked child it would be the parent's.
        loop = self.loop = AsyncIOLoop(make_current=False)
        asyncio.set_event_loop(loop.asyncio_loop)
        if self.workers:
            self.pool = ThreadPoolExecutor(self.workers, 'pyams_zmq-worker', threadlocals)
        self.rep_stream, _port = self.stream(self.socket_type, self.bind_addr, bind=True)

    def init_stream(self) -> None:
        """Connect the response stream to the message handler."""
        self.rep_stream.on_recv(self.handler(self, self.rep_stream, self.stop))

    def stream(
        self,
        sock_type: int,
        addr: AnyAddress,
        bind: bool,
        callback: Any = None,
        subscribe: bytes | str = b'',
    ) -> tuple[Stream, int | None]:
        """Create a socket of the running process, with its stream.

        :param sock_type: any 0MQ type; a :data:`zmq.REP` is run on a :data:`zmq.ROUTER`
        :param addr: as ``bind_addr``; to connect, a port is needed and the host may be a DNS name
        :param bind: whether to bind or to connect
        :param callback: called with the list of frames of each message
        :param subscribe: what a SUB socket subscribes to
        :returns: the stream, and the port or None for transports without ports
        :raises AddressError: where the address cannot be bound
        :raises ValueError: where it cannot be read
        """
        if self.context is None or self.loop is None:
            raise RuntimeError('stream() works in the running process, once setup() has made its context')
        address = parse_address(addr)
        socket = self.context.socket(zmq.ROUTER if sock_type == zmq.REP else sock_type)
        socket.ipv6 = address.ipv6
        self.limit_socket(socket)
        stream: Stream
        if sock_type == zmq.REP:
            stream = ReplyStream(socket, self.loop, self)
        else:
            stream = Stream(socket, self.loop, self)
        try:
            port = self._bind(stream, address) if bind else self._connect(socket, address)
            if sock_type == zmq.SUB:
                socket.subscribe(subscribe)
        except BaseException:
            stream.close(0)
            raise
        if callback is not None:
            stream.on_recv(callback)
        self._streams = [one for one in self._streams if not one.closed()] + [stream]
        if self._guardian is not None:
            self._guardian.give_back()
        return stream, port

    def _listeners(self) -> list[Listener]:
        return [stream.listener for stream in self._streams if stream.listener is not None]

    def _bind(self, stream: Stream, address: Address) -> int | None:
        if self.auth_thread is not None:
            protect(stream.socket, bool(self.passwords), self.curve_keys)
            stream.authenticated = bool(self.passwords or self.curve_keys)
        listener = stream.listener = listen(stream.socket, address)
        if is_exposed(listener.endpoint) and not self.curve_keys:
            if self.passwords:
                logger.warning(_IN_CLEAR_TEXT, self.name, listener.endpoint)
            elif not self.clients:
                logger.warning(_OPEN, self.name, listener.endpoint)
        return listener.port

    def _connect(self, socket: Any, address: Address) -> int | None:
        if address.transport == 'tcp' and address.port is None:
            raise ValueError(f'{address.url!r} has no port to connect to')
        socket.connect(address.url)
        return address.port

    def exit(self, num: int | None = None, frame: Any = None) -> None:  # noqa: ARG002 (a signal handler's)
        """End the process as a signal would.

        :param num: number of the signal, if there was one
        :param frame: not used
        """
        self.stop()

    def status(self) -> dict[str, Any]:
        """What ``_status`` tells of the process.

        :returns: its ``pid``, ``version``, when it ``started`` (seconds since 1970), ``uptime`` (seconds),
            ``workers``, messages ``waiting`` for a free worker, ``memory`` (bytes), ``cpu`` (seconds), and
            where it has a journal its ``jobs`` by state
        """
        return {
            'pid': os.getpid(),
            'version': version(),
            'started': round(self._started, 3),
            'uptime': round(time.monotonic() - self._started_at, 3),
            'workers': self.workers,
            'waiting': waiting(self.pool),
            **resources(),
            **({} if self.jobs is None else {'jobs': self.jobs.status()}),
        }

    def _on_loop(self, callback: Any, *args: Any) -> None:
        """Have something called on the loop, unless there is none yet; one that has ended ignores it."""
        if self.loop is not None:
            self.loop.add_callback(callback, *args)

    def _signalled(self, number: int) -> None:
        """Called in the guardian's thread."""
        self._asked_to_end = int(number)
        self._on_loop(self.exit, self._asked_to_end, None)

    async def _drain(self) -> None:
        if self._draining or self.loop is None:
            return
        self._draining = True
        if self._guardian is not None:
            self._guardian.expect_end()
        try:
            get_current_registry().notify(ZMQProcessStoppingEvent(self))
        except BaseException:
            logger.exception('A subscriber of the stopping event raised')
        drains = [stream.drain() for stream in self._streams]
        if self.jobs is not None:
            drains.append(self.jobs.drain())
        await asyncio.gather(*drains)
        self._drained = True
        self.loop.stop()

    def _tear_down(self, guardian: Guardian) -> None:
        """Close what :meth:`setup` and :meth:`stream` made, and let the last replies leave."""
        guardian.expect_end()
        if self.pool is not None:
            self.pool.shutdown()
        if self.jobs is not None:
            self.jobs.close()
        if self.auth_thread is not None:
            self.auth_thread.stop()
        if guardian.orphaned:
            # The sockets cannot be closed any more. The last replies are with 0MQ's own threads, and there
            # is no way to ask whether they have gone out.
            time.sleep(min(_LINGER / 1000, self.stop_timeout / 2))
        else:
            self._close_sockets()
        if self.loop is not None:
            self.loop.close()

    def _close_sockets(self) -> None:
        left = self.stop_timeout if self._guardian is None else self._guardian.time_left()
        # Half of it: a client that is there and does not read costs no more, and the end is still in order.
        patience = int(left / 2 * 1000)
        for stream in self._streams:
            # What is for a client goes with it when it hangs up; what is for a process that this one has
            # connected to waits for that to come back.
            stream.close(min(_LINGER, patience) if stream.listener is None else patience)
        if self.context is not None:
            if self.context._sockets:
                # One that a handler left open keeps it waiting for ever.
                patience = min(patience, _LINGER)
            term = threading.Thread(target=self.context.term, daemon=True)
            term.start()
            term.join(1.5 * patience / 1000)


def process_exit_func(process: BaseProcess | None = None) -> None:
    """End a process and wait for it: for :func:`atexit.register`.

    It gets SIGTERM first, and SIGKILL where it has not ended in its ``stop_timeout`` and some seconds more.
    In any process but the one that started it, nothing happens.

    :param process: the process; None does nothing
    """
    popen = getattr(process, '_popen', None)
    if process is None or popen is None or process._parent_pid != os.getpid():  # type: ignore[attr-defined]
        return
    process.terminate()
    join(process, getattr(process, 'stop_timeout', ZMQProcess.stop_timeout) + 5)
    if process.is_alive():
        logger.error('%s did not end in time and was killed', process.name)
        process.kill()
        join(process, 5)
