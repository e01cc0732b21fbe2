"""A monitor of the processes: ``config.include('pyams_zmq.monitor')``."""

from typing import Any

from pyramid.config import PHASE1_CONFIG

from ..settings import MONITOR, read_options
from .access import add_view
from .jobs import JobLists
from .observer import Observer
from .views import STATIC, Views


def includeme(config: Any) -> None:
    """Add the page, its JSON, the health of the processes and the metrics for Prometheus.

    :param config: the application's :class:`pyramid.config.Configurator`
    :raises SettingError: where a setting ``pyams_zmq.monitor.…`` is unknown or makes no sense
    """
    config.include('pyams_zmq')
    # Routes are matched in the order of the code that adds them, so their prefix has to be known here.
    prefix = read_options(config.registry.settings, 'monitor', options=MONITOR).get('prefix', '/zmq')
    config.add_route('pyams_zmq.monitor', prefix)
    config.add_route('pyams_zmq.monitor.processes', f'{prefix}/processes.json')
    config.add_route('pyams_zmq.monitor.jobs_of', f'{prefix}/jobs.json')
    config.add_route('pyams_zmq.monitor.jobs', f'{prefix}/jobs')
    config.add_route('pyams_zmq.monitor.health', f'{prefix}/health')
    config.add_route('pyams_zmq.monitor.health_of', f'{prefix}/health/{{name}}')
    config.add_route('pyams_zmq.monitor.metrics', f'{prefix}/metrics')
    config.add_static_view(f'{prefix}/static', STATIC, cache_max_age=3600)
    config.action('pyams_zmq.monitor', lambda: _add_views(config), order=PHASE1_CONFIG)


def _add_views(config: Any) -> None:
    options = read_options(config.registry.settings, 'monitor', options=MONITOR)
    public, timeout = options.get('public', ()), options.get('timeout', 1.0)
    views = Views(Observer(config.registry, timeout), JobLists(config.registry, timeout))
    get: dict[str, Any] = {'request_method': 'GET'}
    add_view(config, views.page, '', 'page', public, **get)
    add_view(config, views.processes, '.processes', 'page', public, renderer='json', **get)
    add_view(config, views.jobs, '.jobs_of', 'page', public, renderer='json', **get)
    add_view(config, views.health, '.health', 'health', public, **get)
    add_view(config, views.health, '.health_of', 'health', public, **get)
    add_view(config, views.metrics, '.metrics', 'metrics', public, **get)
    # It has a token of its own, so that of the application is not asked for.
    add_view(
        config, views.act, '.jobs', 'jobs', (), renderer='json', request_method='POST', require_csrf=False
    )
