"""The documentation is complete: whatever a user can name is told of."""

import argparse
import ast
import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from pyams_zmq.exceptions import ExitCode
from pyams_zmq.handler import ZMQMessageHandler
from pyams_zmq.settings import MONITOR, OPTIONS, read_global, read_options

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
    made = set(statuses())
    assert {number for number in made if f'   * - {number}\n' not in text} == set()
    assert made > {400, 401, 403, 404, 413, 503, 504}


def test_each_module_has_its_place():
    table = re.findall(r'^\| (`.*`) \|', (ROOT / 'CONTRIBUTING.md').read_text(), re.MULTILINE)
    named = {name for row in table for name in re.findall(r'`(\w+)`', row)}
    modules = {path.stem for path in (ROOT / 'src/pyams_zmq').iterdir() if path.suffix in ('', '.py')}
    assert modules - {'__init__', '__main__', '__pycache__', 'locales'} <= named


def examples(language):
    """The lines of the pages' examples in a language, with the page."""
    for path in [*DOCS.glob('*.rst'), ROOT / 'README.md']:
        text = path.read_text()
        blocks = re.findall(
            rf'^\.\. code-block:: {language}\n(?:   :.*\n)*\n((?:   .*\n|\n)+)', text, re.MULTILINE
        )
        blocks += re.findall(rf'^```{language}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
        for block in blocks:
            yield from ((path.name, line.strip()) for line in block.splitlines())


COMMANDS = sorted(
    {
        (page, line.partition(' #')[0])
        for page, line in examples('sh')
        if re.match(r'(env/bin/)?pyams_zmq ', line)
    }
)


@pytest.mark.parametrize(('page', 'command'), COMMANDS)
def test_a_command_in_the_pages_makes_sense(page, command):
    _, name, *words = shlex.split(command.partition(' < ')[0].partition(' | ')[0])
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f'pyams_zmq.scripts.{name}').add_arguments(parser)
    parser.parse_intermixed_args(words)


def test_the_settings_in_the_pages_make_sense():
    lines = [(page, line) for page, line in examples('ini') if line.startswith('pyams_zmq.')]
    assert len(lines) > 20
    for page, line in lines:
        name, _, value = (part.strip() for part in line.partition('='))
        settings = {name: value}
        process = name.split('.')[1]
        if name.count('.') == 1:
            read_global(settings, process)
        else:
            read_options(settings, process, options=MONITOR if process == 'monitor' else OPTIONS)
        assert value, (page, line)


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_the_links_to_files_lead_somewhere(name):
    links = re.findall(r'\]\(([^)]+)\)', (ROOT / name).read_text())
    assert [
        link for link in links if '://' not in link and not (ROOT / link.partition('#')[0]).exists()
    ] == []


def test_each_thread_is_told_of():
    text = (DOCS / 'design.rst').read_text()
    sources = ''.join(path.read_text() for path in (ROOT / 'src').rglob('*.py'))
    names = set(re.findall(r"'(pyams_zmq-[a-z]+)", sources)) - {'pyams_zmq-nursery'}
    assert len(names) > 5
    assert [name for name in names if f'``{name}' not in text] == []
