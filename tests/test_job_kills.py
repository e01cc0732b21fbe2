"""Jobs while what runs them is killed, in the short form; ``make chaos`` kills more often, and Huey, too."""

import pytest

from chaos.jobs import OURS, SHORT, survive


@pytest.mark.slow
@pytest.mark.parametrize('queue', OURS, ids=lambda queue: queue.executor)
def test_what_was_accepted_runs_to_an_end(queue):
    jobs, kills = SHORT
    tally = survive(queue, jobs, kills)
    assert (tally.accepted, tally.lost) == (jobs, 0)
    assert tally.kills.total() >= kills
