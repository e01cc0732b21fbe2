"""What a process told of itself and its jobs, of which only what they should be is taken.

The process may be another version's, another program, or in bad hands.
"""

from typing import Any

NUMBERS = (
    'pid',
    'started',
    'uptime',
    'cpu',
    'memory',
    'workers',
    'waiting',
    'in_flight',
    'max_in_flight',
    'received',
    'replied',
    'served',
    'failed',
    'dropped',
    'unwanted',
)
LATENCY = ('window', 'count', 'p50', 'p90', 'p99')

#: The states of a job, in the order of its life.
STATES = ('queued', 'running', 'done', 'failed', 'cancelled')
_TIMES = ('submitted', 'started', 'ended', 'retry_at')

_LARGEST = 1e18
_FAILURES = 20
_TEXT = 500
_VERSION = 40
_BUCKETS = 100


def figures(body: Any) -> dict[str, Any]:
    """Take from the body of a reply to ``_status`` what can be shown.

    :param body: anything that JSON can hold
    :returns: all figures that :doc:`messages` lists, None for those that are not there
    """
    told = _mapping(body)
    latency = _mapping(told.get('latency'))
    histogram = _mapping(told.get('histogram'))
    return {
        **{name: _number(told.get(name)) for name in NUMBERS},
        'version': _text(told.get('version'))[:_VERSION],
        'latency': {name: _number(latency.get(name)) for name in LATENCY},
        'histogram': {
            'sum': _number(histogram.get('sum')),
            'buckets': _buckets(histogram.get('buckets')),
        },
        'jobs': _counts(told.get('jobs')),
        'failures': [_failure(one) for one in _list(told.get('failures'))[:_FAILURES]],
    }


def jobs(body: Any) -> dict[str, Any]:
    """Take from the body of a reply to ``_jobs`` what can be shown.

    :returns: ``jobs``, ``next`` and ``counts`` by state
    """
    told = _mapping(body)
    counts = _mapping(told.get('counts'))
    following = told.get('next')
    return {
        'jobs': [job(one) for one in _list(told.get('jobs'))],
        'next': following if type(following) is int else None,
        'counts': {state: _number(counts.get(state)) or 0 for state in STATES},
    }


def job(body: Any) -> dict[str, Any]:
    """Take from the body of a reply to ``_job``, or from an item of ``_jobs``, what can be shown."""
    told = _mapping(body)
    progress = _mapping(told.get('progress'))
    state = told.get('state')
    return {
        'job': _text(told.get('job')),
        'type': _text(told.get('type')),
        'state': state if state in STATES else '',
        'attempts': _number(told.get('attempts')),
        **{name: _number(told.get(name)) for name in _TIMES},
        'status': _number(told.get('status')),
        'unknown': told.get('unknown') is True,
        'cancelling': told.get('cancelling') is True,
        'error': _text(told.get('error')),
        'progress': {
            'done': _number(progress.get('done')),
            'total': _number(progress.get('total')),
            'message': _text(progress.get('message')),
        },
    }


def _counts(value: Any) -> dict[str, float | None] | None:
    """Return how many jobs there are in each state; None where the process has no journal."""
    return {state: _number(value.get(state)) for state in STATES} if isinstance(value, dict) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    # What is no number compares as false, too: NaN.
    return value if type(value) in (int, float) and 0 <= value < _LARGEST else None


def _text(value: Any) -> str:
    return value[:_TEXT] if isinstance(value, str) else ''


def _failure(value: Any) -> dict[str, Any]:
    told = _mapping(value)
    return {
        'time': _number(told.get('time')),
        'type': _text(told.get('type')),
        'error': _text(told.get('error')),
    }


def _buckets(value: Any) -> list[list[float]]:
    """Return pairs of a bound and a number of messages, both growing; none where one makes no sense."""
    pairs = [pair for pair in _list(value)[:_BUCKETS] if isinstance(pair, list) and len(pair) == 2]
    numbers = [number for pair in pairs for number in map(_number, pair) if number is not None]
    bounds, counts = numbers[::2], numbers[1::2]
    sound = (
        len(numbers) == 2 * len(_list(value)) and bounds == sorted(set(bounds)) and counts == sorted(counts)
    )
    return [list(pair) for pair in zip(bounds, counts, strict=True)] if sound else []
