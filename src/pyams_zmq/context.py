"""A Pyramid request for the time of one message."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyramid.interfaces import IRequestFactory
from pyramid.request import Request
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_registry
from pyramid.threadlocal import manager as threadlocals


@contextmanager
def request_context(registry: Any = None) -> Iterator[Any]:
    """Give a plain method of a delegate a request, as a view has one.

    It is made by the application's request factory; its root is its ``context``; it is the current request;
    its finished callbacks are called at the end. Where there is :mod:`pyramid_tm`, its transaction is begun,
    and at the end committed, or aborted where there was an exception or it is doomed.

    :param registry: the Pyramid registry; by default the current one, which is the process's
    """
    if registry is None:
        registry = get_current_registry()
    request = (registry.queryUtility(IRequestFactory) or Request).blank('/')
    if _transaction_of_thread_is_used():
        request.environ['tm.manager'] = _own_manager()
    with prepare(request, registry):
        manager = getattr(request, 'tm', None)
        if manager is None:
            yield request
        else:
            with _transaction(request, manager):
                yield request


def _transaction_of_thread_is_used() -> bool:
    """Whether a request that has not ended yet uses the transaction manager of this thread.

    In a test, where a stub calls the delegate in the thread of the view: to begin a transaction with the same
    manager would abort that of the view.
    """
    environs = [one['request'].environ for one in threadlocals.stack if one.get('request') is not None]
    managers = [environ.get('tm.manager') for environ in environs if environ.get('tm.active')]
    return any(not getattr(manager, 'explicit', False) for manager in managers)


def _own_manager() -> Any:
    from transaction import TransactionManager  # noqa: PLC0415 (needs the extra tm)

    return TransactionManager(explicit=True)


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
