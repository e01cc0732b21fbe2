"""Jobs: messages that are written down before they are replied to, and then run to an end."""

from .decorator import job
from .progress import JobCancelled, Progress

__all__ = ['JobCancelled', 'Progress', 'job']
