"""What an ``.ini`` file tells of its processes, read without building the application."""

from collections.abc import Mapping
from typing import Any

import plaster

from ..declaration import Declaration
from ..exceptions import SettingError
from ..rundir import started_names
from ..settings import nearest, process_names, read_global

#: What the section of an application may begin to say where it holds all its settings itself.
_COMPLETE = ('egg:', 'call:')


def read_settings(source: str) -> Mapping[str, Any]:
    """Read the settings of an application.

    :param source: path of its ``.ini`` file, with ``#name`` where the application is not called main
    :raises SettingError: where it cannot be read
    """
    try:
        loader = plaster.get_loader(source, protocols=['wsgi'])
        name = loader.uri.fragment or 'main'
        pipeline = loader.get_settings(f'pipeline:{name}').get('pipeline', name)
        name = pipeline.split()[-1]
        section = loader.get_settings(f'app:{name}')
        if str(section.get('use', '')).startswith(_COMPLETE):
            return section  # type: ignore[no-any-return]
        # What is inherited from elsewhere; this imports the application's package, and so takes longer.
        return loader.get_wsgi_app_settings(name)  # type: ignore[no-any-return]
    except Exception as error:  # whatever the loaders raise
        raise SettingError(f'{source} cannot be read: {error}') from error


def read_declaration(source: str, name: str) -> Declaration:
    """Return what the settings tell of one process.

    :raises SettingError: where there is none of that name, as far as can be seen
    """
    settings = read_settings(source)
    known = _names(source, settings)
    if name not in known:
        raise SettingError(
            f'{source} has no setting of a process {name!r}, and none of that name has been started from'
            f' it{nearest(name, known)}'
        )
    return Declaration(name, settings, source=source)


def read_declarations(source: str) -> list[Declaration]:
    """Return what the settings tell of all processes.

    :raises SettingError: where the file cannot be read, or a setting makes no sense
    """
    settings = read_settings(source)
    return [Declaration(name, settings, source=source) for name in _names(source, settings)]


def _names(source: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the names that settings mention, then those of processes that were declared in code."""
    started = started_names(read_global(settings, 'ini') or source, read_global(settings, 'run_dir'))
    return list(dict.fromkeys([*process_names(settings), *started]))
