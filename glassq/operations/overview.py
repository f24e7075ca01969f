"""The system at one glance: what waits, how fast it is worked, when it is done. For the console and `glassq top`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.operations.rates import WINDOW, Estimate, Minute, estimate, per_minute, slope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from glassq.operations.curves import CountSample, Curve
    from glassq.operations.sampler import Samples
    from glassq.queues.base import TubeCounts

# What came is known once the samples reach back so far, but for these seconds.
UNSEEN = 60.0


@dataclass(frozen=True, slots=True)
class TubeLine:
    """One tube. `oldest` is the age of the job that is reserved next, in seconds (None: nobody knows).

    `rate` is how many of it are worked in a second at most (None: no limit); `empties` says when it is empty.
    """

    counts: TubeCounts
    label: str
    oldest: float | None
    rate: float | None
    empties: Estimate


@dataclass(frozen=True, slots=True)
class Overview:
    """All tubes of ours together. `incoming` and `done` are deliveries in a minute, over the last five (None: unknown).

    `children` is how many consumers are connected, None where the engine does not tell. `on_disk` is None before the
    status is known.
    """

    waiting: int
    working: int
    retrying: int
    buried: int
    children: int | None
    journal: str
    on_disk: bool | None
    empties: Estimate
    incoming: float | None
    done: float | None
    tubes: tuple[TubeLine, ...]
    backlog: tuple[CountSample, ...]
    minutes: tuple[Minute, ...]


def overview(samples: Samples, now: datetime, hours: int = 1) -> Overview:
    """What the samples tell; charts are of so many hours."""
    at, status = now.timestamp(), samples.status
    done = per_minute(samples.minutes, at)
    ready = sum(tube.ready for tube in samples.tubes)
    return Overview(
        waiting=ready,
        working=sum(tube.reserved for tube in samples.tubes),
        retrying=sum(tube.delayed for tube in samples.tubes),
        buried=sum(tube.buried for tube in samples.tubes),
        children=status.queue.engine.consumers if status and status.queue.sees_consumers else None,
        journal=status.journal_words if status else "",
        on_disk=status.queue.on_disk if status else None,
        empties=estimate(ready, change(samples.all, at)),
        incoming=_incoming(samples.all, done, at),
        done=done,
        tubes=tube_lines(samples, at),
        backlog=tuple(samples.all.since(at - hours * 3_600)),
        minutes=whole_minutes(samples.minutes, at, hours),
    )


def change(curve: Curve, now: float) -> float | None:
    """By how much the number of ready jobs changes in a second; None before there are enough samples."""
    return slope([(each.at, each.ready) for each in curve.since(now - WINDOW)])


def whole_minutes(minutes: Sequence[Minute], now: float, hours: int) -> tuple[Minute, ...]:
    """Each minute of the last hours up to the last whole one; those in which nothing happened are there too."""
    if not minutes:
        return ()
    known = {minute.at: minute for minute in minutes}
    end = int(now) // 60 * 60
    return tuple(known.get(at, Minute(at)) for at in range(end - hours * 3_600, end, 60))


def tube_lines(samples: Samples, now: float) -> tuple[TubeLine, ...]:
    """A line for each tube of ours that is there, the main one first."""
    rates, oldest, labels = _rates(samples), _oldest(samples), _labels(samples)
    lines = []
    for tube in samples.tubes:
        curve = samples.curves.get(tube.name)
        rate = rates.get(tube.name)
        empties = estimate(tube.ready, change(curve, now) if curve else None, rate)
        lines.append(TubeLine(tube, labels.get(tube.name, tube.name), oldest.get(tube.name), rate, empties))
    return tuple(lines)


def _incoming(curve: Curve, done: float | None, now: float) -> float | None:
    """What came in a minute: as much as was done, and by how much more there is."""
    seen = curve.since(now - WINDOW)
    if not seen or seen[0].at > now - WINDOW + UNSEEN:
        # what was done is that of all the time, and how much more there is would not be
        return None
    growth = slope([(each.at, each.backlog + each.buried) for each in seen])
    return None if done is None or growth is None else max(0.0, done + growth * 60)


def _rates(samples: Samples) -> dict[str, float]:
    pushed = samples.queues.pushed if samples.queues else None
    rows = pushed.rows if pushed else ()
    return {row.tube.name: row.planned.rate for row in rows if row.planned is not None}


def _oldest(samples: Samples) -> dict[str, float]:
    queues = samples.queues
    found: dict[str, float] = {}
    if queues is not None:
        ages = [(row.tube.name, row.oldest) for row in queues.own]
        ages += [(row.tube.name, row.oldest) for row in (queues.pushed.rows if queues.pushed else ())]
        found = {tube: float(age) for tube, age in ages if age is not None}
    if samples.status is not None and (job := samples.status.queue.oldest) is not None:
        found.setdefault(job.tube, job.age)
    return found


def _labels(samples: Samples) -> dict[str, str]:
    """What people call the tubes."""
    queues = samples.queues
    if queues is None:
        return {}
    own = {row.tube.name: f"queue {row.name}" for row in queues.own}
    pushed = {row.tube.name: f"push {row.name}" for row in (queues.pushed.rows if queues.pushed else ())}
    return own | pushed
