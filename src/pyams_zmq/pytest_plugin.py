"""The fixtures of :mod:`pyams_zmq.testing`, which pytest finds by itself.

It is imported at the start of each run of pytest, so it imports little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .client import ZMQClient
    from .process import ZMQProcess
    from .testing import ZMQStub


@pytest.fixture
def zmq_process() -> Iterator[Callable[[ZMQProcess], ZMQClient]]:
    """Starts processes, which end with the test; returns a client of each."""
    yield from _processes()


@pytest.fixture(scope='session')
def zmq_session_process() -> Iterator[Callable[[ZMQProcess], ZMQClient]]:
    """Starts processes, which end with the last test; returns a client of each."""
    yield from _processes()


def _processes() -> Iterator[Callable[[ZMQProcess], ZMQClient]]:
    from .testing import running  # noqa: PLC0415

    with ExitStack() as stack:
        yield lambda process: stack.enter_context(running(process))


@pytest.fixture
def zmq_stub() -> Iterator[Callable[[ZMQProcess], ZMQStub]]:
    """Makes stubs of processes, which end with the test."""
    from .testing import ZMQStub  # noqa: PLC0415

    with ExitStack() as stack:

        def stub(process: ZMQProcess) -> ZMQStub:
            made = ZMQStub(process)
            stack.callback(made.close)
            return made

        yield stub


@pytest.fixture
def zmq_stubs() -> Iterator[Callable[..., dict[str, ZMQStub]]]:
    """Lets an application, given its registry, speak to stubs, which end with the test."""
    from .testing import stub_processes  # noqa: PLC0415

    with ExitStack() as stack:

        def stubs(registry: Any, **delegates: Any) -> dict[str, ZMQStub]:
            made = stub_processes(registry, **delegates)
            for stub in made.values():
                stack.callback(stub.close)
            return made

        yield stubs
