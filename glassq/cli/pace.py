"""`glassq kick --rate` and `--canary`: not all at once, and no more of them than is good."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from glassq.cli.output import line
from glassq.values import Rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# So many are tried with --canary before the rest follows.
CANARIES = (1, 10)
# How long an outcome may take to be written to the ledger, and between two looks at it, in seconds.
TELLS, LOOK = 1.5, 0.2


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rate` is in jobs a second (None: as fast as it goes).

    With `canary` the first few are waited for, each lot for `patience` seconds at most.
    """

    rate: float | None = None
    canary: bool = False
    patience: float = 0.0

    def lots(self, jobs: Sequence[int]) -> Iterator[tuple[Sequence[int], bool]]:
        """The jobs in lots, each with whether its outcome is waited for before the next one."""
        start = 0
        for size in CANARIES if self.canary else ():
            if jobs[start:]:
                yield jobs[start : start + size], True
            start += size
        if jobs[start:]:
            yield jobs[start:], False

    def paced(self, jobs: Sequence[int]) -> Iterator[int]:
        """The jobs, each when its time has come."""
        began = time.monotonic()
        for number, job in enumerate(jobs):
            if self.rate:
                time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
            yield job


def per_second(text: str) -> float:
    """A rate such as "10/s", "30/m" or "5/h". Raises click.UsageError."""
    try:
        if rate := Rate(text):
            return rate
        why = "expected a rate above 0"
    except ValueError as error:
        why = str(error)
    raise click.UsageError(f"--rate {line(text)}: {why}")
