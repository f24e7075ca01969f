"""One body as a delivery, through a producer, which may say that it is not sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq.delivery import encode
from glassq.errors import InvalidRequest, NoProof, NotDurable, OperationError, QueueError, QueueUnavailable
from glassq.operations import Operations, put
from glassq.operations.progress import Silent
from glassq.operations.put import PutRequest
from glassq.programs import scheduling
from glassq.queues import open_producer
from glassq.queues.base import Receipt, Refusal
from glassq.values import Size
from tests.bodies.test_directory import states
from tests.operations.conftest import Blind, Heard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import Inspector, NewJob, Producer

CRON = PutRequest(source="cron", labels={})


class Unsure:
    """The real producer, which says of the job after the first `sure` ones that it may be kept or not."""

    def __init__(self, producer: Producer, *, sure: int = 0, unproven: QueueError | None = None) -> None:
        """`unproven` is what it raises where it is to prove that jobs are durable."""
        self._producer = producer
        self._sure = sure
        self._unproven = unproven

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        if not self._sure:
            return [Refusal(job.key, QueueUnavailable("gone"), in_doubt=True) for job in jobs]
        self._sure -= 1
        return self._producer.put(jobs, within=within, again=again)

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        if self._unproven is not None:
            raise self._unproven
        self._producer.confirm(receipts, within=within)

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        if isinstance(self._unproven, NoProof):
            raise QueueUnavailable("gone")
        return self._producer.withdraw(receipt, within=within)

    def close(self) -> None:
        self._producer.close()


def producing(operations: Operations, **how: Any) -> Operations:
    """The same operations with a producer that is unsure."""
    loaded = operations.settings
    return Operations(loaded, actor="ada", produce=lambda each: Unsure(open_producer(each), **how))  # type: ignore


def waiting(inspector: Inspector) -> int:
    return sum(counts.jobs for counts in inspector.counts())


def test_a_plan_puts_nothing_and_its_document_has_the_keys_of_what_is_put(
    operations: Operations, inspector: Inspector
) -> None:
    plan = put.plan(operations, CRON, b"body", Silent())
    planned = plan.document(None)
    assert (waiting(inspector), planned["dry_run"], planned["job"]) == (0, True, None)
    receipt = put.carry_out(operations, plan, Silent())
    done = plan.document(receipt)
    assert (list(done), done["delivery"], done["job"]) == (list(planned), plan.delivery.id, receipt.ref)
    assert inspector.get(receipt.ref).body == encode(plan.delivery)


def test_what_may_have_been_put_all_the_same_is_warned_of(operations: Operations) -> None:
    plan, heard = put.plan(operations, CRON, b"body", Silent()), Heard()
    with pytest.raises(QueueUnavailable):
        put.carry_out(producing(operations), plan, heard)
    show = f"`glassq show {plan.delivery.id}`"
    assert heard.warnings == [f"perhaps it was put all the same: {show} tells, once the queue is back"]


def test_what_can_be_neither_proven_nor_withdrawn_is_named(operations: Operations, inspector: Inspector) -> None:
    plan, heard = put.plan(operations, CRON, b"body", Silent()), Heard()
    with pytest.raises(NoProof):
        put.carry_out(producing(operations, sure=1, unproven=NoProof("gone")), plan, heard)
    assert (len(heard.warnings), waiting(inspector)) == (1, 1)
    assert f"perhaps it was put all the same: `glassq show {plan.delivery.id}`" in heard.warnings[0]


def test_a_scheduler_that_tries_again_leaves_no_copies(operations: Operations, inspector: Inspector) -> None:
    delivery = put.plan(operations, CRON, b"body", Silent()).delivery
    producer = Unsure(open_producer(operations.settings), sure=3, unproven=NotDurable("in memory"))
    for _ in range(3):
        with pytest.raises(NotDurable):
            scheduling.put(producer, delivery)  # type: ignore[arg-type]
    producer.close()
    assert waiting(inspector) == 0


def test_what_is_kept_in_memory_only_is_withdrawn(operations: Operations, inspector: Inspector) -> None:
    plan, heard = put.plan(operations, CRON, b"body", Silent()), Heard()
    with pytest.raises(NotDurable):
        put.carry_out(producing(operations, sure=1, unproven=NotDurable("in memory")), plan, heard)
    assert (waiting(inspector), heard.warnings) == (0, [])


@pytest.mark.parametrize(
    ("how", "stays"),
    [
        ({}, True),
        ({"sure": 1, "unproven": NoProof("gone")}, True),
        ({"sure": 1, "unproven": NotDurable("in memory")}, False),
    ],
    ids=["in doubt", "not withdrawn", "withdrawn"],
)
def test_a_stored_body_stays_only_where_its_delivery_may_be(
    operations: Operations, how: dict[str, Any], stays: bool
) -> None:
    intake = replace(operations.settings.intake, max_body=Size(1 << 20))
    loaded = Operations(replace(operations.settings, intake=intake), actor="ada")
    plan = put.plan(loaded, CRON, bytes(40_000), Silent())
    with pytest.raises(QueueError):
        put.carry_out(producing(loaded, **how), plan, Heard())
    assert states(operations.bodies) == ({plan.delivery.id: "live"} if stays else {})


def test_what_nobody_works_is_warned_of(operations: Operations) -> None:
    heard = Heard()
    put.plan(operations, CRON, b"body", heard)
    put.plan(operations, PutRequest(source="cron", labels={}, tube="glassq.push.mail"), b"body", heard)
    put.plan(operations, PutRequest(source="mirror", labels={"collection": "timeline"}), b"body", heard)
    assert [
        words.partition(":")[0].partition(", and there is no [sources.cron] in ")[0] for words in heard.warnings
    ] == [
        "no route takes it",
        "no pool with these settings works tube glassq.push.mail",
    ]


def test_a_body_that_intake_would_not_take_is_not_put(operations: Operations) -> None:
    most = operations.settings.intake.max_body
    for body, words in ((b"", "the body is empty"), (bytes(most + 1), "a body is at most")):
        with pytest.raises(OperationError, match=words):
            put.plan(operations, CRON, body, Silent())


def test_the_longest_delay_is_that_of_the_engine(operations: Operations, inspector: Inspector) -> None:
    blind: Inspector = Blind(inspector)  # type: ignore[assignment]
    other = Operations(operations.settings, actor="ada", connect=lambda _: blind)
    request = PutRequest(source="cron", labels={}, delay=901)
    put.plan(operations, request, b"body", Silent())
    with pytest.raises(InvalidRequest, match="--delay: expected at most"):
        put.plan(other, request, b"body", Silent())
