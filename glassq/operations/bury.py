"""Puts deliveries aside before anybody works them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from glassq import host
from glassq.delivery import Evidence, encode
from glassq.lifecycle import after_bury, after_loss
from glassq.operations.bulk import AT_WORK, Plan, change_packet, not_ours, plan_named, run
from glassq.operations.pace import packets_of
from glassq.operations.result import Did, Report
from glassq.queues.base import Change
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector


def plan(operations: Operations, queue: Inspector, ids: Sequence[str], progress: Progress) -> Plan:
    """Which jobs are put aside: those that wait."""

    def refuse(found: Found) -> str:
        reserved = AT_WORK if found.job.state == "reserved" else ""
        return not_ours(operations, found) or reserved or ("it is buried already" if found.is_buried else "")

    return plan_named(operations, queue, ids, progress, Did.BURIED, refuse)


def carry_out(operations: Operations, queue: Inspector, plan: Plan, progress: Progress, reason: str = "") -> Report:
    """Buries what still waits as it was planned; `reason` is why, for whoever looks at it later."""
    report = Report(list(plan.results))
    words = f"put aside by {operations.actor}" + (f": {reason}" if reason else "")
    with operations.corrector(progress) as ledger:

        def act(packet: Sequence[Chosen]) -> Iterator[Result]:
            return change_packet(operations, queue, packet, aside, buried)

        largest = operations.settings.queue.url.largest

        def aside(found: Found) -> Change:
            body = None if found.delivery is None else encode(_aside(operations, found.delivery, found, words), largest)
            return Change(found.job, "buried", body)

        def buried(each: Chosen, found: Found, holder: str) -> Result:
            ledger.held(found.delivery, holder, found.tube)
            return each.result(Did.BURIED, job=holder)

        run(report, plan, packets_of(plan.chosen), act, progress)
    return report


def _aside(operations: Operations, delivery: Delivery, found: Found, words: str) -> Delivery:
    evidence = Evidence(
        attempt=delivery.attempt,
        outcome=Kind.BURY.value,
        error="operator",
        message=words,
        at=operations.clock(),
        duration=0.0,
        host=host.name(),
    )
    told = after_loss(delivery) if found.job.losses else delivery
    return msgspec.structs.replace(after_bury(told, words, evidence), tube=found.tube)
