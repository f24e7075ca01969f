"""Records an attempt: log line, ledger entry, counters. Never blocks the worker."""

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
from glassq.worker.metrics import ATTEMPTS, SECONDS, UNACKNOWLEDGED, WAIT
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from glassq.delivery import Delivery, Evidence
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


# Of each kind: the level and word of its log line, and the state in the ledger ("": no entry).
_EVENTS: dict[Kind, tuple[int, str, str]] = {
    Kind.DONE: (logging.INFO, "done", "done"),
    Kind.DROPPED: (logging.INFO, "dropped", "dropped"),
    Kind.RETRY: (logging.WARNING, "retrying", "retrying"),
    Kind.BURY: (logging.ERROR, "buried", "buried"),
    Kind.INTERRUPTED: (logging.INFO, "given back", ""),
    Kind.LEASE_LOST: (logging.WARNING, "lease lost", ""),
}

# What counts them: the values of the counter's label.
_COUNTED_AS = {kind: kind.name.lower() for kind in Kind}


def word_of(kind: Kind) -> str:
    """The word of an outcome in the log; in the ledger as well, if it has an entry there."""
    return _EVENTS[kind][1]


class AttemptRecord:
    """What is recorded of one attempt."""

    __slots__ = ("_attempt", "_counted", "_counters", "_ledger", "_logged", "_reservation", "_result")

    def __init__(self, ledger: Ledger, counters: ProcessCounters, reservation: Reservation, attempt: Attempt) -> None:
        self._ledger = ledger
        self._counters = counters
        self._reservation = reservation
        self._attempt = attempt
        self._result = ""
        self._logged = False
        self._counted = False

    def log_outcome(self) -> None:
        """Writes the log line, unless that is done. What a handler has done stays done, whatever the queue answers."""
        if self._logged:
            return
        self._logged = True
        outcome = self._attempt.outcome
        self._result, note = as_recorded(outcome.result)
        level, event, _ = _EVENTS[outcome.kind]
        if note:
            # the note is at the end of the result
            level = logging.WARNING
        known = _attempt_fields(self._reservation, self._attempt)
        if outcome.kind is Kind.RETRY:
            known["delay"] = outcome.delay
        if outcome.reason:
            known["reason"] = outcome.reason
        if self._result:
            known["result"] = self._result
        log.log(level, "%s %s", event, fields(**known))
        evidence = self._attempt.evidence
        if outcome.kind is Kind.RETRY and evidence is not None and evidence.traceback:
            delivery = self._attempt.delivery
            where = fields(delivery=delivery.id, attempt=delivery.attempt, traceback=evidence.traceback)
            log.debug("failed here %s", where)

    def settled(self, holder: str) -> None:
        """The outcome is settled. `holder` is the job that holds the delivery from now on ("": none)."""
        self.log_outcome()
        self._count()
        if state := _EVENTS[self._attempt.outcome.kind][2]:
            self._write(state, holder)

    def unacknowledged(self, error: QueueError) -> None:
        """The queue did not confirm the outcome: the delivery may be worked again. Before `settled`, or after it."""
        kind = self._attempt.outcome.kind
        self._count()
        self._counters.count(UNACKNOWLEDGED)
        # a refusal is logged once, by Settlement.refused
        level = logging.DEBUG if isinstance(error, QueueRefused | NoProof) else logging.WARNING
        known = _attempt_fields(self._reservation, self._attempt)
        log.log(level, "outcome not acknowledged %s", fields(**known, outcome=kind.value, why=error))
        if kind in (Kind.DONE, Kind.DROPPED):
            self._result = as_recorded(self._attempt.outcome.result)[0]
            self._write(_EVENTS[kind][2], "")

    def _count(self) -> None:
        if self._counted:
            return
        self._counted = True
        delivery, started = self._attempt.delivery, self._attempt.started
        self._counters.count(ATTEMPTS, _COUNTED_AS[self._attempt.outcome.kind])
        if started is None:
            return
        self._counters.observe(SECONDS, self._attempt.duration)
        if delivery.attempt == 1 and delivery.due is None and not delivery.lost:
            self._counters.observe(WAIT, delivery.age(started))

    def _write(self, state: str, holder: str) -> None:
        self._ledger.record(_entry(self._attempt, state, self._reservation.tube, holder, self._result))


def _attempt_fields(reservation: Reservation, attempt: Attempt) -> dict[str, object]:
    delivery = attempt.delivery
    return {"delivery": delivery.id, "attempt": delivery.attempt, "job": reservation.ref, "seconds": attempt.duration}


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
        kept=_kept(delivery),
        story=_story(attempt, state),
    )


def _story(attempt: Attempt, state: str) -> tuple[Evidence, ...]:
    """Why its attempts failed; nothing while the job still tells it, to be tried again."""
    before = attempt.delivery.evidence
    if state == "buried" and attempt.evidence is not None:
        return (*before, attempt.evidence)
    return () if state == "retrying" else before


def _kept(delivery: Delivery) -> dict[str, object] | None:
    """What a replay needs beside body and labels."""
    if delivery.stored is None and not delivery.headers and not delivery.content_type and not delivery.done:
        return None
    kept = {"content_type": delivery.content_type, "headers": delivery.headers, "stored": delivery.stored}
    return kept | ({"done": delivery.done} if delivery.done else {})


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
