"""The sampler on a real queue, and what the overview makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from glassq.delivery import encode
from glassq.ledger import Entry, open_ledger
from glassq.operations import sampler as module
from glassq.operations import status
from glassq.operations.overview import overview
from glassq.operations.progress import Silent
from glassq.operations.sampler import Sampler
from tests.cli.conftest import a_delivery, put
from tests.conftest import wait_for

if TYPE_CHECKING:
    import pytest

    from glassq.operations import Operations
    from glassq.queues.base import Inspector
    from tests.queues.raw import Queue

NOW = datetime.now(UTC)


def test_a_sample_counts_our_tubes_and_tells_what_the_status_tells(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    for state in ("ready", "ready", "buried", "delayed"):
        put(queue, a_delivery(), state)
    queue.put(encode(a_delivery()), tube="elsewhere")
    queue.put(encode(a_delivery()), tube="glassq.push.mail")
    inspector.pause("glassq", 60)
    sampler = Sampler(operations)
    assert sampler.view().at is None
    sampler.step(inspector)
    view = sampler.view()
    assert [(tube.name, tube.ready) for tube in view.tubes] == [("glassq", 2), ("glassq.push.mail", 1)]
    assert [tube.name for tube in view.tubes if tube.paused_for] == ["glassq"]
    assert view.status is not None
    assert view.status.document().keys() == status.snapshot(operations, inspector, Silent()).document().keys()
    assert (view.note, view.minutes) != ("", ())
    found = overview(view, operations.clock())
    assert (found.waiting, found.working, found.retrying, found.buried, found.on_disk) == (3, 0, 1, 1, True)
    assert [line.empties.words for line in found.tubes] == ["-", "-"]
    assert found.tubes[0].oldest is not None
    assert found.incoming is None


def test_a_falling_backlog_is_told_to_end(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    jobs = [put(queue, a_delivery()) for _ in range(20)]
    clock = [NOW]
    operations.clock = lambda: clock[0]
    sampler = Sampler(operations)
    for _ in range(5):
        sampler.step(inspector)
        clock[0] += timedelta(seconds=5)
        queue.delete(jobs.pop())
        queue.delete(jobs.pop())
    found = overview(sampler.view(), clock[0])
    # 12 are left by the last sample, and 2 go in 5 s
    assert found.empties.words == "in about 30 s"
    assert found.tubes[0].empties == found.empties
    assert [sample.ready for sample in found.backlog] == [20, 18, 16, 14, 12]


def test_the_ledger_tells_minutes_and_percentiles(operations: Operations, inspector: Inspector) -> None:
    assert Sampler(operations).view().minutes == ()
    record(operations, "done", 90, 3)
    record(operations, "retrying", 90, 1)
    record(operations, "buried", 150, 1)
    sampler = Sampler(operations)
    sampler.step(inspector)
    view = sampler.view()
    assert sum(minute.done for minute in view.minutes) == 3
    assert sum(minute.failed for minute in view.minutes) == 1
    assert sum(minute.buried for minute in view.minutes) == 1
    assert (view.worked.count, view.worked.p50) == (5, 0.5)
    found = overview(view, NOW)
    assert len(found.minutes) == 60
    assert found.minutes[-1].at + 60 <= NOW.timestamp()
    assert found.done == 3 / 5


def test_nobody_who_watches_is_asked_for_more_than_a_curve_needs(
    operations: Operations, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(status, "snapshot", lambda *_: looks.append(1))
    monkeypatch.setattr("glassq.operations.watcher.EVERY", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e12)
    monkeypatch.setattr(module, "STATUS", (0.0, 3_600.0))
    sampler = Sampler(operations)
    for _ in range(3):
        sampler.step(inspector)
    assert len(looks) == 1
    sampler.view()
    sampler._due["status"] = 0.0
    for _ in range(3):
        sampler.step(inspector)
    assert len(looks) == 4


def test_what_takes_long_is_asked_the_more_seldom(
    operations: Operations, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(status, "snapshot", lambda *_: looks.append(1))
    monkeypatch.setattr("glassq.operations.watcher.EVERY", 0.0)
    # as if each look had taken hours
    monkeypatch.setattr(module, "SHARE", 1e-12)
    monkeypatch.setattr(module, "STATUS", (0.0, 0.0))
    sampler = Sampler(operations)
    for _ in range(3):
        sampler.step(inspector)
    assert len(looks) == 1


def test_the_curves_of_very_many_tubes_are_bounded(
    operations: Operations, inspector: Inspector, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CURVES", 2)
    sampler = Sampler(operations)
    job = queue.put(encode(a_delivery()), tube="glassq.push.a")
    sampler.step(inspector)
    queue.delete(job)
    for name in "bcd":
        for _ in range(2):
            queue.put(encode(a_delivery()), tube=f"glassq.push.{name}")
    sampler.step(inspector)
    assert len(sampler.view().curves) == 2
    assert "glassq.push.a" not in sampler.view().curves


def test_its_thread_begins_anew_where_the_queue_was_away(
    operations: Operations, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassq.operations.watcher.EVERY", 0.05)
    real, away = operations.looking, [True]

    def looking() -> object:
        if away:
            raise ValueError("a bug")
        return real()

    monkeypatch.setattr(operations, "looking", looking)
    put(queue, a_delivery())
    sampler = Sampler(operations)
    sampler.start()
    try:
        wait_for(lambda: "the log of the console" in sampler.view().trouble, "the trouble")
        away.clear()
        wait_for(lambda: sampler.view().tubes and not sampler.view().trouble, "a sample")
    finally:
        sampler.close()


def record(operations: Operations, state: str, ago: float, count: int) -> None:
    ledger = open_ledger(operations.settings.ledger)
    at = NOW - timedelta(seconds=ago)
    for number in range(count):
        name = f"{state}-{number}"
        ledger.record(Entry(name, "mirror", at, state, 1, at, 0.5, started=at + timedelta(seconds=1)))
    ledger.close()


def test_what_a_look_through_the_ledger_tells_is_asked_more_seldom(
    operations: Operations, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(status, "_states", lambda *_: (asked.append("states"), ({"done": 1}, ""))[1])
    monkeypatch.setattr("glassq.operations.watcher.EVERY", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e12)
    for name in ("STATUS", "QUEUES", "LEDGER"):
        monkeypatch.setattr(module, name, (0.0, 0.0))
    monkeypatch.setattr(module, "RECORDED", (3_600.0, 3_600.0))
    sampler = Sampler(operations)
    seen = []
    for _ in range(3):
        sampler.step(inspector)
        seen.append(sampler.view().status)
    assert asked == ["states"]
    first, *others = seen
    assert first is not None
    for other in others:
        assert other is not None
        assert other is not first
        assert (other.states, other.since, other.missing) == ({"done": 1}, first.since, first.missing)
    sampler._due["recorded"] = 0.0
    sampler.step(inspector)
    assert asked == ["states", "states"]
