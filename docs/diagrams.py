"""Diagrams, written as Graphviz's text in the pages, become SVG when the pages are built.

pygraphviz brings Graphviz along, so nothing has to be installed beside it.
"""

import re
from typing import ClassVar

import pygraphviz
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

DEFAULTS = """\
graph [bgcolor="transparent", fontname="sans-serif", fontsize=12]
node [shape=box, style=rounded, fontname="sans-serif", fontsize=12]
edge [fontname="sans-serif", fontsize=11]
"""


class Graphviz(SphinxDirective):
    """A diagram with a caption; its colours are those of the text around it, light or dark."""

    has_content = True
    option_spec: ClassVar = {'alt': directives.unchanged_required, 'caption': directives.unchanged_required}

    def run(self):
        try:
            svg = draw('\n'.join(self.content))
        except ValueError as error:
            raise self.error(f'Graphviz: {error}') from error
        svg = svg.replace('<svg ', f'<svg role="img" aria-label="{nodes.unescape(self.options["alt"])}" ', 1)
        figure = nodes.figure('', nodes.raw('', svg, format='html'), classes=['diagram'])
        if 'caption' in self.options:
            text, messages = self.state.inline_text(self.options['caption'], self.lineno)
            figure += nodes.caption('', '', *text)
            return [figure, *messages]
        return [figure]


def draw(text):
    """Return the SVG of a graph, without what belongs to a file of its own."""
    opening, _, rest = text.partition('{')
    drawn = pygraphviz.AGraph(f'{opening}{{{DEFAULTS}{rest}').draw(format='svg', prog='dot').decode()
    # Titles are the names of nodes, shown where the pointer rests: noise.
    return re.sub('<title>.*?</title>\n', '', drawn[drawn.index('<svg') :])


def setup(app):
    """Add the directive, and the style that gives diagrams the colours of the text."""
    app.add_directive('graphviz', Graphviz)
    app.add_css_file('diagrams.css')
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
