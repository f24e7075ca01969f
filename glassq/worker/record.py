"""Records an attempt's outcome: log line, ledger entry, counters. Never blocks the worker."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import QueueError, QueueRefused
from glassq.excerpts import json_of, text_of
from glassq.ledger import Entry
from glassq.log import fields, logger
from glassq.mask import masked_text
from glassq.worker.metrics import ATTEMPTS, SECONDS, WAIT
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from glassq.ledger import Ledger
    from glassq.metrics import ProcessCounters
    from glassq.queues.base import Reservation
    from glassq.worker.executor import Attempt

log = logger("glassq.worker")

# The ledger keeps results, not files.
MAX_RESULT = 2_000
_MAX_NOTE = 200


_EVENTS: dict[Kind, tuple[int, str, str]] = {
    Kind.DONE: (logging.INFO, "done", "done"),
    Kind.DROPPED: (logging.INFO, "dropped", "dropped"),
    Kind.RETRY: (logging.WARNING, "retrying", "retrying"),
    Kind.BURY: (logging.ERROR, "buried", "buried"),
    Kind.INTERRUPTED: (logging.INFO, "given back", ""),
    Kind.LEASE_LOST: (logging.WARNING, "lease lost", ""),
}


def record(ledger: Ledger, counters: ProcessCounters, reservation: Reservation, attempt: Attempt, holder: str) -> None:
    """Records a job that was worked; `holder` is the job that holds the delivery from now on ("": none)."""
    delivery, outcome = attempt.delivery, attempt.outcome
    _count(counters, reservation, attempt, outcome.kind.name.lower())
    result, note = as_recorded(outcome.result)
    level, event, state = _EVENTS[outcome.kind]
    if note:
        # the result says it at its end
        level = logging.WARNING
    said = {"delivery": delivery.id, "attempt": delivery.attempt, "job": reservation.ref, "seconds": attempt.duration}
    if outcome.kind is Kind.RETRY:
        said["delay"] = outcome.delay
    if outcome.reason:
        said["reason"] = outcome.reason
    if result:
        said["result"] = result
    log.log(level, "%s %s", event, fields(**said))
    if outcome.kind is Kind.RETRY and attempt.evidence is not None and attempt.evidence.traceback:
        where = fields(delivery=delivery.id, attempt=delivery.attempt, traceback=attempt.evidence.traceback)
        log.debug("failed here %s", where)
    if state:
        ledger.record(_entry(attempt, state, reservation.tube, holder, result))


def record_unacknowledged(
    ledger: Ledger, counters: ProcessCounters, reservation: Reservation, attempt: Attempt, error: QueueError
) -> None:
    """Records an attempt that is over while the queue did not take what follows: it may be worked again."""
    delivery, outcome = attempt.delivery, attempt.outcome
    _count(counters, reservation, attempt, "unacknowledged")
    # a queue that refuses is told of once, by the consumer
    level = logging.DEBUG if isinstance(error, QueueRefused) else logging.WARNING
    said = {"delivery": delivery.id, "attempt": delivery.attempt, "job": reservation.ref, "seconds": attempt.duration}
    log.log(level, "queue not told %s", fields(**said, outcome=outcome.kind.value, why=error))
    if outcome.kind in (Kind.DONE, Kind.DROPPED):
        ledger.record(_entry(attempt, _EVENTS[outcome.kind][2], reservation.tube, "", as_recorded(outcome.result)[0]))


def _count(counters: ProcessCounters, reservation: Reservation, attempt: Attempt, outcome: str) -> None:
    delivery, started = attempt.delivery, attempt.started
    counters.count(ATTEMPTS, outcome)
    if started is None:
        return
    counters.observe(SECONDS, attempt.duration)
    if delivery.attempt == 1 and reservation.undelayed and not delivery.lost:
        counters.observe(WAIT, delivery.age(started))


def _entry(attempt: Attempt, state: str, tube: str, holder: str, result: str) -> Entry:
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
        body=delivery.body,
        labels=delivery.labels,
    )


def as_recorded(result: object) -> tuple[str, str]:
    """A result as the ledger has it, masked, and what of it the ledger cannot hold; "" where it is whole.

    The second text stands at the end of the first one, too. Never raises: the work is done, and nothing may undo it.
    """
    if result is None:
        return "", ""
    text, note = _as_text(result)
    if len(text) > MAX_RESULT:
        note = note or f"cut: a result has at most {MAX_RESULT} characters"
    if not note:
        return masked_text(envelope.as_valid_utf8(text)), ""
    kept = masked_text(envelope.as_valid_utf8(text[: MAX_RESULT - len(note) - 3]))
    return f"{kept} ({note})" if kept else f"({note})", note


def _as_text(result: object) -> tuple[str, str]:
    """The beginning of its text, one character more than MAX_RESULT at most, and why it is not its JSON."""
    # not isinstance, which asks the object
    if issubclass(type(result), str):
        return text_of(result, MAX_RESULT + 1), ""
    try:
        return json_of(result, MAX_RESULT, strict=True)[: MAX_RESULT + 1], ""
    except ValueError as error:
        note = masked_text(envelope.as_valid_utf8(f"not JSON: {error}"[:_MAX_NOTE]))
    try:
        return json_of(result, MAX_RESULT, strict=False)[: MAX_RESULT + 1], note
    except ValueError:
        return "", note
