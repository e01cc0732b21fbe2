"""The ids of jobs."""

import os
import re
import time
import uuid
from typing import Any

from ..exceptions import ReplyError

_ID = re.compile(r'[!-~]{1,128}')


def new_id() -> str:
    """Make an id: a UUID of version 7, which begins with the time.

    With ids like that the journal's index grows at its end only.
    """
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), 'big')
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))


def check_id(job: Any) -> str:
    """Check an id that a client has chosen.

    :raises ReplyError: with status 400 where it can be none
    """
    if not isinstance(job, str) or not _ID.fullmatch(job):
        raise ReplyError(400, 'The id of a job is 1 to 128 visible ASCII characters')
    return job
