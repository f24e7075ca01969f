"""Shared counters and gauges as the text that Prometheus reads."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from glassq.metrics.counters import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from glassq.metrics.counters import SharedCounters, Shown

#: gauges with their numbers, by label values
GaugeValues = dict[Gauge, dict[tuple[str, ...], float]]

# https://prometheus.io/docs/instrumenting/exposition_formats/
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUILD = Gauge("glassq_build_info", "1; the version is in the label.", ("version",))


class Collector:
    """The state of one moment, in the form that prometheus_client renders and serves."""

    def __init__(self, counters: SharedCounters, gauges: GaugeValues) -> None:
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """The metric families, in the order of their declaration."""
        for instrument in self._counters.instruments:
            yield _family(instrument, self._counters.total(instrument))
        for gauge, numbers in self._gauges.items():
            yield _gauge(gauge, numbers)


def text(counters: SharedCounters, gauges: GaugeValues, version: str) -> bytes:
    """Counters and gauges in Prometheus's text format, and glassq's version."""
    return generate_latest(Collector(counters, with_version(gauges, version)))


def with_version(gauges: GaugeValues, version: str) -> GaugeValues:
    """The gauges, with one more for glassq's version."""
    return {_BUILD: {(version,): 1.0}, **gauges}


def _family(instrument: Shown, numbers: list[float]) -> Metric:
    if isinstance(instrument, Counter):
        labels = [instrument.label] if instrument.label else []
        counter = CounterMetricFamily(instrument.name, instrument.help, labels=labels)
        for value, number in zip(instrument.values, numbers, strict=True):
            counter.add_metric([value] if labels else [], number)
        return counter
    if isinstance(instrument, Histogram):
        return _histogram(instrument, numbers)
    return GaugeMetricFamily(instrument.name, instrument.help, value=numbers[0])


def _histogram(instrument: Histogram, numbers: list[float]) -> Metric:
    *counts, total = numbers
    bounds = [*(f"{bound:g}" for bound in instrument.buckets), "+Inf"]
    family = HistogramMetricFamily(instrument.name, instrument.help)
    family.add_metric([], list(zip(bounds, accumulate(counts), strict=True)), total)
    return family


def _gauge(gauge: Gauge, numbers: Mapping[tuple[str, ...], float]) -> Metric:
    # Prometheus's rule for names: what ends so is a counter, also where we look it up
    kind = CounterMetricFamily if gauge.name.endswith("_total") else GaugeMetricFamily
    family = kind(gauge.name, gauge.help, labels=gauge.labels)
    for labels, number in numbers.items():
        family.add_metric(labels, number)
    return family
