"""Counting in memory that processes share, and what Prometheus's own parser reads out of it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from glassq.metrics import Counter, Gauge, Histogram, SharedCounters, SharedGauge, exposition

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = Counter("glassq_events_total", "Events.", "kind", ("good", "bad"))
PLAIN = Counter("glassq_plain_total", "Without a label.")
SECONDS = Histogram("glassq_seconds", "How long.", (0.1, 1))
LEVEL = SharedGauge("glassq_level", "How high.")
SEEN = Gauge("glassq_seen", "Looked up.", ("tube", "state"))


@pytest.fixture
def counters() -> SharedCounters:
    return SharedCounters((EVENTS, PLAIN, SECONDS, LEVEL), 3)


def in_another_process(work: Callable[[], None]) -> None:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Name and values of labels of each sample, as Prometheus reads them."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_what_processes_count_is_added_up_and_stays_when_they_end(counters: SharedCounters) -> None:
    counters.row(0).count(EVENTS, "good")
    in_another_process(lambda: counters.row(1).count(EVENTS, "good", by=2))
    in_another_process(lambda: counters.row(1).count(EVENTS, "bad"))
    assert counters.total(EVENTS) == [3.0, 1.0]


def test_each_duration_is_in_the_bucket_of_its_upper_bound(counters: SharedCounters) -> None:
    row = counters.row(2)
    for seconds in (0.0, 0.1, 0.5, 1.0, 7.0):
        row.observe(SECONDS, seconds)
    found = samples(exposition.text(counters, {}, "1.2.3"))
    buckets = [found["glassq_seconds_bucket", bound] for bound in ("0.1", "1", "+Inf")]
    assert buckets == [2, 4, 5]
    assert found[("glassq_seconds_count",)] == 5
    assert found[("glassq_seconds_sum",)] == pytest.approx(8.6)


def test_threads_of_one_process_lose_nothing(counters: SharedCounters) -> None:
    row = counters.row(0)

    def count() -> None:
        for _ in range(20_000):
            row.count(PLAIN)
            row.observe(SECONDS, 0.5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.total(PLAIN) == [80_000]
    assert counters.total(SECONDS) == [0, 80_000, 0, 40_000]


def test_a_shared_gauge_is_what_it_was_set_to_last(counters: SharedCounters) -> None:
    counters.row(0).set(LEVEL, 4)
    counters.row(0).set(LEVEL, 3)
    assert samples(exposition.text(counters, {}, ""))[("glassq_level",)] == 3


def test_what_was_looked_up_stands_beside_what_was_counted(counters: SharedCounters) -> None:
    text = exposition.text(counters, {SEEN: {("a", "ready"): 5.0, ('b"\n', "ready"): 0.0}}, "1.2.3")
    found = samples(text)
    assert found["glassq_build_info", "1.2.3"] == 1
    # Prometheus sorts labels by their names
    assert found["glassq_seen", "ready", "a"] == 5
    assert found["glassq_seen", "ready", 'b"\n'] == 0
    assert found["glassq_events_total", "bad"] == 0
    assert exposition.CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_a_value_that_nobody_declared_is_a_mistake_of_the_program(counters: SharedCounters) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        counters.row(0).count(EVENTS, "ugly")
