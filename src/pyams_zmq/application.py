"""The application, built anew for one of its processes."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pyramid.config import global_registries
from pyramid.paster import get_app, setup_logging
from pyramid.path import DottedNameResolver

from .declaration import Declaration, declarations
from .exceptions import SettingError
from .settings import nearest

#: What the application is built from, while it is built for one of its processes: none is started then.
building: ContextVar[str | None] = ContextVar('building', default=None)


def build(source: str, name: str) -> tuple[Any, Declaration]:
    """Build the application.

    :param source: path of an ``.ini`` file, or the dotted name of a factory that takes no arguments
    :param name: name of the process
    :returns: the Pyramid registry, and the declaration of the process in it
    :raises SettingError: where there is no such file, factory or process
    """
    factory = _ini_factory(source) if _is_ini(source) else _dotted_factory(source)
    token = building.set(source)
    try:
        factory()
    finally:
        building.reset(token)
    known: dict[str, tuple[Any, Declaration]] = {}
    for registry in global_registries:
        known.update((one, (registry, found)) for one, found in declarations(registry).items())
    if name not in known:
        raise SettingError(f'{source} declares no process {name!r}{nearest(name, known)}')
    return known[name]


def _is_ini(source: str) -> bool:
    return source.partition('#')[0].endswith('.ini') or Path(source).is_file()


def _ini_factory(source: str) -> Callable[[], Any]:
    path = source.partition('#')[0]
    if not Path(path).is_file():
        raise SettingError(f'there is no file {path}')
    setup_logging(source)
    return lambda: get_app(source)


def _dotted_factory(source: str) -> Callable[[], Any]:
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(levelname)s [%(name)s] %(message)s')
    try:
        factory: Callable[[], Any] = DottedNameResolver(None).resolve(source)
    except (ImportError, LookupError, ValueError) as error:
        raise SettingError(f'{source} is neither an .ini file nor a factory: {error}') from error
    return factory
