"""Asks all declared processes how they fare, at once and without waiting for any of them for long."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..declaration import Declaration, declarations
from ..figures import figures
from ..wire import error_text
from .shared import Shared

State: TypeAlias = Literal['up', 'busy', 'refused', 'down', 'given_up', 'broken']

#: What a reply that the client made itself tells of the process.
_STATES: dict[int, State] = {401: 'refused', 403: 'refused', 504: 'busy'}


@dataclass(frozen=True)
class Observation:
    """What one process told, or that it did not."""

    name: str
    state: State
    #: Why it did not.
    reason: str
    figures: dict[str, Any]


class Observer:
    """Asks the declared processes, and shares the answers between those who ask at about the same time.

    :param registry: the application's Pyramid registry
    :param timeout: seconds that a process has to answer
    """

    def __init__(self, registry: Any, timeout: float = 1.0) -> None:
        self._registry = registry
        self._timeout = timeout
        self._seen = Shared(self._ask_all)

    def look(self) -> list[Observation]:
        """Return an observation of each process, in the order of their names."""
        return self._seen.get()

    def _ask_all(self) -> list[Observation]:
        known = declarations(self._registry)
        with ThreadPoolExecutor(len(known) or 1, 'pyams_zmq-monitor') as threads:
            return list(threads.map(self._ask, (known[name] for name in sorted(known))))

    def _ask(self, declaration: Declaration) -> Observation:
        name = declaration.name
        try:
            reply = declaration.client.call('_status', timeout=self._timeout)
        except Exception as error:  # its client cannot be made, or its reply is none
            return Observation(name, 'broken', error_text(error), figures(None))
        if reply.delivered:
            return Observation(name, 'up', '', figures(reply.body))
        if declaration.problem is not None:
            return Observation(name, 'given_up', declaration.problem, figures(None))
        return Observation(name, _STATES.get(reply.status, 'down'), str(reply.body), figures(None))
