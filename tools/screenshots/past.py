"""The past of the scene: what a console would have sampled in a day, and what the ledger would have of it.

A wave of work over the day; an hour ago photos.example began to answer 503. The backlog rose until it was mended 25
minutes ago, and falls since.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from glassq import delivery as envelope

if TYPE_CHECKING:
    from collections.abc import Iterator

# What waits in the main tube now, and how many more wait for each minute that one looks back, until the peak; in
# minutes ago: the peak, and when it began.
READY, FALL, PEAK, BEGAN = 740, 62, 25, 62
DELAYED, MAILS, THUMBNAILS = 84, 420, 46
BURIED = 253
# How many minutes the console has looked, and the ledger has.
MINUTES = 24 * 60
# Samples of 5 s in the last minutes, else one a minute.
RECENT = 300


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs of one tube at some time."""

    ready: int
    working: int
    delayed: int
    buried: int


def main(ago: float) -> Counts:
    """The main tube, so many minutes ago."""
    if ago <= PEAK:
        ready = READY + FALL * ago
    elif ago <= BEGAN:
        ready = (READY + FALL * PEAK) * ((BEGAN - ago) / (BEGAN - PEAK)) ** 1.3
    else:
        ready = 90 + 70 * math.sin(ago / 170) + 60 * _noise(ago) + (500 * _bump(ago, 610, 34))
    delayed = DELAYED * (1.0 if ago < 20 else 3.2 * _bump(ago, 38, 16) + 0.1 * _noise(ago))
    buried = BURIED - 41 if ago < 6 else 41 if ago > 40 else 41 + (BURIED - 82) * (40 - ago) / 34
    return Counts(max(0, round(ready)), 4, max(0, round(delayed)), round(buried))


def mail(ago: float) -> Counts:
    """The push queue: a newsletter goes out."""
    ready = MAILS + 9 * ago if ago < 16 else max(0.0, 564 * (31 - ago) / 15) if ago < 31 else 20 * _noise(ago)
    return Counts(max(0, round(ready)), 1, 0, 0)


def thumbnails(ago: float) -> Counts:
    """The tube that somebody has paused 12 minutes ago."""
    return Counts(round(THUMBNAILS * (12 - ago) / 12) if ago < 12 else 0, 0, 0, 0)


def rows(now: datetime, seed: int = 11) -> Iterator[dict[str, Any]]:
    """The ledger's rows of what was done in each minute; what failed, and is not done yet, the scene adds."""
    chance = random.Random(seed)
    first = now.replace(second=0, microsecond=0)
    for ago in range(1, MINUTES):
        if PEAK < ago <= BEGAN:
            done = 34 + chance.uniform(-7, 7)
        elif ago <= PEAK:
            done = 97 + chance.uniform(-8, 8)
        else:
            done = 42 + 15 * math.sin(ago / 170) + chance.uniform(-5, 5) + 28 * _bump(ago, 600, 30)
        for _ in range(max(0, round(done))):
            yield _done(first - timedelta(minutes=ago, seconds=-chance.uniform(0, 59)), chance)


def _done(at: datetime, chance: random.Random) -> dict[str, Any]:
    took = min(6.0, chance.lognormvariate(0.6, 0.4))
    started = at - timedelta(seconds=took)
    received = started - timedelta(seconds=chance.lognormvariate(-0.5, 1.3))
    result = f"stored {chance.randrange(9_000):04}.jpg, {chance.randrange(90, 990)} kB"
    return row(id_at(received, chance), received, "done", 1, at, took, started=started, result=result)


def row(
    id_: str, received: datetime, state: str, attempts: int, at: datetime, took: float, **more: Any
) -> dict[str, Any]:
    """A row of the ledger."""
    known = {"source": "mirror", "job": "", "result": "", "reason": "", "started": at - timedelta(seconds=took)}
    same = {"delivery": id_, "received": received, "state": state, "attempts": attempts, "updated": at}
    return {**known, **same, "duration": round(took, 3), "tube": "glassq", **more}


def id_at(moment: datetime, chance: random.Random) -> str:
    """An id that a delivery of this moment would have."""
    return envelope.id_of(int(moment.timestamp() * 1_000), chance.getrandbits(80))


def samples(now: float) -> dict[str, list[tuple[float, int, int, int, int]]]:
    """What the console would have sampled, by tubes, oldest first."""
    times = [now - 60 * ago for ago in range(MINUTES - 1, RECENT // 60, -1)]
    times += [now - seconds for seconds in range(RECENT, 0, -5)]
    tubes = {"glassq": main, "glassq.queue.thumbnails": thumbnails, "glassq.push.mail": mail}
    return {name: [(at, *_numbers(of((now - at) / 60))) for at in times] for name, of in tubes.items()}


def _numbers(counts: Counts) -> tuple[int, int, int, int]:
    return counts.ready, counts.working, counts.delayed, counts.buried


def _bump(ago: float, middle: float, width: float) -> float:
    return math.exp(-(((ago - middle) / width) ** 2))


def _noise(ago: float) -> float:
    """Between 0 and 1, the same for the same minute."""
    return random.Random(round(ago)).random()


def utc_now() -> datetime:
    return datetime.now(UTC)
