"""What came of an attempt, told to people: a line in the log, an entry in the ledger. Neither is in the way."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from glassq import delivery as envelope
from glassq.ledger import Entry
from glassq.log import kv
from glassq.mask import masked_text
from glassq.worker.outcome import Kind, Outcome

if TYPE_CHECKING:
    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Ledger

log = logging.getLogger("glassq.worker")

# The ledger keeps results, not files.
MAX_RESULT = 2_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known once an attempt is over.

    `lost` counts attempts that ended with their process. `duration` is in seconds; `started` is before the handler was
    called (None: it was not). `fingerprint` and `event` are for finding duplicates (see duplicates.py).
    """

    delivery: Delivery
    outcome: Outcome
    duration: float
    lost: int
    evidence: Evidence | None = None
    started: datetime | None = None
    fingerprint: str = ""
    event: str = ""


_EVENTS: dict[Kind, tuple[int, str, str]] = {
    Kind.DONE: (logging.INFO, "done", "done"),
    Kind.DROPPED: (logging.INFO, "dropped", "dropped"),
    Kind.RETRY: (logging.WARNING, "retrying", "retrying"),
    Kind.BURY: (logging.ERROR, "buried", "buried"),
    Kind.INTERRUPTED: (logging.INFO, "given back", ""),
    Kind.LEASE_LOST: (logging.WARNING, "lease lost", ""),
}


def tell(ledger: Ledger, job: int, tube: str, attempt: Attempt, holder: int) -> None:
    """`job` out of `tube` was worked; `holder` is the job that has the delivery from now on (0: none)."""
    delivery, outcome = attempt.delivery, attempt.outcome
    result = _as_text(outcome.result)
    level, event, state = _EVENTS[outcome.kind]
    fields = {"delivery": delivery.id, "attempt": delivery.attempt, "job": job, "seconds": attempt.duration}
    if outcome.kind is Kind.RETRY:
        fields["delay"] = outcome.delay
    if outcome.reason:
        fields["reason"] = outcome.reason
    if result:
        fields["result"] = result
    log.log(level, "%s %s", event, kv(**fields))
    if outcome.kind is Kind.RETRY and attempt.evidence is not None and attempt.evidence.traceback:
        log.debug("traceback %s\n%s", kv(delivery=delivery.id), attempt.evidence.traceback)
    if state:
        ledger.record(_entry(attempt, state, tube, holder, result))


def _entry(attempt: Attempt, state: str, tube: str, holder: int, result: str) -> Entry:
    delivery = attempt.delivery
    return Entry(
        delivery=delivery.id,
        source=delivery.source,
        received=delivery.received,
        state=state,
        attempts=delivery.attempt,
        updated=datetime.now(UTC),
        duration=attempt.duration,
        job=holder,
        result=result,
        reason=attempt.outcome.reason,
        started=attempt.started,
        fingerprint=attempt.fingerprint,
        event=attempt.event,
        tube=tube,
    )


def _as_text(result: str | dict[str, Any] | None) -> str:
    """For people. The work is done by then: a result that has no text must not undo it."""
    if result is None:
        return ""
    try:
        text = result if isinstance(result, str) else json.dumps(result, default=str, skipkeys=True)
    except Exception as error:
        text = f"({type(result).__name__} without a text: {type(error).__name__})"
    return masked_text(envelope.sayable(text[:MAX_RESULT]))
