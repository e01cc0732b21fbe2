"""Attacks on a running service, in their short form; ``make chaos`` hits harder and compares with others."""

import pytest

from chaos.attacks import ATTACKS
from chaos.service import Attacked, Handler
from chaos.target import MB, Target, endure

#: What such an attack may cost at most: one is a message of 100 MB, which is there twice for a moment.
GROWTH = 250 * MB


@pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS)
def test_honest_clients_are_served(start, attack):
    options = dict(attack.options)
    auth = options.pop('auth', None)
    process = start('127.0.0.1', Handler, auth, cls=type('Attacked', (Attacked,), options))
    outcome = endure(Target(process.pid, process.endpoint, auth), attack, attack.short)
    assert outcome.borne, outcome.note
    assert outcome.growth < GROWTH
