"""Help for the tests of applications: real processes, and stubs of them.

The fixtures of the same names come with the pytest plugin, which pytest finds by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyramid.config import PHASE1_CONFIG

from ..client import ZMQClient
from ..declaration import declarations
from ..process import ZMQProcess, process_exit_func
from .stub import Call, ZMQStub

__all__ = ['Call', 'ZMQStub', 'declared_process', 'replace_client', 'running', 'stub_processes']


@contextmanager
def running(process: ZMQProcess, timeout: float = 30.0) -> Iterator[ZMQClient]:
    """Start a process, and end it afterwards.

    :param process: not started yet; the address ``'127.0.0.1'`` lets it take a free port
    :param timeout: seconds for its start, and for calls
    :returns: a client of it, which is the first user of its passwords; where it has keys, it gets one of its
        own, whose name is ``testing``
    :raises ProcessStartError: where it could not start
    """
    keys = None if process.curve_keys is None else process.curve_keys.add_client('testing')
    process.start()
    try:
        endpoint = process.wait_ready(timeout)
        with ZMQClient(endpoint, process.passwords, timeout, curve=keys) as client:
            yield client
    finally:
        process_exit_func(process)


def declared_process(registry: Any, name: str) -> ZMQProcess:
    """Make a process as an application declares it, but on a free port; it is not started yet.

    :param registry: the application's
    :param name: name of the process
    :raises SettingError: where there is no such process, or it cannot be made
    """
    return declarations(registry).find(name).make_process(registry, '127.0.0.1')


def replace_client(registry: Any, name: str, client: ZMQClient) -> None:
    """Let ``request.zmq(name)`` speak to something else, and the process itself not be started.

    :param registry: the application's
    :param name: name of the process
    :param client: what :func:`running` gives, or a :class:`ZMQStub`
    :raises SettingError: where there is no such process
    """
    declarations(registry).find(name).replace_client(client)


def stub_processes(registry: Any, **delegates: Any) -> dict[str, ZMQStub]:
    """Let ``request.zmq(name)`` speak to a stub, for each process that an application declares.

    :param registry: the application's
    :param delegates: what takes the place of the delegates of some processes, by their names: classes or
        objects. Where there is no delegate, as for the processes of others, each message gets a 404.
    :returns: the stubs by their names
    :raises SettingError: where there is no such process, or one cannot be made
    """
    known = declarations(registry)
    for name, delegate in delegates.items():
        known.find(name).options['delegate'] = delegate if isinstance(delegate, type) else _always(delegate)
    stubs = {}
    for name, declaration in known.items():
        declaration.options.setdefault('delegate', _NoDelegate)
        process = declaration.make_process(registry, '127.0.0.1')
        stubs[name] = ZMQStub(process, declaration.options.get('timeout', 10))
        declaration.replace_client(stubs[name])
    return stubs


class _NoDelegate:
    """What is not known of the process of somebody else."""


def _always(delegate: Any) -> Any:
    return staticmethod(lambda: delegate)


def includeme(config: Any) -> None:
    """Let an application speak to stubs: ``pyramid.includes = pyams_zmq.testing``.

    :param config: the application's :class:`pyramid.config.Configurator`
    """
    config.include('pyams_zmq')
    # After the processes are declared, before the application is created and would start them.
    config.action('pyams_zmq.testing', lambda: stub_processes(config.registry), order=PHASE1_CONFIG + 2)
