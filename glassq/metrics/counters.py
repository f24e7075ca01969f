"""Counters of all processes of one program, in memory they share.

Made before the fork, a row for each process, which it alone writes: no lock between processes, so one that is killed
in the middle of anything holds up nobody. What a process has counted stays when it ends; the next one that gets its row
goes on from there. So sums only grow, as Prometheus expects, however often children are replaced.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_CELL = 8


@dataclass(frozen=True, slots=True)
class Counter:
    """Events since the program started: one number, or one for each of the `values` that `label` may have."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)

    @property
    def cells(self) -> int:
        """How many numbers it takes."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, in seconds; `buckets` are the upper bounds that are told apart, ascending."""

    name: str
    help: str
    buckets: tuple[float, ...]

    @property
    def cells(self) -> int:
        """How many numbers it takes: one a bucket, one for what is above all of them, and the sum."""
        return len(self.buckets) + 2


@dataclass(frozen=True, slots=True)
class SharedGauge:
    """A number that a process sets, and others read: one in all rows together."""

    name: str
    help: str
    cells: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is looked up when somebody asks for it; for each value of its labels, if it has any."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


Instrument = Counter | Histogram | SharedGauge


class ProcessCounters:
    """One row: what one process counts, in all of its threads. Made before the fork, it is left alone by the parent."""

    def __init__(self, cells: memoryview[float], at: dict[str, int]) -> None:
        self._cells = cells
        self._at = at
        # adding reads and writes; two threads must not do it at once
        self._adding = threading.Lock()

    def count(self, counter: Counter, value: str = "", by: float = 1.0) -> None:
        """`by` more of it. Raises ValueError for a value that the counter does not have."""
        cell = self._at[counter.name] + counter.values.index(value)
        with self._adding:
            self._cells[cell] += by

    def observe(self, histogram: Histogram, seconds: float) -> None:
        """It took so long."""
        first = self._at[histogram.name]
        bucket = first + bisect_left(histogram.buckets, seconds)
        total = first + len(histogram.buckets) + 1
        with self._adding:
            self._cells[bucket] += 1.0
            self._cells[total] += seconds

    def set(self, level: SharedGauge, number: float) -> None:
        """It is so much from now on."""
        self._cells[self._at[level.name]] = number


class SharedCounters:
    """All rows of a program. Made by the parent before it forks."""

    def __init__(self, instruments: Sequence[Instrument], rows: int) -> None:
        self.instruments = instruments
        self.rows = rows
        self._at: dict[str, int] = {}
        self._width = 0
        for each in instruments:
            self._at[each.name] = self._width
            self._width += each.cells
        self._cells = memoryview(mmap.mmap(-1, max(1, rows * self._width) * _CELL)).cast("d")

    def row(self, index: int) -> ProcessCounters:
        """The row of one process, from 0, for writing."""
        start = index * self._width
        return ProcessCounters(self._cells[start : start + self._width], self._at)

    def total(self, instrument: Instrument) -> list[float]:
        """The instrument's numbers, each added up over all rows."""
        first = self._at[instrument.name]
        return [sum(self._cells[first + cell :: self._width]) for cell in range(instrument.cells)]
