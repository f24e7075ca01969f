"""One delivery's whole story, as people may see it: masked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.causes import reason
from glassq.delivery import StepResult, StoredBody
from glassq.errors import BodyError, InvalidRequest, LedgerError, NotFound, NotInOurTubes, QueueError, SettingsError
from glassq.mask import MAX_TEXT, masked_body, masked_text, masked_texts
from glassq.operations.find import Finder, ambiguous, checked_prefix, ref_of
from glassq.operations.words import attempts

if TYPE_CHECKING:
    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Entry
    from glassq.ledger.reader import RecordedPing
    from glassq.operations import Operations
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.queues.base import Happened, Inspector


@dataclass(frozen=True, slots=True)
class BodyExcerpt:
    """A body in the body store, and how it begins; `trouble` says why that is unknown."""

    stored: StoredBody
    beginning: bytes
    trouble: str = ""

    def words(self) -> str:
        """Its size and its beginning, masked."""
        if self.trouble:
            return f"({self.stored.size} bytes, which cannot be shown: {self.trouble})"
        return str(masked_body(self.beginning, self.stored.size))


class StepWords(msgspec.Struct, frozen=True):
    """A step that is done, and its result in words, masked. `size` is that of a result in the body store, in bytes."""

    step: str
    form: str
    result: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """What queue and ledger know of one delivery; `note` says why the ledger knows nothing.

    `found` is as it lies in the queue. Show of it what the properties here and the functions below return: masked text.
    `entry` is masked. `stored` is what the ledger kept of a delivery that is not in the queue, as it is; None: nothing.
    `large` is its body, if that is in the body store. `failures` are those that the ledger kept of such a delivery.
    `history` is what the engine has recorded, where it does.
    """

    found: Found | None
    entry: Entry | None
    note: str
    stored: RecordedPing | None = None
    large: BodyExcerpt | None = None
    failures: tuple[Evidence, ...] = ()
    history: tuple[Happened, ...] = ()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Why its attempts failed, masked."""
        delivery = self.found.delivery if self.found else None
        return tuple(map(_masked, delivery.evidence if delivery else self.failures))

    @property
    def steps(self) -> tuple[StepWords, ...]:
        """What its steps have given so far, masked."""
        delivery = self.found.delivery if self.found else None
        if delivery is None:
            kept = self.stored.kept.get("done", []) if self.stored else []
            return tuple(map(_step_words, msgspec.convert(kept, tuple[StepResult, ...])))
        return tuple(map(_step_words, delivery.done))

    @property
    def body(self) -> object:
        """Its body, masked: JSON, or text that is not. None if neither the queue nor the ledger has it.

        Of a large body the beginning, as text.
        """
        if self.large is not None:
            return self.large.words()
        holder = self.found.delivery if self.found else self.stored
        return masked_body(holder.body) if holder else None

    @property
    def labels(self) -> dict[str, str] | None:
        """Its labels, masked: a task's URL and headers are among them. None as for the body."""
        holder = self.found.delivery if self.found else self.stored
        return masked_texts(holder.labels) if holder else None

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers that its source keeps, masked; None as for the body."""
        delivery = self.found.delivery if self.found else None
        kept = delivery.headers if delivery else self.stored.kept.get("headers") if self.stored else None
        if kept is None:
            return {} if self.stored else None
        return masked_texts(kept)

    @property
    def content_type(self) -> str | None:
        """Its Content-Type, "" if it came without one; None as for the body."""
        delivery = self.found.delivery if self.found else None
        if delivery:
            return masked_text(delivery.content_type)
        return masked_text(self.stored.kept.get("content_type", "")) if self.stored else None

    def document(self) -> dict[str, Any]:
        """The story for JSON: stable keys; what is not known is null."""
        found = self.found
        delivery = found.delivery if found else None
        return {
            "delivery": self._delivery(delivery) if delivery else self._left_delivery(),
            "job": _job(found) if found else None,
            "in_queue": found is not None,
            "route": _route(found) if found else None,
            "cause": found.cause.id if found and (found.error or found.is_buried) else None,
            "buried_at": found.buried_at if found else None,
            "ledger": _recorded_fields(self.entry) if self.entry else None,
            "ledger_note": self.note,
            "history": [msgspec.structs.asdict(each) for each in self.history],
        }

    def _delivery(self, delivery: Delivery) -> dict[str, Any]:
        fields: dict[str, Any] = {
            name: getattr(delivery, name) for name in delivery.__struct_fields__ if name not in ("body", "evidence")
        }
        fields["buried"] = reason(fields["buried"])
        fields |= {"labels": self.labels, "headers": self.headers, "content_type": self.content_type}
        fields["done"] = [msgspec.structs.asdict(step) for step in self.steps]
        fields["stored"] = self.large and msgspec.structs.asdict(self.large.stored)
        return {**fields, "age": round(delivery.age()), "evidence": self._failures(), "body": self.body}

    def _failures(self) -> list[dict[str, Any]]:
        return [msgspec.structs.asdict(failure) for failure in self.evidence]

    def _left_delivery(self) -> dict[str, Any] | None:
        """Of one that is not in the queue, what the ledger tells."""
        entry = self.entry
        if self.found is not None or entry is None:
            return None
        known = {"id": entry.delivery, "source": entry.source, "received": entry.received}
        about: dict[str, Any] = {"labels": self.labels, "headers": self.headers, "content_type": self.content_type}
        steps = [msgspec.structs.asdict(step) for step in self.steps]
        about |= {"done": steps} if steps else {}
        return {**known, **about, "evidence": self._failures(), "body": self.body}


def tell(operations: Operations, queue: Inspector, text: str, progress: Progress) -> Story:
    """The story of a delivery's id, the beginning of one, a job's reference, or the name of a task in the queue.

    Raises NotFound, Ambiguous, and InvalidRequest for what can be none of these. Of a delivery that is not in the queue
    it raises LedgerError and SettingsError where the ledger cannot be read.
    """
    try:
        found, missing = _find(Finder(operations, queue, progress), text), None
    except NotFound as error:
        found, missing = None, error
    entry, stored, failures, note = _recorded(operations, queue, text, found)
    if missing is not None and entry is None:
        if isinstance(missing, NotInOurTubes):
            raise missing
        raise NotFound(f"{missing}; {note or 'the ledger does not know it either'}")
    large = _large(operations, found.delivery if found else None, entry, stored)
    recorded = _history(queue, found, entry)
    return Story(found, _masked_entry(entry) if entry else None, note, stored, large, failures, recorded)


def _history(queue: Inspector, found: Found | None, entry: Entry | None) -> tuple[Happened, ...]:
    """What the engine has recorded of it; nothing where that cannot be read now."""
    known = found.delivery.id if found and found.delivery else entry.delivery if entry else ""
    try:
        return tuple(queue.history(known)) if known else ()
    except QueueError:
        return ()


def _large(
    operations: Operations, delivery: Delivery | None, entry: Entry | None, recorded: RecordedPing | None
) -> BodyExcerpt | None:
    """The body, if it is in the body store or was."""
    if delivery is not None:
        key, stored = delivery.id, delivery.stored
    elif entry is not None and recorded is not None:
        kept = recorded.kept.get("stored")
        key, stored = entry.delivery, kept and msgspec.convert(kept, StoredBody)
    else:
        return None
    if stored is None:
        return None
    try:
        with operations.bodies.open(key) as file:
            return BodyExcerpt(stored, file.read(4 * MAX_TEXT))
    except BodyError as error:
        return BodyExcerpt(stored, b"", str(error))


def _find(finder: Finder, text: str) -> Found:
    """The job of an id; else that of the task of this name. Raises as `Finder.find` does."""
    try:
        return finder.find(text, glance=True)
    except NotFound as error:
        found = finder.task(text)
        if found is None and isinstance(error, NotInOurTubes):
            raise
        if found is None:
            raise NotFound(f"{error}, and no task of this name") from None
    except InvalidRequest as error:
        found = finder.task(text)
        if found is None:
            raise InvalidRequest(f"{error}; and no task in the queue has this name") from None
    return found


def _recorded(
    operations: Operations, queue: Inspector, text: str, found: Found | None
) -> tuple[Entry | None, RecordedPing | None, tuple[Evidence, ...], str]:
    """What the ledger holds of it; if it is not in the queue, its body and its failures; and why that is nothing.

    Raises Ambiguous; and where it is not in the queue, LedgerError and SettingsError.
    """
    if found is None and queue.is_ref(text):
        return None, None, (), "the queue may use a job's id again: ask by the delivery's id"
    if found is not None and not found.name:
        return None, None, (), "damaged: nobody knows which delivery it was"
    begins = found is None or (not queue.is_ref(text) and found.name.startswith(text.strip().lower()))
    wanted = checked_prefix(text) if begins or found is None else found.name
    try:
        with operations.ledger() as ledger:
            entries = {entry.delivery: entry for entry in ledger.find(wanted)}
            name = found.name if found else next(iter(entries), "")
            stored = None if found else ledger.recorded_ping(name)
            failures = () if found else ledger.story(name)
            note = ledger.absent
    except (LedgerError, SettingsError) as error:
        if found is None:
            # nobody knows then whether there was such a delivery
            raise
        return None, None, (), str(error)
    names = {*entries, *([found.name] if found else [])}
    if len(names) > 1 and wanted not in names:
        raise ambiguous(text, list(names))
    return entries.get(name), stored, failures, note


# -- as JSON -----------------------------------------------------------------------------------------------------------


def _job(found: Found) -> dict[str, Any]:
    job = found.job
    known = {"id": job.ref, "tube": job.tube, "state": job.state, "age": job.age, "time_left": job.time_left}
    return {**known, **job.counters, "bytes": len(job.body), "damage": found.damage}


def _route(found: Found) -> dict[str, str] | None:
    route = found.route
    if route is None:
        return None
    named = {name: getattr(route, name) for name in ("source", "collection", "operation", "queue", "url")}
    named["handler"] = route.work
    return {name: str(value) for name, value in named.items() if value is not None}


def _recorded_fields(entry: Entry) -> dict[str, Any]:
    fields = {**msgspec.structs.asdict(entry), "job": ref_of(entry)}
    return {name: value for name, value in fields.items() if name not in ("body", "labels", "story")}


# -- masked ------------------------------------------------------------------------------------------------------------


def _masked(evidence: Evidence) -> Evidence:
    detail = masked_body(json.dumps(evidence.detail).encode())
    return msgspec.structs.replace(
        evidence,
        message=masked_text(evidence.message),
        traceback=masked_text(evidence.traceback),
        detail=detail if isinstance(detail, dict) else {"detail": detail},
    )


def _step_words(result: StepResult) -> StepWords:
    if result.stored is not None:
        return StepWords(result.step, result.form, f"({result.stored.size} bytes)", result.stored.size)
    if result.form == "bytes":
        return StepWords(result.step, result.form, f"({len(result.text) * 3 // 4} bytes)")
    return StepWords(result.step, result.form, masked_text(result.text[:MAX_TEXT]))


def _masked_entry(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, result=masked_text(entry.result), reason=reason(entry.reason))


# -- in words ----------------------------------------------------------------------------------------------------------


def detail_words(value: object) -> str:
    """A part of what a handler told beside its reason, masked; headers a line each."""
    if isinstance(value, dict):
        return masked_text("\n".join(f"{name}: {each}" for name, each in value.items()))
    return masked_text(str(value))


def attempt_words(found: Found) -> str:
    """Which attempt runs or is next. A buried delivery keeps its number until a consumer has it again."""
    delivery = found.delivery
    if delivery is None:
        return ""
    number, lost = delivery.attempt, f"{delivery.lost} lost"
    if not delivery.buried:
        return f"{number} ({delivery.failures} of its budget spent, {lost})"
    if found.job.kicked:
        return f"{number + 1} (kicked: its budget is fresh)"
    if found.error == "operator":
        return f"put aside before attempt {number} ({lost})"
    return f"given up after {attempts(number)}" + (f" ({lost})" if delivery.lost else "")


def route_words(found: Found) -> str:
    """The route and handler that work it, in words."""
    route = _route(found)
    if route is None:
        return "none: no route of these settings takes it"
    handler = route.pop("handler")
    return f"{handler} (route {' '.join(f'{name}={value}' for name, value in route.items())})"
