"""What a loss, a retry, a bury and a kick make of a delivery: its next form, by pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from glassq.delivery import Delivery, Evidence


def after_loss(delivery: Delivery, crashes: Sequence[Evidence] = ()) -> Delivery:
    """The delivery after attempts that ended with their processes: those of `crashes`, or one that nobody saw."""
    lost = delivery.lost + max(1, len(crashes))
    return msgspec.structs.replace(delivery, lost=lost, evidence=(*delivery.evidence, *crashes))


def after_retry(
    delivery: Delivery, evidence: Evidence, *, counts: bool = True, started: datetime | None = None
) -> Delivery:
    """The delivery as it is put again; the attempt that failed began at `started`.

    An attempt that does not count leaves no evidence: a hundred waits would all say the same.
    """
    tried = delivery.tried or started
    replaced = msgspec.structs.replace(delivery, attempt=delivery.attempt + 1, tried=tried)
    if not counts:
        return msgspec.structs.replace(replaced, waits=delivery.waits + 1)
    return msgspec.structs.replace(
        replaced, failures=delivery.failures + 1, waits=0, evidence=(*delivery.evidence, evidence)
    )


def after_bury(delivery: Delivery, reason: str, evidence: Evidence | None = None) -> Delivery:
    """The delivery as it is buried."""
    more = () if evidence is None else (evidence,)
    return msgspec.structs.replace(delivery, buried=reason, evidence=(*delivery.evidence, *more))


def after_kick(delivery: Delivery) -> Delivery:
    """A buried delivery that an operator kicked: its story stays, its budget is fresh."""
    return msgspec.structs.replace(
        delivery, buried="", failures=0, waits=0, lost=0, tried=None, attempt=delivery.attempt + 1
    )


def without_story(delivery: Delivery) -> Delivery:
    """The delivery without its evidence, for a queue that takes no larger job: its budget matters more."""
    return msgspec.structs.replace(delivery, evidence=())
