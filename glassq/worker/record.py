"""Records an attempt's outcome: log line, ledger entry, counters. Never blocks the worker."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import NoProof, QueueRefused
from glassq.excerpts import json_of, text_of
from glassq.ledger import Entry
from glassq.log import fields, logger
from glassq.mask import masked_text
from glassq.worker.metrics import ATTEMPTS, SECONDS, WAIT
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from glassq.errors import QueueError
    from glassq.ledger import Ledger
    from glassq.metrics import ProcessCounters
    from glassq.queues.base import Reservation
    from glassq.worker.executor import Attempt

log = logger("glassq.worker")

# The maximum length of a result in the ledger, in characters.
MAX_RESULT = 2_000
# The maximum length of a note on a result, in characters.
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
    """Records a settled attempt. `holder` is the job that holds the delivery from now on ("": none)."""
    delivery, outcome = attempt.delivery, attempt.outcome
    _count(counters, attempt, outcome.kind.name.lower())
    result, note = as_recorded(outcome.result)
    level, event, state = _EVENTS[outcome.kind]
    if note:
        # the note is at the end of the result
        level = logging.WARNING
    known = _attempt_fields(reservation, attempt)
    if outcome.kind is Kind.RETRY:
        known["delay"] = outcome.delay
    if outcome.reason:
        known["reason"] = outcome.reason
    if result:
        known["result"] = result
    log.log(level, "%s %s", event, fields(**known))
    if outcome.kind is Kind.RETRY and attempt.evidence is not None and attempt.evidence.traceback:
        where = fields(delivery=delivery.id, attempt=delivery.attempt, traceback=attempt.evidence.traceback)
        log.debug("failed here %s", where)
    if state:
        ledger.record(_entry(attempt, state, reservation.tube, holder, result))


def record_unacknowledged(
    ledger: Ledger, counters: ProcessCounters, reservation: Reservation, attempt: Attempt, error: QueueError
) -> None:
    """Records an attempt whose outcome the queue did not confirm: the delivery may be worked again."""
    outcome = attempt.outcome
    _count(counters, attempt, "unacknowledged")
    # a refusal is logged once, by Settlement.refused
    level = logging.DEBUG if isinstance(error, QueueRefused | NoProof) else logging.WARNING
    known = _attempt_fields(reservation, attempt)
    log.log(level, "outcome not acknowledged %s", fields(**known, outcome=outcome.kind.value, why=error))
    if outcome.kind in (Kind.DONE, Kind.DROPPED):
        ledger.record(_entry(attempt, _EVENTS[outcome.kind][2], reservation.tube, "", as_recorded(outcome.result)[0]))


def _attempt_fields(reservation: Reservation, attempt: Attempt) -> dict[str, object]:
    delivery = attempt.delivery
    return {"delivery": delivery.id, "attempt": delivery.attempt, "job": reservation.ref, "seconds": attempt.duration}


def _count(counters: ProcessCounters, attempt: Attempt, outcome: str) -> None:
    delivery, started = attempt.delivery, attempt.started
    counters.count(ATTEMPTS, outcome)
    if started is None:
        return
    counters.observe(SECONDS, attempt.duration)
    if delivery.attempt == 1 and delivery.due is None and not delivery.lost:
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
    """A result as the ledger records it, masked; and a note on what was left out, "" if nothing was.

    The note is also at the end of the text. Never raises: the work is done, and nothing may undo it.
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
    """The first MAX_RESULT + 1 characters of the result's text, and a note if that is not its JSON."""
    # not isinstance(), which asks the object
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
