"""``pyams_zmq run``: a process in the foreground, for systemd, a container, or the web workers."""

import argparse
import logging
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from pyramid.exceptions import ConfigurationExecutionError

from ..application import build
from ..declaration import Declaration
from ..exceptions import ExitCode, SettingError
from ..guardian import SIGNALS, reset_signals
from ..interfaces import IZMQProcessStartedEvent, IZMQProcessStoppingEvent
from ..jobs.schema import JournalError
from ..locks import FileLock
from ..notify import notify
from ..supervisor import TOUCH, ended_in_order, found_in_use, wait_for_end_of_users

logger = logging.getLogger(__name__)

_EPILOG = """\
The process ends in order at SIGTERM and SIGINT. Exit codes: 0 in order, 1 an error, 2 the command line or a
setting makes no sense, 3 the address cannot be bound, 4 the application or the process could not be set up,
5 what was under way took longer than stop_timeout, 6 the process runs already.

examples:
  pyams_zmq run production.ini medias
  pyams_zmq run production.ini#admin medias
  pyams_zmq run myapp.factories:background medias
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = 'Build the application, and run one of its processes in the foreground.'
    parser.epilog = _EPILOG
    parser.add_argument('source', metavar='APP', help='the .ini file of the application, or its factory')
    parser.add_argument('name', metavar='NAME', help='the name of the process')
    parser.add_argument(
        '--lock',
        type=int,
        metavar='FD',
        help='for web workers: the lock to take over; the process ends with them',
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the process until it is asked to end.

    :returns: the :class:`~pyams_zmq.exceptions.ExitCode`
    """
    reset_signals()
    for number in SIGNALS:
        # Until the process takes them over. The first process of a container has no default to fall back on.
        signal.signal(number, _end)
    given = None if arguments.lock is None else _adopt(arguments.lock)
    try:
        code = _run(arguments.source, arguments.name, given)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else ExitCode.ERROR
        if isinstance(end.__context__, SettingError):
            code = ExitCode.USAGE  # only setup() itself could tell
        if given is not None and (code == ExitCode.ADDRESS or isinstance(end.__context__, JournalError)):
            found_in_use(given)
    if given is None:
        return code
    if code == ExitCode.OK:
        ended_in_order(given)
        return code
    # A web server may be this process's parent, and take 3 and 4 for the failure of one of its workers.
    return ExitCode.ERROR


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(ExitCode.OK)


def _run(source: str, name: str, given: FileLock | None) -> int:
    try:
        registry, declaration = build(source, name)
        process = declaration.make_process(registry)
        run_dir = declaration.run_dir.make()
    except SettingError:
        raise
    except Exception as error:
        if isinstance(error, ConfigurationExecutionError) and isinstance(error.evalue, SettingError):
            raise error.evalue from error
        logger.exception('%s could not be built from %s', name, source)
        return ExitCode.SETUP
    owner = given or FileLock.take(run_dir.owner)
    if owner is None:
        logger.error('%s runs already: its lock is %s', name, run_dir.owner)
        return ExitCode.RUNNING
    if given is None:
        ended_in_order(owner)  # whoever runs it counts its crashes
        registry.registerHandler(
            lambda event: _keep_new(owner, event.object.loop), (IZMQProcessStartedEvent,)
        )
        registry.registerHandler(lambda _event: notify('READY=1'), (IZMQProcessStartedEvent,))
        registry.registerHandler(lambda _event: notify('STOPPING=1'), (IZMQProcessStoppingEvent,))
    else:
        registry.registerHandler(
            lambda event: _end_with_users(event.object, declaration, owner), (IZMQProcessStartedEvent,)
        )
    process.serve()
    return ExitCode.OK


def _adopt(fd: int) -> FileLock:
    try:
        return FileLock.adopt(fd)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingError(f'--lock {fd} is for web workers alone: {error}') from None


def _keep_new(owner: FileLock, loop: Any) -> None:
    with suppress(OSError):
        owner.touch()
    loop.call_later(TOUCH, _keep_new, owner, loop)


def _end_with_users(process: Any, declaration: Declaration, owner: FileLock) -> None:
    run_dir = declaration.run_dir

    def is_in_place() -> bool:
        return owner.is_of(run_dir.owner) and ('address' in declaration.options or run_dir.socket.exists())

    def wait() -> None:
        wait_for_end_of_users(run_dir, declaration.options.get('grace', 10.0), is_in_place)
        logger.info('%s ends: no web worker uses it any more', declaration.name)
        process.stop()

    threading.Thread(target=wait, name='pyams_zmq-users', daemon=True).start()
