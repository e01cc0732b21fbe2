"""What ``config.include('pyams_zmq')`` adds to an application."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.events import ApplicationCreated
from pyramid.interfaces import INewRequest

from .application import building
from .calls import RequestClient
from .declaration import Declaration, declarations
from .exceptions import SettingError
from .settings import check_name, check_names, read_global

#: Options that may be given as dotted names.
_DOTTED = ('delegate', 'handler', 'process')

#: What some of them are: a class with a certain attribute, and an example.
_CLASSES = {
    'handler': ('handler', 'a message handler, as pyams_zmq.handler.ZMQMessageHandler'),
    'process': ('configure', 'a process, as pyams_zmq.process.ZMQProcess'),
}


def include_package(config: Any) -> None:
    """Add the translation domain ``pyams_zmq``, the directive ``add_zmq_process``, and ``request.zmq``.

    :param config: the application's :class:`pyramid.config.Configurator`
    """
    # By its path: where pytest has loaded the package, Pyramid finds none of its files by name.
    config.add_translation_dirs(str(Path(__file__).with_name('locales')))
    config.add_directive('add_zmq_process', add_zmq_process)
    config.add_request_method(zmq)
    config.action('pyams_zmq', lambda: _declare_listed(config), order=PHASE1_CONFIG + 1)
    config.add_subscriber(_application_created, ApplicationCreated)


def add_zmq_process(
    config: Any, name: str, delegate: Any = None, *, handler: Any = None, process: Any = None, **options: Any
) -> None:
    """Declare a background process: ``config.add_zmq_process('medias', MediaDelegate)``.

    A setting ``pyams_zmq.<name>.<option>`` wins over what is given here.

    :param name: name of the process
    :param delegate: the class whose methods are the messages, or its dotted name
    :param handler: class of the message handler; by default :class:`pyams_zmq.handler.ZMQMessageHandler`
    :param process: class of the process; by default :class:`pyams_zmq.process.ZMQProcess`
    :param options: see the table of settings
    :raises SettingError: where the name makes no sense; for the options when the configuration is committed
    """
    check_name(name)
    given = {'delegate': delegate, 'handler': handler, 'process': process, **options}
    introspectable = config.introspectable('zmq processes', name, name, 'zmq process')
    config.action(
        ('zmq process', name),
        lambda: _declare(config, name, given, introspectable),
        order=PHASE1_CONFIG,
        introspectables=(introspectable,),
    )


def _declare(config: Any, name: str, given: Mapping[str, Any], introspectable: Any) -> None:
    declaration = Declaration(name, config.registry.settings, given, building.get())
    for option in _DOTTED:
        if option in declaration.options:
            declaration.options[option] = _resolve(config, f'pyams_zmq.{name}.{option}', declaration.options)
    declarations(config.registry)[name] = declaration
    introspectable.update(declaration.public_options)


def _resolve(config: Any, setting: str, options: Mapping[str, Any]) -> Any:
    option = setting.rpartition('.')[2]
    value = options[option]
    try:
        found = config.maybe_dotted(value)
    except (ImportError, LookupError, ValueError) as error:
        raise SettingError(f'{setting}: {value!r} cannot be imported: {error}') from error
    attribute, kind = _CLASSES.get(option, (None, ''))
    if attribute and not (isinstance(found, type) and hasattr(found, attribute)):
        raise SettingError(f'{setting}: {value!r} is not the class of {kind}')
    return found


def _declare_listed(config: Any) -> None:
    """Declare the processes that only ``pyams_zmq.processes`` names."""
    registry = config.registry
    for name in read_global(registry.settings, 'processes') or ():
        if name not in declarations(registry):
            introspectable = config.introspectable('zmq processes', name, name, 'zmq process')
            _declare(config, name, {}, introspectable)
            registry.introspector.add(introspectable)


def _application_created(event: Any) -> None:
    registry = event.app.registry
    processes = declarations(registry)
    check_names(registry.settings, processes)
    started = [one for one in processes.values() if one.start is not None]
    if not started or building.get() is not None:
        return
    for declaration in started:
        declaration.supervise()
        if declaration.start == 'app':
            declaration.ensure_started()
    # Also for those started already: a worker may have been forked since.
    registry.registerHandler(_new_request, (INewRequest,))


def _new_request(event: Any) -> None:
    for declaration in declarations(event.request.registry).values():
        declaration.ensure_started()


def zmq(request: Any, name: str) -> RequestClient:
    """Return the client of a process: ``request.zmq('medias').call('convert', {…})``.

    :param name: name of the process, as it is declared
    :raises SettingError: where none is declared under that name
    """
    declaration = declarations(request.registry).find(name)
    declaration.ensure_started()
    return RequestClient(declaration, request)
