"""One line: what is most urgent. It is made of what is known, and asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from glassq.operations.census_view import CensusView
    from glassq.operations.doctor import Examination
    from glassq.operations.groups import Group
    from glassq.operations.sampler import Samples
    from glassq.operations.status import SystemStatus

Level = Literal["wrong", "note", "ok"]
# Of an error's words, in characters.
MAX_WORDS = 120


@dataclass(frozen=True, slots=True)
class SystemVerdict:
    """The most urgent of what is wrong. `url` is the path of the page about it, `cause` that of a group ("": none)."""

    level: Level
    words: str
    url: str = ""
    cause: str = ""


def verdict(census: CensusView, samples: Samples, examination: Examination, now: datetime) -> SystemVerdict | None:
    """The verdict; None before anybody has looked."""
    found = next(_all(census, samples, examination, now), None)
    if found is not None:
        return found
    if samples.at is None or examination.at is None:
        return None
    return SystemVerdict("ok", "nothing is wrong")


def _all(census: CensusView, samples: Samples, examination: Examination, now: datetime) -> Iterator[SystemVerdict]:
    """What is wrong or worth a note, the most urgent first."""
    if samples.trouble:
        yield SystemVerdict("wrong", f"the queue cannot be looked at: {samples.trouble}", "/health")
    for check in examination.wrong:
        yield SystemVerdict("wrong", f"{check.name}: {check}", "/health")
    if samples.status is not None:
        yield from _queue(samples.status)
    yield from _buried(census, now)
    if samples.status is not None:
        others = [hint for hint in samples.status.hints if not hint.command.startswith("buried")]
        yield from (SystemVerdict("note", str(hint), "/") for hint in others)
    if census.trouble and not samples.trouble:
        yield SystemVerdict("note", f"what lies buried cannot be looked at: {census.trouble}", "/buried")


def _queue(status: SystemStatus) -> Iterator[SystemVerdict]:
    queue = status.queue
    if queue.refuses:
        yield SystemVerdict("wrong", f"the queue takes no jobs: {queue.refuses}", "/health")
    if queue.files_missing:
        yield SystemVerdict("wrong", queue.files_missing, "/health")
    if not queue.on_disk:
        yield SystemVerdict("wrong", "what is in the queue is not on disk", "/health")


def _buried(census: CensusView, now: datetime) -> Iterator[SystemVerdict]:
    total = census.total
    if not total:
        return
    young = [group for group in census.groups if group.new]
    if young:
        yield _young(max(young, key=lambda group: group.count), total)
    elif census.groups:
        groups = "1 group" if len(census.groups) == 1 else f"{len(census.groups)} groups"
        last = max((group.last for group in census.groups if group.last), default=None)
        # the time of day alone would be that of any day
        when = f", the last at {last:%H:%M} UTC" if last and (now - last).total_seconds() < 86_400 else ""
        yield SystemVerdict("note", f"{deliveries(total)} buried in {groups}, none of them new{when}", "/buried")
    else:
        yield SystemVerdict("note", f"{deliveries(total)} buried", "/buried")


def _young(group: Group, total: int) -> SystemVerdict:
    since = f"new since {group.first:%H:%M} UTC"
    origin = f" from {group.cause.origin}" if group.cause.origin else ""
    error = group.words if len(group.words) <= MAX_WORDS else f"{group.words[:MAX_WORDS].rstrip()}…"
    many = "1 buried delivery is " if group.count == 1 else f"{group.count:,} of {total:,} buried are one error, "
    return SystemVerdict("note", f"{many}{since}: {error}{origin}", f"/buried/{quote(group.id)}", group.id)
