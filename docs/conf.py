"""How Sphinx builds the documentation."""

import io
import os
import sys
from contextlib import redirect_stdout, suppress
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

from pyams_zmq import settings
from pyams_zmq.scripts import COMMANDS, main

sys.path.insert(0, str(Path(__file__).parent))

project = 'pyams_zmq'
author = 'The pyams_zmq developers'
copyright = '2026, The pyams_zmq developers'
version = release = version_of('pyams_zmq')

extensions = ['diagrams', 'myst_parser', 'sphinx.ext.autodoc', 'sphinx_copybutton']
exclude_patterns = ['_build', '**/*.inc']
html_theme = 'furo'
html_static_path = ['_static']
html_title = f'pyams_zmq {version}'

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'

# Every reference leads somewhere, but those to the documentation of others, which would need the network, and
# those that signatures make to types of the package that are nobody's business.
nitpicky = True
OTHERS = '|'.join(
    [*sys.stdlib_module_names, 'prometheus_client', 'pyramid', 'pyramid_tm', 'tornado', 'zmq', 'zope']
)
nitpick_ignore_regex = [
    ('py:.*', rf'({OTHERS})(\..*)?'),
    (
        'py:class',
        r'pyams_zmq\.(credentials|jobs\.(decorator|progress|runner)|request|rundir|wire)\..*|Listener',
    ),
]


class SettingsTable(SphinxDirective):
    """One of the tables of settings, as the code knows them: ``GLOBAL``, ``OPTIONS`` or ``MONITOR``."""

    required_arguments = 1

    def run(self):
        self.env.note_dependency(settings.__file__)
        lines = ['.. list-table::', '   :header-rows: 1', '   :widths: 20 32 16 32', '']
        for row in [('setting', 'meaning', 'default', 'accepted'), *self._rows(self.arguments[0])]:
            lines += [f'   {"* -" if not number else "  -"} {cell}' for number, cell in enumerate(row)]
        return self.parse_text_to_nodes('\n'.join(lines))

    @staticmethod
    def _rows(name):
        for option in getattr(settings, name).values():
            yield f'``{option.name}``', option.help, option.default, option.kind.accepts


class CommandLine(SphinxDirective):
    """The help of each sub-command."""

    def run(self):
        os.environ['COLUMNS'] = '100'
        text = '\n'.join(self._section(name) for name in COMMANDS)
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    @staticmethod
    def _section(name):
        output = io.StringIO()
        with redirect_stdout(output), suppress(SystemExit):
            main([name, '--help'])
        lines = (f'   {line}' for line in output.getvalue().splitlines())
        return '\n'.join([name, '-' * len(name), '', '.. code-block:: text', '', *lines, ''])


def setup(app):
    app.add_directive('zmq-settings', SettingsTable)
    app.add_directive('zmq-command-line', CommandLine)
