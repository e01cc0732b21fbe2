"""Attacks on a running service, in their short form; ``make chaos`` hits harder and compares with others."""

import pytest

from chaos.attacks import ATTACKS
from chaos.target import MB, endure
from services import Process

#: What such an attack may cost at most: one is a message of 100 MB, which is there twice for a moment.
GROWTH = 250 * MB


@pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS)
def test_honest_clients_are_served(start, attack):
    service = start(cls=type('Attacked', (Process,), attack.options))
    outcome = endure(service, attack, attack.short)
    assert outcome.borne, outcome.note
    assert outcome.growth < GROWTH
