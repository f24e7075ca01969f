"""Removes what nobody needs any more from the body store, and never what a job names.

An orphan is a live body that no job names: its process died between body and job, or after the job's end. To be sure
takes a look at every job, which costs the queue something. So only bodies that nobody has touched for a day are looked
at, and at most once in some hours. An orphan becomes "done", and can be read for as long as other bodies of that kind.

No job escapes by moving meanwhile: who puts a new form of a delivery touches its body first, and what was touched is
left alone; who moves it from the journal to the queue is seen in one of the two, because the journal is read first.
The journals of other hosts, and other queues, say themselves which bodies they may name (holders.py).
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from glassq.bodies.base import owner
from glassq.bodies.opening import open_bodies
from glassq.bodies.queue_holder import queue_id
from glassq.delivery import decode
from glassq.errors import DamagedDelivery, SearchIncomplete, Unsupported
from glassq.journal import Journal, journal_id
from glassq.queues.base import ALL_STATES
from glassq.settings import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from glassq.bodies.base import BodyInfo, BodyStore
    from glassq.queues.base import Inspector
    from glassq.settings import Settings

# A live body that was not touched for this time may be an orphan, in seconds.
SAFE_AGE = 86_400.0
# An unfinished body whose writer lives is written to within seconds; a done one serves a job that a power cut brings
# back. Both are left alone for this time, in seconds.
GRACE = 3600.0
# On a full disk done bodies go sooner, as new pings get 503 there; in seconds.
FULL_GRACE = 30.0
# At most so often are all jobs looked at, in seconds; and so long after a look that failed.
SCAN_EVERY, SCAN_AGAIN = 6 * 3600.0, 600.0
# A journal or a queue that has said nothing for so long is gone for good, in seconds.
MAX_SILENCE = 30 * 86_400.0


class BodyCounts(NamedTuple):
    """What the store holds: numbers, and bytes; `oldest` is the age of the live body that was touched first."""

    live: int = 0
    live_bytes: int = 0
    done: int = 0
    done_bytes: int = 0
    unfinished: int = 0
    unfinished_bytes: int = 0
    oldest: float = 0.0


class Swept(NamedTuple):
    """What a sweep has done: bodies that were removed, and orphans that were found, if it has `looked` for those.

    `unsure` says why that could not be told, of some of them if it has `looked`.
    """

    removed: int = 0
    removed_bytes: int = 0
    orphans: int = 0
    looked: bool = False
    unsure: str = ""


def count_bodies(store: BodyStore, now: float | None = None) -> BodyCounts:
    """What the store holds now. Raises BodyError."""
    now = time.time() if now is None else now
    many: Counter[str] = Counter()
    size: Counter[str] = Counter()
    oldest = now
    for info in store.list():
        many[info.state] += 1
        size[info.state] += info.size
        if info.state == "live":
            oldest = min(oldest, info.touched)
    return BodyCounts(
        *(many["live"], size["live"]),
        *(many["done"], size["done"]),
        *(many["unfinished"], size["unfinished"]),
        now - oldest,
    )


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Sweeps one store. `retention` of done bodies is in seconds, `done_max` in bytes.

    `own` are the ids of the journal and the queue that `named` looks into.
    """

    store: BodyStore
    retention: float
    done_max: int
    own: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """That of the settings."""
        ledger = settings.ledger
        own = frozenset({journal_id(Path(settings.intake.journal)), queue_id(settings.queue.url)})
        retention = ledger.retention if ledger.keep_bodies else 0.0
        return cls(open_bodies(settings), retention, settings.bodies.done_max, own)

    def sweep(
        self,
        named: Callable[[frozenset[str]], frozenset[str]] | None,
        *,
        now: float | None = None,
        safe_age: float = SAFE_AGE,
    ) -> Swept:
        """Sweeps once. `named` says which of these deliveries have a job; None: nobody looks. Raises BodyError.

        `named` may raise SearchIncomplete or Unsupported: then no orphan is touched.
        """
        now = time.time() if now is None else now
        found = list(self.store.list())
        removed = [*self._stale(found, now), *self._expired(found, now)]
        for info in removed:
            # in its state alone: a restore may have put it back meanwhile
            self.store.delete(info.key, info.state)
        swept = Swept(len(removed), sum(info.size for info in removed))
        old = frozenset(info.key for info in found if info.state == "live" and now - info.touched > safe_age)
        if named is None or not old:
            return swept
        try:
            orphans = old - named(old)
        except (SearchIncomplete, Unsupported) as error:
            return swept._replace(unsure=str(error))
        since, abouts = self._held(now)
        held = {info.key for info in found if info.key in orphans and info.touched >= since}
        unsure = f"{len(held)} may be named by other journals or queues: {', '.join(abouts)}" if held else ""
        return swept._replace(looked=True, orphans=self._retire(orphans - held, now - safe_age), unsure=unsure)

    def _held(self, now: float) -> tuple[float, list[str]]:
        """From when on other journals or queues may name bodies, and whose those are."""
        since, abouts = now, []
        for holder in self.store.holders():
            if holder.key in self.own:
                continue
            if now - holder.seen > MAX_SILENCE:
                self.store.let_go(holder.key)
                continue
            since = min(since, holder.since)
            abouts.append(holder.about)
        return since, abouts

    def _stale(self, found: Iterable[BodyInfo], now: float) -> Iterator[BodyInfo]:
        """What nobody finishes any more."""
        return (info for info in found if info.state == "unfinished" and now - info.touched > GRACE)

    def _expired(self, found: Iterable[BodyInfo], now: float) -> Iterator[BodyInfo]:
        """Done bodies that are too old, or too many: the oldest first."""
        done = sorted((info for info in found if info.state == "done"), key=lambda info: info.touched)
        size, missing = sum(info.size for info in done), MAX_BODY - self.store.free()
        for info in done:
            age = now - info.touched
            old, many = age > max(self.retention, GRACE), age > GRACE and size > self.done_max
            if old or many or (missing > 0 and age > FULL_GRACE):
                missing -= info.size
                size -= info.size
                yield info

    def _retire(self, orphans: frozenset[str], before: float) -> int:
        """Retires those that nobody has touched meanwhile."""
        left = [
            info.key
            for info in self.store.list()
            if info.key in orphans and info.state == "live" and info.touched < before
        ]
        for key in left:
            self.store.retire(key)
        return len(left)


