"""The examples in the documentation are tests."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser as MarkdownParser
from sybil.parsers.rest import DocTestParser, PythonCodeBlockParser

pytest_collect_file = (
    Sybil(parsers=[MarkdownParser()], pattern='*.md', excludes=['demo/*'])
    # The tutorial's files are run by tests/test_tutorial.py.
    + Sybil(
        parsers=[PythonCodeBlockParser(), DocTestParser()], pattern='*.rst', excludes=['docs/tutorial.rst']
    )
).pytest()
