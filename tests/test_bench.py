"""The benchmark: it runs, and what it tells of its figures is right."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench import report, sides, targets
from bench.entrants import OURS, RELEASED, ROUTER, Entrant
from bench.environments import ROOT
from bench.figures import figure, ratio
from bench.tables import CALLS, FACTS, OWN, TABLES


@pytest.mark.slow
def test_a_quick_look():
    """Ratios with wide margins: a busy machine makes both sides slow."""
    command = [sys.executable, '-m', 'bench', '--quick']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stderr.strip(), done.returncode) == ('', 0)
    assert done.stdout.count('.. list-table::') == 6
    assert 'fails' not in done.stdout


RESULTS = {
    '32': {
        OURS: [{'rate': rate, 'p50': 1e-3, 'p99': 2e-3} for rate in (1000.0, 3000.0, 2000.0)],
        RELEASED: [{'rate': rate, 'p50': 2e-3, 'p99': 4e-3} for rate in (500.0, 1000.0, 500.0)],
        'zerorpc': [{'rate': 4000.0, 'p50': 1e-3, 'p99': 1e-3}] * 3,
        'RPyC': [{'error': 'TimeoutError'}] * 3,
    }
}


def test_figures_are_compared_round_by_round():
    assert ratio(RESULTS, '32', 'rate', OURS, RELEASED) == 3
    assert figure(RESULTS, '32', CALLS, OURS, OURS) == (2000, 1500, 2500, 1)
    assert figure(RESULTS, '32', CALLS, RELEASED, OURS) == (500, 500, 750, pytest.approx(1 / 3))
    assert ratio(RESULTS, '32', 'rate', OURS, ROUTER) is None
    assert figure(RESULTS, '32', CALLS, 'RPyC', OURS) is None
    assert figure({'32': {OURS: [{'rate': 5.0}]}}, '32', CALLS, OURS, OURS) == (5, 5, 5, 1)


def test_what_is_not_met_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(report, 'FOLDER', tmp_path)
    own = {column: {OURS: [{'value': 21.5}]} for column in FACTS.columns}
    report.write({'clients': RESULTS, 'facts': own}, {'Processor': 'two cores'})
    text = (tmp_path / 'tables.inc').read_text()
    assert text.startswith(':Processor: two cores')
    flat = ' '.join(text.split())
    assert 'throughput, 32 clients, to 2.0.0 - at least 3 - 3.00 - met' in flat
    assert 'import of its own modules - at most 20 ms - 21.5 ms - **not met**' in flat
    assert 'but for: - Clients at once, 100 B, 32: zerorpc (2.00)' in flat
    assert '* - pyams_zmq - 2,000 (1,500–2,500) × 1.00 * - pyams_zmq 2.0.0 - 500 (500–750) × 0.33' in flat
    assert '* - RPyC - fails' in flat


def test_targets_name_what_is_measured():
    measured = {table.key: table for table in TABLES}
    for target in targets.TARGETS:
        table = measured[target.table]
        assert target.column in table.columns
        assert target.metric in [metric.key for metric in table.metrics]
        assert {target.one, target.other} <= {entrant.name for entrant in table.entrants}
    assert OWN in FACTS.columns
    assert targets.own_import({}) is None


def test_who_gives_no_answer_is_told(monkeypatch):
    monkeypatch.setattr(sides, '_PATIENCE', 0)
    entrant = Entrant('nobody', 'xmlrpc', None)
    with (
        sides.Sides(entrant, Path(sys.executable)) as both,
        pytest.raises(TimeoutError, match='no result of'),
    ):
        both.ask({'do': 'in_sequence', 'method': 'echo', 'amount': 1, 'seconds': 60, 'client': {}})


def test_a_service_that_ends_is_told():
    entrant = Entrant('nobody', 'no_such_module')
    with pytest.raises(RuntimeError, match='No module named'), sides.Sides(entrant, Path(sys.executable)):
        pass
