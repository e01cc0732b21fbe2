"""A panel of the debug toolbar: ``debugtoolbar.includes = pyams_zmq.debugtoolbar``.

It shows which messages a request has sent, and how the processes fare. What the messages hold is not shown,
as it may be secret.
"""

from pathlib import Path
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid_debugtoolbar.panels import DebugPanel

from pyams_zmq import _

from .calls import MOST, Message, remember
from .declaration import Declaration, declarations
from .exceptions import SettingError
from .monitor.observer import Observation, Observer
from .monitor.texts import SCRIPT

#: Seconds that a process has to tell how it fares, while the toolbar waits.
_TIMEOUT = 0.3

#: Characters of a type or a problem that are shown.
_LONGEST = 200

_FOLDER = Path(__file__).parent

_TEXTS = {
    'messages': _('Messages of this request'),
    'no_messages': _('It has sent none.'),
    'more': _('Only the last {most} are shown.'),
    'process': _('Process'),
    'type': _('Message'),
    'status': _('Status'),
    'outcome': _('What became of it'),
    'duration': _('Time'),
    'sent': _('Sent'),
    'received': _('Received'),
    'answered': _('Answered'),
    'under_way': _('Under way'),
    'after_commit': _('Sent after the commit, and answered'),
    'waits': _('Waits for the commit'),
    'taken_back': _('Not sent, as the transaction was not committed, or rolled back to a savepoint'),
    'milliseconds': _('{number} ms'),
    'bytes': _('{number} bytes'),
    'processes': _('Processes as they are now'),
    'no_processes': _('The application declares no process.'),
    'state': _('State'),
    'address': _('Address'),
    'start': _('Started'),
    'request': _('with the first request'),
    'app': _('with the application'),
    'elsewhere': _('not by this application'),
}


class ZMQDebugPanel(DebugPanel):  # type: ignore[misc]
    """The messages that a request has sent, and the processes.

    :param request: the request that it is about
    """

    name = 'pyams_zmq'
    has_content = True
    template = str(_FOLDER / 'debugtoolbar.dbtmako')
    title = nav_title = '0MQ'

    def __init__(self, request: Any) -> None:
        super().__init__(request)
        self._registry = request.registry
        self._messages = remember(request)

    @property
    def nav_subtitle(self) -> str:
        """How many messages there are."""
        return str(len(self._messages) or '')

    @property
    def nav_subtitle_style(self) -> str:
        """Red where one has failed."""
        return 'progress-bar-danger' if any(map(_has_failed, tuple(self._messages))) else ''

    def render_vars(self, request: Any) -> dict[str, Any]:
        """What the template shows.

        :param request: the toolbar's own, which knows the language
        """
        texts = {name: request.localizer.translate(text) for name, text in (_TEXTS | SCRIPT).items()}
        seen = {one.name: one for one in Observer(self._registry, _TIMEOUT).look()}
        known = declarations(self._registry)
        messages = tuple(self._messages)  # it may still grow
        return {
            'texts': texts,
            'most': MOST if len(messages) == MOST else None,
            'messages': [_message(one, texts) for one in messages],
            'processes': [_process(known[name], seen[name], texts) for name in sorted(known)],
        }


def _has_failed(message: Message) -> bool:
    return bool(message.problem) or (message.status or 0) >= 400


def _message(message: Message, texts: dict[str, str]) -> dict[str, Any]:
    is_answered = message.status is not None and not message.problem
    if message.problem:
        outcome = message.problem[:_LONGEST]
    elif message.taken_back:
        outcome = texts['taken_back']
    elif message.on_commit:
        outcome = texts['after_commit' if is_answered else 'waits']
    else:
        outcome = texts['answered' if is_answered else 'under_way']
    return {
        'process': message.process,
        'type': str(message.type)[:_LONGEST],
        'status': '' if message.status is None else message.status,
        'style': 'danger' if _has_failed(message) else 'success' if is_answered else 'default',
        'outcome': outcome,
        'duration': texts['milliseconds'].format(number=f'{message.duration * 1000:.1f}')
        if message.duration
        else '',
        'sent': texts['bytes'].format(number=message.size),
        'received': texts['bytes'].format(number=message.received) if message.received else '',
    }


def _process(declaration: Declaration, seen: Observation, texts: dict[str, str]) -> dict[str, Any]:
    try:
        address = str(declaration.address)
    except SettingError as error:
        address = str(error)
    return {
        'name': declaration.name,
        'state': texts[seen.state],
        'reason': seen.reason[:_LONGEST],
        'style': 'success' if seen.state == 'up' else 'danger',
        'address': address,
        'start': texts[declaration.start or 'elsewhere'],
    }


def includeme(config: Any) -> None:
    """Add the panel to the debug toolbar.

    :param config: the toolbar's own :class:`pyramid.config.Configurator`
    :raises ConfigurationError: where it is the application's
    """
    parent = getattr(config.registry, 'parent_registry', None)
    if parent is None:
        raise ConfigurationError(
            'pyams_zmq.debugtoolbar is included by the toolbar, not by the application: set'
            ' debugtoolbar.includes = pyams_zmq.debugtoolbar'
        )
    config.add_translation_dirs(str(_FOLDER / 'locales'))
    config.add_settings(default_locale_name=parent.settings['default_locale_name'])
    config.add_debugtoolbar_panel(ZMQDebugPanel)
