"""The metrics for Prometheus; needs prometheus_client."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .observer import Observation, Observer

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

_COUNTERS = {
    'served': ('pyams_zmq_messages', "Messages answered, the library's own not included"),
    'failed': ('pyams_zmq_messages_failed', 'Messages whose reply was a 500'),
    'dropped': ('pyams_zmq_messages_dropped', 'Messages that were no requests'),
    'unwanted': ('pyams_zmq_replies_unwanted', 'Replies that came too late or twice'),
    'cpu': ('pyams_zmq_cpu_seconds', 'Processor time used, in seconds'),
}
_GAUGES = {
    'started': ('pyams_zmq_start_time_seconds', 'Start of the process, in seconds since 1970'),
    'in_flight': ('pyams_zmq_messages_in_flight', 'Messages under way'),
    'waiting': ('pyams_zmq_messages_waiting', 'Messages under way that wait for a worker'),
    'workers': ('pyams_zmq_workers', 'Threads for plain methods'),
    'memory': ('pyams_zmq_memory_bytes', 'Memory held, in bytes'),
}
_LABELS = ('process',)


class ProcessCollector(Collector):
    """Collects the metrics of all processes, for a registry of Prometheus' client.

    :param observer: asks the processes
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def describe(self) -> Iterable[Metric]:
        """Tell nothing: to be registered is no reason to ask the processes."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Ask the processes; one that does not answer has ``pyams_zmq_up`` 0 and nothing else."""
        seen = self._observer.look()
        up = GaugeMetricFamily('pyams_zmq_up', 'Whether the process answers', labels=_LABELS)
        for one in seen:
            up.add_metric([one.name], one.state == 'up')
        yield up
        for kind, families in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for figure, (name, text) in families.items():
                family = kind(name, text, labels=_LABELS)
                for one in seen:
                    if one.figures[figure] is not None:
                        family.add_metric([one.name], one.figures[figure])
                yield family
        yield _jobs(seen)
        yield _histogram(seen)


def _jobs(seen: list[Observation]) -> Metric:
    family = GaugeMetricFamily('pyams_zmq_jobs', 'Jobs in the journal', labels=(*_LABELS, 'state'))
    for one in seen:
        for state, number in (one.figures['jobs'] or {}).items():
            if number is not None:
                family.add_metric([one.name, state], number)
    return family


def _histogram(seen: list[Observation]) -> Metric:
    family = HistogramMetricFamily(
        'pyams_zmq_message_duration_seconds',
        'Time from the arrival of a message to its reply, in seconds',
        labels=_LABELS,
    )
    for one in seen:
        histogram = one.figures['histogram']
        if histogram['buckets'] and histogram['sum'] is not None and one.figures['served'] is not None:
            buckets = [(str(float(bound)), float(count)) for bound, count in histogram['buckets']]
            family.add_metric([one.name], [*buckets, ('+Inf', one.figures['served'])], histogram['sum'])
    return family


def exposition(observer: Observer) -> bytes:
    """Write the metrics in the format whose content type is :data:`CONTENT_TYPE`.

    :param observer: asks the processes
    """
    registry = CollectorRegistry()
    registry.register(ProcessCollector(observer))
    return generate_latest(registry)
