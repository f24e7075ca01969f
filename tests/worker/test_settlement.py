"""What becomes of deliveries that no longer fit into a job, and how often an attempt is counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.delivery import MAX_JOB, MAX_MESSAGE, MAX_TRACEBACK, Evidence
from glassq.errors import NoProof, QueueRefused, QueueUnavailable
from glassq.hooks import Hooks
from glassq.queues.base import Reservation
from glassq.queues.beanstalk import receiver as receiving
from glassq.worker.executor import Attempt
from glassq.worker.metrics import ATTEMPTS, SECONDS, UNACKNOWLEDGED
from glassq.worker.outcome import Kind, Outcome, too_big
from glassq.worker.record import AttemptRecord, word_of
from tests.worker.conftest import Bench, look, made, only

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.errors import QueueError
    from glassq.hooks import AttemptReport
    from tests.queues.raw import Queue

__all__ = ["look"]


class Seeing:
    """A hook that remembers."""

    def __init__(self) -> None:
        self.reports: list[AttemptReport] = []

    def after(self, report: AttemptReport) -> None:
        self.reports.append(report)


def filling(delivery: Delivery) -> Delivery:
    """The delivery with so long a label that its job is as large as beanstalkd takes: its next form is larger."""
    made = msgspec.structs.replace(delivery, labels={"fill": ""})
    room = MAX_JOB - len(envelope.encode(made))
    return msgspec.structs.replace(made, labels={"fill": "x" * room})


def attempts(bench: Bench) -> dict[str, float]:
    counted = zip((kind.name.lower() for kind in Kind), bench.board.shared_counters.total(ATTEMPTS), strict=True)
    return {outcome: number for outcome, number in counted if number}


def test_a_delivery_that_is_buried_because_it_is_too_big_is_so_in_the_ledger_and_to_hooks(
    queue: Queue, look: Queue
) -> None:
    bench, hook = Bench(queue), Seeing()
    bench.settlement._hooks = Hooks([("seeing", hook)])
    delivery = filling(made("fail"))
    look.put(envelope.encode(delivery))
    bench.consumer.work_one(0)
    stats, stays = only(look)
    assert (stats.state, stays) == ("buried", delivery)
    (entry,), (report,) = bench.ledger.entries, hook.reports
    assert (entry.state, entry.job, entry.delivery) == ("buried", str(stats.id), delivery.id)
    assert entry.reason.startswith("ValueError: no; buried as it was: the job is larger than")
    assert (report.outcome, report.reason) == ("bury", entry.reason)
    assert attempts(bench) == {"bury": 1}


def test_a_delivery_that_is_too_big_for_another_tube_is_recorded_as_well(queue: Queue, look: Queue) -> None:
    bench = Bench(queue, leads_to="glassq.a-longer-name")
    look.put(envelope.encode(filling(made("done"))))
    bench.consumer.work_one(0)
    assert bench.seen == []
    (entry,) = bench.ledger.entries
    assert (entry.state, entry.job, entry.started) == ("buried", str(only(look)[0].id), None)


@pytest.mark.parametrize("error", [NoProof("nobody knows"), QueueRefused("its disk is full")], ids=["no proof", "no"])
def test_what_is_too_big_beside_others_and_cannot_be_parked_alone_goes_back(
    queue: Queue, look: Queue, monkeypatch: pytest.MonkeyPatch, error: QueueError
) -> None:
    bench = Bench(queue)
    receiver, parking, parked = bench.consumer._receiver, f"{queue.tube}.parked", list[str]()
    deliveries = [made("done") for _ in range(7)]
    for each in deliveries:
        look.put(envelope.encode(each))
    held: Reservation | None = None
    for delivery in deliveries:
        held = receiver.reserve([queue.tube], 0)
        assert held is not None
        if receiver.has_next:
            break
        bench.settlement.park(held, delivery, parking, parked.append, [queue.tube])
    assert held is not None
    assert receiver.has_next
    told = Evidence(1, "retry", "E", "m", datetime.now(UTC), 0.1, "h", traceback="x" * MAX_TRACEBACK)
    # beside so large a body the story is kept whole, if the queue takes it
    big = msgspec.structs.replace(deliveries[0], body=b"x" * 60_000, evidence=(told,) * 4)
    bench.settlement.park(held, big, parking, parked.append)
    assert look.stats_job(int(held.ref)).state == "reserved"

    def refuse(*_given: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(receiving, "prove", refuse)
    receiver.begin()
    assert look.stats_job(int(held.ref)).state == "ready"
    assert bench.settlement.refusals == 1


@pytest.mark.parametrize("late", [True, False], ids=["after", "before"])
def test_an_attempt_that_is_not_confirmed_in_the_end_is_counted_once(queue: Queue, late: bool) -> None:
    bench = Bench(queue)
    attempt = Attempt(made("done"), Outcome(Kind.DONE), duration=0.2, started=datetime.now(UTC))
    record = AttemptRecord(bench.ledger, bench.slot.counters, Reservation("1", "glassq", b"", 60), attempt)
    if late:
        record.settled("")
    record.unacknowledged(QueueUnavailable("it is gone"))
    if not late:
        record.settled("")
    shared = bench.board.shared_counters
    assert attempts(bench) == {"done": 1}
    assert shared.total(UNACKNOWLEDGED) == [1.0]
    assert sum(shared.total(SECONDS)[:-1]) == 1.0


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_of_outcome_has_a_word_in_the_log(kind: Kind) -> None:
    assert word_of(kind)


def test_the_reason_of_what_is_too_big_stays_within_its_bounds() -> None:
    outcome = too_big(Outcome(Kind.RETRY, "r" * MAX_MESSAGE, delay=9, slow_down=True), "no room")
    assert outcome == Outcome(Kind.BURY, outcome.reason, slow_down=True)
    assert len(outcome.reason) == MAX_MESSAGE
    assert outcome.reason.endswith("rr; buried as it was: no room")
