"""Deliveries that are over or lost are put again, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq.delivery import decode
from glassq.errors import Conflict, InvalidRequest, QueueUnavailable, SearchIncomplete, Stopped, Unsupported
from glassq.ledger import Entry, open_ledger
from glassq.operations import pace, replay
from glassq.operations.filters import Selection, parse
from glassq.operations.progress import Silent
from glassq.operations.replay_plan import LOST, ReplayFilter
from glassq.operations.result import Did, documents
from glassq.queues.base import ALL_STATES
from tests.cli.conftest import a_delivery, put
from tests.operations.conftest import Blind, StopsAt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.delivery import Delivery
    from glassq.errors import QueueError
    from glassq.operations import Operations
    from glassq.queues import Queue
    from glassq.queues.base import Inspector, NewForm

DONE = ReplayFilter(selection=Selection(), state="done")


def record(operations: Operations, *told: Delivery, state: str = "done", **fields: Any) -> None:
    ledger = open_ledger(operations.settings.ledger)
    for each in told:
        entry = Entry(each.id, each.source, each.received, state, 1, datetime.now(UTC), 0.5, **fields)
        ledger.record(replace(entry, body=each.body, labels=each.labels))
    ledger.close()


def some(number: int) -> list[Delivery]:
    now = datetime.now(UTC)
    return [a_delivery(received=now - timedelta(seconds=60 - index)) for index in range(number)]


def waiting(inspector: Inspector) -> list[str]:
    return [decode(job.body).labels["replay_of"] for job in inspector.find(ALL_STATES, ["glassq"])][::-1]


def asked(*conditions: str, state: str = "done") -> ReplayFilter:
    return ReplayFilter(selection=Selection(filter=parse(conditions)), state=state)


def test_a_plan_changes_nothing_and_its_preview_has_the_keys_of_the_report(
    operations: Operations, inspector: Inspector
) -> None:
    told = some(2)
    record(operations, *told)
    plan = replay.plan(operations, inspector, DONE, Silent())
    preview = documents(plan.preview().results)
    assert ([each["did"] for each in preview], waiting(inspector)) == (["would be replayed"] * 2, [])
    report = replay.carry_out(operations, inspector, plan, Silent())
    assert waiting(inspector) == [each.id for each in told]
    done = documents(report.results)
    assert [list(each) for each in done] == [list(each) for each in preview]
    assert [isinstance(each["job"], str) and each["replayed_as"] is not None for each in done] == [True, True]
    assert inspector.get(done[0]["job"]).state == "ready"


def test_a_stop_keeps_the_report_and_the_same_request_goes_on(
    operations: Operations, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACKET", 1)
    told = some(3)
    record(operations, *told)
    plan = replay.plan(operations, inspector, DONE, Silent())
    report = replay.carry_out(operations, inspector, plan, StopsAt(1))
    assert isinstance(report.error, Stopped)
    assert [result.did for result in report.results] == [Did.REPLAYED, Did.NOTHING]
    words = "interrupted: 1 of 3 were looked at; the same command goes on with the rest"
    assert (report.results[-1].why, report.complete) == (words, False)
    plan = replay.plan(operations, inspector, DONE, Silent())
    assert plan.chosen == tuple(each.id for each in told[1:])


def test_what_cannot_be_marked_twice_is_put_once_however_late_the_second_one_is(
    operations: Operations, inspector: Inspector
) -> None:
    record(operations, *some(2))
    first = replay.plan(operations, inspector, DONE, Silent())
    second = replay.plan(operations, inspector, DONE, Silent())
    assert replay.carry_out(operations, inspector, first, Silent()).complete
    report = replay.carry_out(operations, inspector, second, Silent())
    assert {result.why for result in report.results} == {"somebody else replayed it meanwhile"}
    assert len(waiting(inspector)) == 2


def test_somebody_who_marks_it_between_the_put_and_our_mark_leaves_one_job(
    operations: Operations, inspector: Inspector
) -> None:
    [told] = some(1)
    record(operations, told)
    plan = replay.plan(operations, inspector, DONE, Silent())

    class Slow(Blind):
        def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
            assert replay.carry_out(operations, inspector, plan, Silent()).count(Did.REPLAYED) == 1
            return inspector.insert_all(forms)

    slow: Inspector = Slow(inspector)  # type: ignore[assignment]
    [result] = replay.carry_out(operations, slow, plan, Silent()).results
    assert (result.did, result.why) == (Did.LEFT_OUT, "somebody else replayed it meanwhile")
    assert waiting(inspector) == [told.id]


def test_every_word_of_the_filter_that_the_ledger_can_answer_is_taken(
    operations: Operations, inspector: Inspector
) -> None:
    ping, other = a_delivery(), a_delivery(labels={"collection": "locations"})
    record(operations, ping, result="stored file:///a", tube="glassq", reason="at last")
    record(operations, other, result="stored file:///b", tube="glassq.push.aside")

    def chosen(*conditions: str) -> set[str]:
        return set(replay.plan(operations, inspector, asked(*conditions), Silent()).chosen)

    assert chosen() == {ping.id, other.id}
    assert chosen("label.collection=locations") == chosen("tube=glassq.push.aside") == {other.id}
    assert chosen("handler=app:store") == chosen("error~at last") == chosen("reason~last$") == {ping.id}
    assert chosen("result~b$", "source=mirror", "newer-than=1h") == {other.id}
    assert chosen("older-than=1h") == set()
    with pytest.raises(
        InvalidRequest, match="`glassq replay` cannot filter by cause: the ledger does not keep it; it can by: error"
    ):
        chosen("cause=0123456789ab")


def test_lost_ones_need_an_engine_that_shows_all_jobs_and_a_queue_that_does(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    told = a_delivery()
    job = put(queue, told, "buried")
    record(operations, told, state="buried", job=str(job))
    lost = ReplayFilter(selection=Selection(), state=LOST)
    assert replay.plan(operations, inspector, lost, Silent()).chosen == ()
    blind: Inspector = Blind(inspector)  # type: ignore[assignment]
    with pytest.raises(Unsupported, match="SQS cannot show a delivery that"):
        replay.plan(operations, blind, lost, Silent())
    put(queue, a_delivery())
    queue.delete(job)
    assert replay.plan(operations, inspector, lost, Silent()).chosen == (told.id,)

    class Short(Blind):
        capabilities = inspector.capabilities

        def find(self, *_: Any, **__: Any) -> Any:
            raise SearchIncomplete(0, 1, 2)

    short: Inspector = Short(inspector)  # type: ignore[assignment]
    with pytest.raises(Conflict, match="what the queue has lost cannot be told"):
        replay.plan(operations, short, lost, Silent())


def test_a_queue_that_goes_away_keeps_the_report(operations: Operations, inspector: Inspector) -> None:
    record(operations, *some(2))
    plan = replay.plan(operations, inspector, DONE, Silent())

    class Gone(Blind):
        def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
            return [QueueUnavailable("gone") for _ in forms]

    gone: Inspector = Gone(inspector)  # type: ignore[assignment]
    report = replay.carry_out(operations, gone, plan, Silent())
    assert (str(report.error), report.results[-1].why.startswith("gone: 0 of 2 were looked at")) == ("gone", True)


@pytest.mark.parametrize(
    "request_",
    [
        ReplayFilter(selection=Selection()),
        ReplayFilter(selection=Selection(ids=("01990000-0000",)), state="done"),
        ReplayFilter(selection=Selection(ids=("01990000-0000",), limit=1)),
        ReplayFilter(selection=Selection(ids=("short",))),
    ],
)
def test_a_request_that_names_nothing_or_two_things_is_refused(
    operations: Operations, inspector: Inspector, request_: ReplayFilter
) -> None:
    with pytest.raises(InvalidRequest):
        replay.plan(operations, inspector, request_, Silent())
