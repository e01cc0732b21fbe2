"""How Sphinx builds the documentation."""

from importlib.metadata import version as version_of

project = 'pyams_zmq'
author = 'The pyams_zmq developers'
copyright = '2026, The pyams_zmq developers'
version = release = version_of('pyams_zmq')

extensions = ['sphinx.ext.autodoc', 'sphinx_copybutton']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'pyams_zmq {version}'

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
nitpicky = False
