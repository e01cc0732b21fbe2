"""Logging that costs no reply."""

import logging
import sys
import traceback
from typing import Any


class Log(logging.LoggerAdapter):  # type: ignore[type-arg] # takes an argument from 3.11 on
    """A logger whose filters and handlers may raise: that is told on standard error, as handlers' errors are.

    Filters are users' code, and run wherever a message is logged: in the middle of a reply, or in the thread
    that every new connection depends on.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """As :meth:`logging.Logger.log`."""
        try:
            self.logger.log(level, msg, *args, **{'stacklevel': 2, **kwargs})
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()