def journaled_jobs(settings: Settings) -> Iterator[bytes]:
    """The jobs in the intake journal; none where that is on another machine. Raises JournalError."""
    intake = settings.intake
    if Path(intake.journal).exists():
        journal = Journal(Path(intake.journal), max_size=intake.journal_max, min_free=intake.journal_min_free)
        for record in chain(journal.waiting(), journal.refused()):
            yield record.body
        for file in journal.damaged():
            yield file.unreadable


def named_in(wanted: frozenset[str], journaled: Iterable[bytes], queue: Inspector) -> frozenset[str]:
    """Which of these bodies belong to deliveries that the journal or the queue holds.

    `journaled` are the bytes of the journal's jobs.
    All tubes are looked at, other people's too. Raises QueueError; SearchIncomplete or Unsupported if it may miss some.
    """
    named: set[str] = set()
    owners = frozenset(map(owner, wanted))
    for data in journaled:
        named |= _named_by(data, owners)
    if queue.capabilities.lists != ALL_STATES:
        raise Unsupported(queue.capabilities.unseen or f"{queue.engine} cannot show all its jobs")
    for job in queue.find(ALL_STATES, queue.tubes(), wanted=owners.__contains__):
        named |= _named_by(job.body, owners)
    return frozenset(key for key in wanted if owner(key) in named)


def _named_by(data: bytes, wanted: frozenset[str]) -> frozenset[str]:
    try:
        return wanted & {decode(data).id}
    except DamagedDelivery:
        # whatever it is, it may be mended
        return frozenset(key for key in wanted if key.encode() in data)
