"""A Pyramid request for the time of one message."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_registry


@contextmanager
def request_context(registry: Any = None) -> Iterator[Any]:
    """Give a plain method of a delegate a request, as a view has one.

    It is made by the application's request factory; its root is its ``context``; it is the current request;
    its finished callbacks are called at the end. Where there is :mod:`pyramid_tm`, its transaction is begun,
    and at the end committed, or aborted where there was an exception or it is doomed.

    :param registry: the Pyramid registry; by default the current one, which is the process's
    """
    with prepare(registry=get_current_registry() if registry is None else registry) as environment:
        request = environment['request']
        manager = getattr(request, 'tm', None)
        if manager is None:
            yield request
        else:
            with _transaction(request, manager):
                yield request


@contextmanager
def _transaction(request: Any, manager: Any) -> Iterator[None]:
    # As pyramid_tm's tween does, which tells others by these keys.
    request.environ.update({'tm.active': True, 'tm.manager': manager})
    manager.begin()
    try:
        yield
        if manager.isDoomed():
            manager.abort()
        else:
            manager.commit()
    except BaseException:
        manager.abort()
        raise
    finally:
        del request.environ['tm.active'], request.environ['tm.manager']
