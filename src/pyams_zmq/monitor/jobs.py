"""The jobs of the processes: listed for those who look, cancelled and retried for those who may."""

import time
from functools import partial
from typing import Any

from ..declaration import declarations
from ..figures import STATES, jobs
from ..wire import Reply, error_text
from .shared import Shared

#: How many jobs a list has: few values, so that those who look share the lists.
LIMITS = (50, 200, 1000)

ACTIONS = ('cancel', 'retry')

_LONGEST_ID = 128


class JobLists:
    """The jobs of the declared processes.

    :param registry: the application's Pyramid registry
    :param timeout: seconds that a process has to answer
    """

    def __init__(self, registry: Any, timeout: float) -> None:
        self._registry = registry
        self._timeout = timeout
        self._lists: dict[tuple[str, str | None, int], Shared[dict[str, Any]]] = {}

    def look(self, process: str, state: str | None, limit: int) -> dict[str, Any]:
        """List jobs, the newest first.

        :param process: its name
        :param state: None for all
        :param limit: one of :data:`LIMITS`
        :returns: ``jobs``, whether there are ``more`` of them, the time ``now``, and the ``reason`` where the
            process did not tell
        :raises LookupError: where there is no such process, state or limit
        """
        if process not in declarations(self._registry) or state not in (None, *STATES) or limit not in LIMITS:
            raise LookupError
        key = process, state, limit
        return self._lists.setdefault(key, Shared(partial(self._ask, *key))).get()

    def _ask(self, process: str, state: str | None, limit: int) -> dict[str, Any]:
        body, reason = None, ''
        try:
            reply = self._client(process).jobs(state, limit, timeout=self._timeout)
            body, reason = (reply.body, '') if reply.ok else (None, str(reply.body))
        except Exception as error:  # its client cannot be made, or its reply is none
            reason = error_text(error)
        told = jobs(body)
        return {
            'jobs': [one for one in told['jobs'][:limit] if one['job'] and one['state']],
            'more': told['next'] is not None,
            'reason': reason,
            'now': round(time.time(), 3),
        }

    def act(self, process: Any, action: Any, job: Any) -> Reply:
        """Cancel a job, or let it run again.

        :param process: its name
        :param action: one of :data:`ACTIONS`
        :param job: its id
        :raises LookupError: where there is no such process or action, or the id can be none
        """
        known = isinstance(process, str) and process in declarations(self._registry)
        if not known or action not in ACTIONS or not isinstance(job, str) or not 0 < len(job) <= _LONGEST_ID:
            raise LookupError
        client = self._client(process)
        reply: Reply = getattr(client, action)(job, timeout=self._timeout)
        for (name, _, _), shared in list(self._lists.items()):
            if name == process:
                shared.forget()
        return reply

    def _client(self, process: str) -> Any:
        return declarations(self._registry)[process].client
