"""Background processes for Pyramid applications, which talk to them over 0MQ."""

from typing import Any

# From where Pyramid has it: pyramid.i18n takes ten times as long to import as all that a health check needs.
from translationstring import TranslationStringFactory

_ = TranslationStringFactory('pyams_zmq')


def includeme(config: Any) -> None:
    """What ``config.include('pyams_zmq')`` calls.

    :param config: the application's :class:`pyramid.config.Configurator`
    """
    from .include import include_package  # noqa: PLC0415 (importing pyams_zmq must stay cheap)

    include_package(config)
