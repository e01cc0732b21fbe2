"""What commands write: tables for people, JSON for scripts."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..exceptions import ExitCode
from ..wire import Reply

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def write(text: str) -> None:
    """Write a line, or several."""
    _print('\n'.join(map(harmless, text.split('\n'))))


def write_json(value: Any) -> None:
    """Write a value as JSON."""
    _print(as_json(value))


def as_json(value: Any, indent: int | None = 2, *, ensure_ascii: bool = True) -> str:
    """Write a value as JSON, in one line where it is nested too deeply for several."""
    for each in (indent, None):
        with suppress(RecursionError):
            return json.dumps(value, indent=each, ensure_ascii=ensure_ascii)
    return '"nested too deeply to be shown"'


def reply_text(reply: Reply) -> str:
    """Write a reply in one line."""
    body = reply.body if isinstance(reply.body, str) else as_json(reply.body, None, ensure_ascii=False)
    return f'{reply.status} {body}'


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table."""
    lines = [[harmless(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        _print('  '.join(map(str.ljust, line, widths)).rstrip())


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise  # that is no error, to a shell
    except OSError as error:
        print(f'pyams_zmq: the output cannot be written: {error.strerror}', file=sys.stderr)
        # Or the interpreter complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(ExitCode.ERROR) from None


def harmless(text: str) -> str:
    """Escape what a terminal might take for an order: what comes from a process may hold anything."""
    if text.isprintable():
        return text
    return ''.join(
        one if one.isprintable() else one.encode('unicode_escape', 'surrogatepass').decode() for one in text
    )


def duration(seconds: float) -> str:
    """Write a time for people."""
    for unit, smaller, size, part in (
        ('d', 'h', _DAY, _HOUR),
        ('h', 'min', _HOUR, _MINUTE),
        ('min', 's', _MINUTE, 1),
    ):
        if seconds >= size:
            return f'{seconds // size:.0f} {unit} {seconds % size // part:.0f} {smaller}'
    return f'{seconds:.0f} s'


def counted(counts: Mapping[str, float | None]) -> str:
    """Write for people how many there are of each kind."""
    return ', '.join(f'{count or 0:,.0f} {kind}' for kind, count in counts.items())
