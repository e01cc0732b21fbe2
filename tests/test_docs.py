"""The documentation is complete: whatever a user can name is told of."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from pyams_zmq.exceptions import ExitCode
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.settings import OPTIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
API = (DOCS / 'api.rst').read_text()
MODULES = re.findall(r'\.\. automodule:: (\S+)', API)
OBJECTS = re.findall(r'\.\. auto(?:class|function):: (\S+)', API)


def imported():
    """The names of the package that the pages and the demonstration import."""
    texts = [
        path.read_text() for path in [ROOT / 'README.md', *DOCS.glob('*.rst'), *ROOT.glob('demo/**/*.py')]
    ]
    for text in texts:
        for module, names in re.findall(r'from (pyams_zmq[\w.]*) import ([\w, ]+)', text):
            yield from (f'{module}.{name.strip()}' for name in names.split(','))


def look_up(name):
    module, _, rest = name.rpartition('.')
    try:
        return getattr(import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(look_up(module), rest)


def public_members(scope, module):
    """What a user finds in a module or class that is written there."""
    for name, value in vars(scope).items():
        function = getattr(value, '__func__', value)
        if not name.startswith('_') and getattr(function, '__module__', None) == module:
            yield function


@pytest.mark.parametrize('name', sorted(set(imported())))
def test_what_the_pages_import_is_in_the_reference(name):
    assert name in OBJECTS or name.rpartition('.')[0] in MODULES
    assert look_up(name) is not None


@pytest.mark.parametrize('name', MODULES)
def test_a_module_in_the_reference_leaves_nothing_out(name):
    # Sphinx leaves out what has no docstring.
    module = import_module(name)
    assert inspect.getdoc(module)
    for value in public_members(module, name):
        assert value.__doc__, value
        if inspect.isclass(value):
            for method in public_members(value, name):
                assert inspect.getdoc(method), method


@pytest.mark.parametrize('name', OBJECTS)
def test_an_object_in_the_reference_is_there(name):
    assert look_up(name).__doc__


def test_each_option_of_a_process_is_told_of():
    text = ''.join(path.read_text() for path in DOCS.glob('*.rst'))
    assert [
        name for name, option in OPTIONS.items() if option.of_process and not re.search(rf'``{name}\b', text)
    ] == []


def test_each_message_of_the_library_is_told_of():
    text = (DOCS / 'messages.rst').read_text()
    assert [name for name in ZMQMessageHandler._commands if f'``{name}``' not in text] == []


def test_each_figure_of_the_status_is_told_of(start, call):
    text = (DOCS / 'messages.rst').read_text()
    status = call(start(), '_status').body
    assert [name for name in status if f'``{name}``' not in text] == []


def test_each_exit_code_is_told_of():
    text = ''.join(path.read_text() for path in DOCS.glob('*.rst'))
    assert [
        code for code in ExitCode if not re.search(rf'^{code.value}  +``{code.name}``', text, re.MULTILINE)
    ] == []


def statuses():
    """The numbers of replies that the package makes."""
    for path in (ROOT / 'src').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            name = (
                getattr(node.func, 'attr', getattr(node.func, 'id', '')) if isinstance(node, ast.Call) else ''
            )
            if name in ('ReplyError', 'Reply', 'undelivered') and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def test_each_status_is_told_of():
    text = (DOCS / 'messages.rst').read_text()
    assert {number for number in statuses() if f'   * - {number}\n' not in text} == set()
    assert set(statuses()) > {400, 401, 403, 404, 413, 503, 504}


def test_each_module_has_its_place():
    table = re.findall(r'^\| (`.*`) \|', (ROOT / 'CONTRIBUTING.md').read_text(), re.MULTILINE)
    named = {name for row in table for name in re.findall(r'`(\w+)`', row)}
    modules = {path.stem for path in (ROOT / 'src/pyams_zmq').iterdir() if path.suffix in ('', '.py')}
    assert modules - {'__init__', '__main__', '__pycache__', 'locales'} <= named
