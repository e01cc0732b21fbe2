"""What commands write: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def write(text: str) -> None:
    """Write a line, or several."""
    print('\n'.join(map(_harmless, text.split('\n'))), flush=True)


def write_json(value: Any) -> None:
    """Write a value as JSON."""
    print(json.dumps(value, indent=2), flush=True)


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table."""
    lines = [[_harmless(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print('  '.join(map(str.ljust, line, widths)).rstrip(), flush=True)


def _harmless(text: str) -> str:
    """Escape what a terminal might take for an order: what comes from a process may hold anything."""
    return ''.join(
        one if one.isprintable() else one.encode('unicode_escape', 'surrogatepass').decode() for one in text
    )
