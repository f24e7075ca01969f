"""How many at once: packets that share one proof, a rate, and a few canaries before the rest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from glassq.errors import InvalidRequest
from glassq.values import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.operations.progress import Progress

T = TypeVar("T")

# With a canary so many are tried before the rest follows.
CANARIES = (1, 10)
# So many jobs share one proof. More would hardly be faster, even on a slow disk, and Ctrl-C waits for all of them.
PACKET = 200


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rate` is in jobs a second (None: as fast as it goes).

    With `canary` the outcomes of the first few are waited for, each lot's for `patience` seconds at most. With `follow`
    those of the rest are waited for too.
    """

    rate: float | None = None
    canary: bool = False
    follow: bool = False
    patience: float = 0.0

    def lots(self, jobs: Sequence[T]) -> Iterator[tuple[Sequence[T], bool]]:
        """The jobs in lots, each with whether its outcome decides about the next one."""
        start = 0
        for size in CANARIES if self.canary else ():
            if jobs[start:]:
                yield jobs[start : start + size], True
            start += size
        if jobs[start:]:
            yield jobs[start:], False

    def packets(self, jobs: Sequence[T], progress: Progress) -> Iterator[Sequence[T]]:
        """The jobs in packets; with a rate each alone, when its time has come. Raises Stopped."""
        if not self.rate:
            yield from packets_of(jobs)
            return
        began = time.monotonic()
        for number, job in enumerate(jobs):
            progress.wait(began + number / self.rate - time.monotonic())
            yield [job]


def packets_of(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """The items, PACKET at a time."""
    left = iter(items)
    while packet := list(islice(left, PACKET)):
        yield packet


AT_ONCE = Pace()


def per_second(text: str, name: str = "rate") -> float:
    """A rate such as "10/s", "30/m" or "5/h", in jobs a second. Raises InvalidRequest, which names the option."""
    try:
        if rate := Rate(text):
            return rate
        why = "expected a rate above 0"
    except ValueError as error:
        why = str(error)
    raise InvalidRequest(f"{name} {text}: {why}")
