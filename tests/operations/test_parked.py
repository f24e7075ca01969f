"""Parked deliveries: their tubes are ours, are summed by route, and belong to the queue that they came from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq import settings
from glassq.in_effect import InEffect
from glassq.operations import Operations, parked, purge, push_queues, worker_queues
from glassq.operations.filters import Filter
from glassq.operations.find import our_tubes, tubes_of, unworked
from glassq.operations.progress import Silent
from glassq.queues.base import TubeCounts
from glassq.worker.gates.breaker import BreakerState
from glassq.worker.gates.report import PausedRoutes, paused_routes

if TYPE_CHECKING:
    from glassq.queues.base import Inspector
    from tests.queues.raw import Queue

KEYS = [f"glassq.key.sync.{number:016x}" for number in range(3)]
OTHERS = ["glassq.held.gone", "glassq.queue.pay.held.sync", "glassq.push.mail.key.sync.0123456789abcdef"]


def put(queue: Queue, *tubes: str) -> None:
    for tube in tubes:
        queue.put(envelope.encode(envelope.new("mirror", b"{}", {"queue": "mail"}, tube=tube)), tube=tube)


def test_tubes_of_parked_deliveries_are_ours_and_no_queues(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    put(queue, *KEYS, *OTHERS, "glassq.key.sync.short", "glassq2.held.sync")
    assert our_tubes(operations, inspector) == ["glassq", *sorted([*KEYS, *OTHERS])]
    assert tubes_of(operations, inspector, Filter(tube=KEYS[0])) == [KEYS[0]]
    assert unworked(operations, KEYS[0]) == unworked(operations, OTHERS[1]) == ""
    assert "no section [push]" in unworked(operations, OTHERS[2])
    assert "no pool" in unworked(operations, "glassq.key.sync.short")
    assert worker_queues.snapshot(operations, inspector) == ()
    assert worker_queues.gone(operations, OTHERS[1]) == ""
    assert worker_queues.gone(operations, "glassq.queue.pay") == "pay"
    (hint,) = parked.hints(operations, inspector.counts(OTHERS[:1]))
    assert "1 deliveries are parked for route gone" in str(hint)


def test_keys_of_a_route_are_one_row() -> None:
    tubes = [TubeCounts("glassq", ready=5), *(TubeCounts(tube, ready=2, reserved=1) for tube in KEYS)]
    tubes.append(TubeCounts(OTHERS[1], ready=7))
    rows = parked.summed("glassq", tubes)
    assert [(row.name, row.ready, row.reserved) for row in rows] == [
        ("glassq", 5, 0),
        (OTHERS[1], 7, 0),
        ("glassq.key.sync.* (3 keys)", 6, 3),
    ]


def test_what_is_parked_is_counted_where_it_came_from() -> None:
    tubes = [TubeCounts("glassq", ready=5), *(TubeCounts(tube, ready=2) for tube in (*KEYS, *OTHERS))]
    assert parked.waiting("glassq", tubes) == {"glassq": 8, "glassq.queue.pay": 2, "glassq.push.mail": 2}


def test_a_purge_deletes_what_a_push_queue_has_parked(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    more = f'[push]\nnames = "sqlite:///{tmp_path}/names.db"\n[push.targets]\ndefault = "http://127.0.0.1:1"\n'
    config = tmp_path / "push.toml"
    config.write_text(Path(operations.settings.file).read_text() + more)
    again = Operations(settings.load(str(config), {}), actor="ada")
    put(queue, "glassq.push.default", "glassq.push.default.key.sync.0123456789abcdef", *KEYS)
    planned = push_queues.planned_or_warn(again, Silent())
    assert list(push_queues.tubes_of(again, inspector, planned)) == ["default"]
    plan = purge.plan(again, inspector, planned, "default")
    assert plan.total == 2
    assert purge.carry_out(again, inspector, plan, Silent()).purged.deleted == 2
    assert sum(counts.ready for counts in inspector.counts(KEYS)) == 3


def test_operators_hear_which_routes_are_paused(operations: Operations, tmp_path: Path) -> None:
    place = tmp_path / "run" / "glassq-worker"
    place.mkdir(parents=True)
    written = PausedRoutes(str(place))
    assert paused_routes(place) == []
    state = BreakerState(20, 1, time.time() - 90, time.monotonic() + 30.5, 2, "Retry: the target is down")
    written.tend({"photos": state})
    assert parked.paused(operations) == [], "no pool runs with these settings"
    runs = InEffect("glassq-worker", ("worker",), str(place))
    runs.start(runs.read(operations.settings))
    (hint,) = parked.hints(operations, [])
    assert str(hint) == (
        "route photos has paused itself 1m 30s ago, after 20 failures in a row (Retry: the target is down); "
        "it tries one delivery in 30s"
    )
    written.tend({})
    assert parked.paused(operations) == []
