"""What ``config.include('pyams_zmq')`` adds to an application."""

from typing import Any


def include_package(config: Any) -> None:
    """Add the translation domain ``pyams_zmq`` to the application.

    :param config: the application's :class:`pyramid.config.Configurator`
    """
    config.add_translation_dirs('pyams_zmq:locales')
