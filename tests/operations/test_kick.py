"""Kicked at a pace, after canaries, and followed to their outcomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from glassq import lifecycle
from glassq.delivery import decode, encode
from glassq.errors import Conflict, InvalidRequest, QueueRefused, Stopped
from glassq.ledger import Entry, open_ledger
from glassq.operations import kick
from glassq.operations.activity import CameTo
from glassq.operations.filters import Filter, Selection
from glassq.operations.pace import Pace
from glassq.operations.progress import Silent
from glassq.operations.result import Did
from tests.cli.conftest import a_delivery, evidence, put

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.operations.result import Report
    from glassq.queues.base import Inspector
    from tests.queues.raw import Queue

ALL = Selection(everything=True)


class Working(Silent):
    """While outcomes are waited for, what is ready is worked: `succeeds` says of which delivery that goes well."""

    def __init__(self, operations: Operations, queue: Queue, succeeds: Callable[[Delivery], bool]) -> None:
        self._operations = operations
        self._queue = queue
        self._succeeds = succeeds
        self.worked = 0

    def wait(self, seconds: float) -> None:
        ledger = open_ledger(self._operations.settings.ledger)
        while job := self._queue.reserve(0):
            told = decode(job.body)
            good, holder = self._succeeds(told), ""
            if not good:
                again = lifecycle.after_kick(a_delivery(id=told.id, evidence=(evidence("503 again"),)))
                holder = str(self._queue.put(encode(again), delay=3600))
            self._queue.delete(job.id, held=True)
            state, why = ("done", "") if good else ("retrying", "503 again")
            now = datetime.now(UTC)
            ledger.record(Entry(told.id, told.source, told.received, state, 1, now, 0.1, holder, reason=why))
            self.worked += 1
        ledger.close()
        super().wait(seconds)


def carried_out(operations: Operations, inspector: Inspector, pace: Pace, progress: Silent) -> Report:
    plan = kick.plan(operations, inspector, ALL, progress, pace)
    return kick.carry_out(operations, inspector, plan, progress, pace)


def test_canaries_that_go_well_say_so_and_the_rest_follows(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    for _ in range(13):
        put(queue, a_delivery(buried="503"), "buried")
    working = Working(operations, queue, lambda _: True)
    report = carried_out(operations, inspector, Pace(canary=True, patience=60), working)
    assert (report.complete, report.count(Did.KICKED), working.worked) == (True, 13, 11)
    assert [words.partition(" after ")[0] for words in report.words] == ["canary: 1 done", "canary: 10 done"]
    assert report.outcomes == {"done": 11}


def test_followed_deliveries_tell_what_came_of_each(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    told = [a_delivery(buried="503") for _ in range(4)]
    for each in told:
        put(queue, each, "buried")
    working = Working(operations, queue, lambda delivery: delivery.id != told[0].id)
    report = carried_out(operations, inspector, Pace(follow=True, patience=60), working)
    assert report.outcomes == {"done": 3, "failed again": 1}
    assert report.words[-1].startswith("outcomes: 3 done, 1 failed again after ")
    assert report.results[-1].why == f"1 failed again; {told[0].id}: 503 again"
    assert not report.complete


def test_a_trial_of_one_that_fails_again_says_no_more_than_that(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    told = a_delivery(buried="503")
    put(queue, told, "buried")
    working = Working(operations, queue, lambda _: False)
    report = carried_out(operations, inspector, Pace(canary=True, patience=60), working)
    why = f"it failed again, and is buried again: {told.id}: 503 again"
    assert report.results[-1].why == why
    assert CameTo.of_report(report, 1).note == why


class StopsWaiting(Silent):
    """Ctrl-C while outcomes are waited for."""

    def wait(self, seconds: float) -> None:
        raise Stopped


def test_who_stops_following_leaves_the_work_going(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    jobs = [put(queue, a_delivery(buried="503"), "buried") for _ in range(3)]
    report = carried_out(operations, inspector, Pace(follow=True, patience=60), StopsWaiting())
    assert {queue.stats_job(job).state for job in jobs} == {"ready"}
    assert isinstance(report.error, Stopped)
    assert [result.did for result in report.results] == [Did.KICKED] * 3
    assert report.words == ["outcomes: 3 without outcome, when you stopped following: they are worked all the same"]


def test_who_stops_a_canary_leaves_the_rest_buried(operations: Operations, inspector: Inspector, queue: Queue) -> None:
    for _ in range(3):
        put(queue, a_delivery(buried="503"), "buried")
    report = carried_out(operations, inspector, Pace(canary=True, patience=60), StopsWaiting())
    assert isinstance(report.error, Stopped)
    assert (report.results[-1].id, report.results[-1].why) == ("interrupted", "1 of 3 were kicked")
    assert queue.stats_tube().buried == 2


def test_a_paused_tube_gives_no_outcomes_so_nothing_is_kicked(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    put(queue, a_delivery(buried="503"), "buried")
    inspector.pause("glassq", 60)
    for pace in (Pace(canary=True), Pace(follow=True)):
        with pytest.raises(Conflict, match=r"tube glassq is paused.*first `glassq resume glassq`"):
            kick.plan(operations, inspector, ALL, Silent(), pace)
    assert kick.plan(operations, inspector, ALL, Silent()).chosen
    inspector.pause("glassq", 0)


def test_a_rate_and_canaries_go_with_a_choice_and_not_with_ids() -> None:
    for pace in (Pace(rate=1.0), Pace(canary=True)):
        with pytest.raises(InvalidRequest, match="not with ids"):
            kick.check(Selection(ids=("7",)), pace)
    kick.check(Selection(ids=("7",)), Pace(follow=True))
    kick.check(Selection(filter=Filter(source="mirror")), Pace(rate=1.0, canary=True))


def test_a_queue_that_takes_no_job_keeps_canaries_buried(
    operations: Operations, inspector: Inspector, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = put(queue, a_delivery(buried="503"), "buried")

    def refuses() -> str:
        raise QueueRefused("draining")

    monkeypatch.setattr(inspector, "newest", refuses)
    report = carried_out(operations, inspector, Pace(canary=True), Silent())
    assert isinstance(report.error, QueueRefused)
    assert queue.stats_job(job).state == "buried"
