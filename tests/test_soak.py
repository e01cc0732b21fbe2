"""The soak in its short form; ``make soak`` takes an hour."""

from dataclasses import replace

import pytest

from chaos.soak import GROWTH, Reading, compare, soak


@pytest.mark.slow
def test_a_process_holds_no_more_after_honest_and_hostile_load():
    lines = []
    _first, _last, wrong = soak(seconds=1, readings=1, report=lines.append)
    assert wrong == [], '\n'.join(lines)


@pytest.mark.parametrize(
    ('name', 'more'), [('memory', GROWTH + 1), ('descriptors', 1), ('threads', 1), ('tasks', 1)]
)
def test_a_leak_is_noticed(name, more):
    first = Reading(memory=2**20, descriptors=20, threads=4, tasks=1, call=0.001)
    last = replace(first, **{name: getattr(first, name) + more})
    (line,) = compare(first, last)
    assert line.startswith(f'{name}: ')
    assert compare(first, replace(first, memory=first.memory + GROWTH, call=1)) == []
