"""The tables of ``docs/operations.rst`` are complete."""

import ast
import re
from pathlib import Path

import pytest

import pyams_zmq
from pyams_zmq.exceptions import ExitCode
from pyams_zmq.jobs.service import JobSettings
from pyams_zmq.limits import Limits
from pyams_zmq.scripts.run import _EPILOG

PAGE = (Path(__file__).parents[1] / 'docs' / 'operations.rst').read_text()
SOURCES = Path(pyams_zmq.__file__).parent

#: Options that limit nothing.
CHOICES = {'journal', 'executor', 'durable'}


def options():
    for name, default in {**vars(Limits), **vars(JobSettings)}.items():
        if not (name.startswith('_') or callable(default) or name in CHOICES):
            yield name, default


def shown(default):
    """As the page writes it."""
    if isinstance(default, float):
        return f'{default:g} s'
    return (
        f'{default // 2**20} MiB' if default >= 2**20 else f'{default:,}' if default > 9999 else str(default)
    )


@pytest.mark.parametrize(('name', 'default'), list(options()))
def test_each_limit(name, default):
    row = re.search(rf'\* - ``{name}``\n +- (.*)\n', PAGE)
    assert row is not None
    assert row[1].startswith(shown(default))


@pytest.mark.parametrize('code', list(ExitCode))
def test_each_exit_code(code):
    assert re.search(rf'^{code.value} +``{code.name}``', PAGE, re.M)
    assert re.search(rf'\b{code.value} ', _EPILOG)


def test_the_unit_of_systemd_lets_work_end():
    """SIGTERM to all of the service would interrupt its jobs; so would SIGKILL before ``stop_timeout``."""
    unit = (Path(__file__).parents[1] / 'docs' / 'deployment.rst').read_text()
    assert re.search(r'^   KillMode=mixed$', unit, re.M)
    assert int(re.search(r'^   TimeoutStopSec=(\d+)$', unit, re.M)[1]) > Limits.stop_timeout


def lines():
    """The texts that are logged as errors, or may be, as their longest part without parameters."""
    for path in SOURCES.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            name = (
                getattr(node.func, 'attr', getattr(node.func, 'id', '')) if isinstance(node, ast.Call) else ''
            )
            if name in {'error', 'exception', 'critical', 'log', '_say'}:
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield max(re.split(r'%\w|\(.*?\)|\(', argument.value), key=len).strip()
                        break


def test_each_line_of_the_log_that_tells_of_an_error():
    texts = {*lines()} - {''}
    assert len(texts) > 15
    page = ' '.join(PAGE.split())
    assert [text for text in texts if text not in page] == []


def test_each_signal_that_is_handled():
    for name in 'SIGTERM', 'SIGINT', 'SIGKILL', 'SIGHUP':
        assert re.search(rf'^{name}|, {name}', PAGE, re.M)
