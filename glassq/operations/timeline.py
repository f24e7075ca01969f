"""A delivery's story as a line of events, the oldest first: what happened, when, and how long nothing did.

A pure function of what `story.tell` found. What only the last failures or the ledger would know of is left out, or
said to be missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from glassq.operations.find import OPEN, ledger_state
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from glassq.delivery import Evidence
    from glassq.ledger import Entry
    from glassq.operations.find import Found
    from glassq.operations.story import Story

Level = Literal["", "ok", "note", "wrong"]
# Shorter waits are no event of their own, in seconds.
MIN_WAIT = 0.1


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at `at` (None: nobody knows when). `seconds` is how long it took, or waited.

    `kind` is "received", "waited", "attempt", "aside", "missing", "now" (where it is by now) or "over". An attempt that
    failed has its `error`, `message`, `host`, `traceback`, the `step` of its route, and `detail`: what its handler told
    beside. All texts are masked.
    """

    kind: str
    words: str
    at: datetime | None = None
    seconds: float | None = None
    level: Level = ""
    error: str = ""
    message: str = ""
    host: str = ""
    step: str = ""
    traceback: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def timeline(story: Story) -> tuple[Event, ...]:
    """The events of this story."""
    return tuple(_with_waits([*_received(story), *_missing(story.evidence), *_end(story)]))


def _received(story: Story) -> Iterator[Event]:
    delivery = story.found.delivery if story.found else None
    at = delivery.received if delivery else story.entry.received if story.entry else None
    if at is not None:
        yield Event("received", "received, and on disk before the answer", at)
    elif story.found is not None:
        yield Event("received", f"put {span(story.found.job.age)} ago, as far as the queue knows")


def _missing(evidence: tuple[Evidence, ...]) -> Iterator[Event]:
    """The failed attempts, and how many in between are not kept."""
    if evidence and evidence[0].attempt > 1:
        yield Event("missing", _gap(1, evidence[0].attempt - 1))
    for one, following in pairwise((*evidence, None)):
        if one is not None:
            yield _failure(one)
        if one is not None and following is not None and following.attempt > one.attempt + 1:
            yield Event("missing", _gap(one.attempt + 1, following.attempt - 1))


def _gap(first: int, last: int) -> str:
    which = f"attempt {first}" if first == last else f"attempts {first} to {last}"
    return f"{which}: no evidence is kept (it waited, or was kicked, or there were too many)"


def _failure(evidence: Evidence) -> Event:
    if evidence.error == "operator":
        return Event("aside", evidence.message, evidence.at, level="note", host=evidence.host)
    what = f"signal {evidence.signal}" if evidence.signal else evidence.error
    level: Level = "wrong" if evidence.outcome in ("bury", "lost") else "note"
    return Event(
        "attempt",
        f"attempt {evidence.attempt}",
        evidence.at - timedelta(seconds=evidence.duration),
        evidence.duration,
        level,
        what,
        evidence.message,
        evidence.host,
        evidence.step,
        evidence.traceback,
        evidence.detail,
    )


def _end(story: Story) -> Iterator[Event]:
    """Where it is now, or how it ended."""
    found, entry = story.found, story.entry
    if found is not None:
        yield _now(found)
    elif entry is not None:
        yield from _over(entry)


def _now(found: Found) -> Event:
    job = found.job
    if found.damage:
        return Event("now", f"damaged: {found.damage}", level="wrong")
    if job.state == "buried":
        return Event("now", "buried: it waits for you", found.buried_at, level="wrong", message=found.reason)
    kicked = ", kicked: its budget is fresh" if job.kicked else ""
    if job.state == "delayed":
        return Event("now", f"the next attempt is due in {span(max(0.0, job.time_left)) or '0s'}{kicked}")
    if job.state == "reserved":
        return Event("now", f"is being worked; its lease ends in {span(max(0.0, job.time_left)) or '0s'}{kicked}")
    return Event("now", f"waits to be worked{kicked}")


def _over(entry: Entry) -> Iterator[Event]:
    """How it ended, by the ledger."""
    if entry.state == "done":
        at = entry.started or entry.updated - timedelta(seconds=entry.duration)
        words = f"attempt {entry.attempts}: done"
        yield Event("over", words, at, entry.duration, "ok", message=entry.result)
        return
    level: Level = "wrong" if entry.state in OPEN and not entry.replayed else "note"
    yield Event("over", ledger_state(entry), entry.updated, level=level, message=entry.reason)


def _with_waits(events: list[Event]) -> Iterator[Event]:
    """The events, with what lies between the end of one and the beginning of the next."""
    end: datetime | None = None
    for event in events:
        if event.at is not None:
            waited = (event.at - end).total_seconds() if end is not None else 0.0
            if waited >= MIN_WAIT and event.kind != "now":
                yield Event("waited", f"waited {span(waited)}", seconds=waited)
            end = event.at + timedelta(seconds=event.seconds or 0.0)
        yield event
