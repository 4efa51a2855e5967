"""Declared metrics as prometheus_client's objects: those that are set, and those that are read."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fedbench.telemetry.metrics import METRICS

# `_created` series double the series of every counter, and Prometheus has no use for them.
disable_created_metrics()  # type: ignore[no-untyped-call]


def gauge(name: str, registry: CollectorRegistry) -> Gauge:
    """Make the declared gauge, set by whoever has it."""
    return Gauge(name, METRICS[name].help, METRICS[name].labels, registry=registry)


def counter(name: str, registry: CollectorRegistry) -> Counter:
    """Make the declared counter."""
    return Counter(name, METRICS[name].help, METRICS[name].labels, registry=registry)


def histogram(name: str, registry: CollectorRegistry) -> Histogram:
    """Make the declared histogram."""
    metric = METRICS[name]
    return Histogram(name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def family(
    name: str, values: dict[tuple[str, ...], float]
) -> CounterMetricFamily | GaugeMetricFamily:
    """Make what a collector yields: the declared metric with values by its labels' values."""
    metric = METRICS[name]
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = kind(name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def single(name: str, value: float) -> CounterMetricFamily | GaugeMetricFamily:
    """Make what a collector yields of a metric without labels."""
    return family(name, {(): value})


class RunMetrics:
    """The metrics that carry a run; only those of the current run are kept."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._metrics: list[Gauge | Histogram] = []
        self._run: str | None = None

    def gauge(self, name: str) -> Gauge:
        """Make the declared gauge, whose first label is the run."""
        made = gauge(name, self._registry)
        self._metrics.append(made)
        return made

    def histogram(self, name: str) -> Histogram:
        """Make the declared histogram, whose first label is the run."""
        made = histogram(name, self._registry)
        self._metrics.append(made)
        return made

    def enter(self, run: str) -> None:
        """Forget what was of another run than this."""
        if run == self._run:
            return
        self._run = run
        for metric in self._metrics:
            metric.clear()
