"""The tests on each Python that is there: ``nox``."""

import nox

nox.options.error_on_missing_interpreters = False
PYTHONS = ['3.10', '3.11', '3.12', '3.13', '3.14']


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests in an environment of their own."""
    session.install('--upgrade', 'pip>=25.1')
    session.install('--editable', '.', '--editable', './demo')
    session.run('python', '-m', 'pip', 'install', '--quiet', '--group', 'test', '--group', 'browser')
    session.run('python', '-m', 'pytest', *session.posargs)
