"""One line: what is most urgent. It is made of what is known, and asks nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from glassq.operations.words import deliveries, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from glassq.operations.census_view import CensusView
    from glassq.operations.doctor import Examination
    from glassq.operations.groups import Group
    from glassq.operations.sampler import Samples
    from glassq.operations.status import SystemStatus

Level = Literal["wrong", "note", "ok"]
# What was looked at longer ago, in seconds, is told with its time: the queue is looked at every few seconds while
# somebody watches, and the most urgent checks are made each half minute.
STALE, STALE_CHECKS = 45.0, 120.0
# Of an error's words, in characters.
MAX_WORDS = 120


@dataclass(frozen=True, slots=True)
class SystemVerdict:
    """The most urgent of what is wrong. `url` is the path of the page about it, `cause` that of a group ("": none)."""

    level: Level
    words: str
    url: str = ""
    cause: str = ""


def verdict(
    census: CensusView, samples: Samples, examination: Examination, now: datetime, ended: Sequence[str] = ()
) -> SystemVerdict | None:
    """The verdict; None before anybody has looked.

    `ended` says of what nobody looks at any more, as its thread has ended: "the queue". What was made of old samples
    says of when they are.
    """
    if ended:
        return _blind(ended, samples)
    for found, at, limit in _all(census, samples, examination, now):
        old = at is not None and (now - at).total_seconds() > limit
        return replace(found, words=f"{found.words} ({_as_of(at, now)})") if at and old else found
    if samples.at is None or examination.at is None:
        return None
    for what, at, limit in (
        ("the queue", samples.at, STALE),
        ("what lies buried", census.looked_at, STALE),
        ("the checks", examination.at, STALE_CHECKS),
    ):
        if at is not None and (now - at).total_seconds() > limit:
            return SystemVerdict("note", f"nothing was wrong, but nobody has looked at {what} since: {_as_of(at, now)}")
    return SystemVerdict("ok", "nothing is wrong")


def _blind(ended: Sequence[str], samples: Samples) -> SystemVerdict:
    seen = f"; what is shown was so at {samples.at:%H:%M:%S} UTC" if samples.at else ""
    words = f"the console does not look at {' and '.join(ended)} any more{seen}"
    return SystemVerdict("wrong", f"{words}: restart glassq-console; its log says why")


def _as_of(at: datetime, now: datetime) -> str:
    return f"as of {at:%H:%M:%S} UTC, {span((now - at).total_seconds())} ago"


# A verdict, when that was seen of which it is made, and after how many seconds that is old.
_Found = tuple[SystemVerdict, "datetime | None", float]


def _all(census: CensusView, samples: Samples, examination: Examination, now: datetime) -> Iterator[_Found]:
    """What is wrong or worth a note, the most urgent first."""
    if samples.trouble:
        # of now: the queue was looked at in vain
        yield SystemVerdict("wrong", f"the queue cannot be looked at: {samples.trouble}", "/health"), None, STALE
    for check in examination.wrong:
        yield SystemVerdict("wrong", f"{check.name}: {check}", "/health"), examination.at, STALE_CHECKS
    if samples.status is not None:
        yield from ((found, samples.status_at, STALE) for found in _queue(samples.status))
    yield from ((found, census.looked_at, STALE) for found in _buried(census, now))
    if samples.status is not None:
        others = [hint for hint in samples.status.hints if hint.about != "buried"]
        yield from ((SystemVerdict("note", str(hint), "/"), samples.status_at, STALE) for hint in others)
    if census.trouble and not samples.trouble:
        words = f"what lies buried cannot be looked at: {census.trouble}"
        yield SystemVerdict("note", words, "/buried"), None, STALE


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
        last = max((group.last for group in census.groups if group.last), default=None)
        # the time of day alone would be that of any day
        when = f", the last at {last:%H:%M} UTC" if last and (now - last).total_seconds() < 86_400 else ""
        if len(census.groups) == 1:
            yield _old(census.groups[0], total, when)
            return
        words = f"{deliveries(total)} buried in {len(census.groups)} groups, none of them new{when}"
        yield SystemVerdict("note", words, "/buried")
    else:
        yield SystemVerdict("note", f"{deliveries(total)} buried", "/buried")


def _old(group: Group, total: int, when: str) -> SystemVerdict:
    """The only group, which is not new."""
    words = f"{deliveries(total)} buried of one error, not new{when}: {_error(group)}"
    return SystemVerdict("note", words, f"/buried/{quote(group.id)}", group.id)


def _young(group: Group, total: int) -> SystemVerdict:
    since = f"new since {group.first:%H:%M} UTC"
    many = "1 buried delivery is " if group.count == 1 else f"{group.count:,} of {total:,} buried are one error, "
    return SystemVerdict("note", f"{many}{since}: {_error(group)}", f"/buried/{quote(group.id)}", group.id)


def _error(group: Group) -> str:
    """What a group has in common, and where it comes from."""
    origin = f" from {group.cause.origin}" if group.cause.origin else ""
    error = group.words if len(group.words) <= MAX_WORDS else f"{group.words[:MAX_WORDS].rstrip()}…"
    return f"{error}{origin}"
