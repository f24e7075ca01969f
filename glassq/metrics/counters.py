"""Counters of all processes of one program, in memory they share.

The memory is made before the fork. Each process writes a row of its own, so there is no lock between processes, and a
process that is killed at any moment blocks no other. Its counts stay: the next process with this row adds to them. So
sums only grow, as Prometheus expects, however often children are replaced.
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
    """Number of events since the program started: one number, or one for each of the `values` of `label`."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)

    @property
    def cells(self) -> int:
        """The number of cells it takes."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations in seconds, or other sizes; `buckets` are the upper bounds of its buckets, ascending."""

    name: str
    help: str
    buckets: tuple[float, ...]

    @property
    def cells(self) -> int:
        """The number of cells it takes: one for each bucket, one for values above all of them, and one for the sum."""
        return len(self.buckets) + 2


@dataclass(frozen=True, slots=True)
class SharedGauge:
    """A number that a process sets and others read; the rows are added up."""

    name: str
    help: str
    cells: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class SharedPeak:
    """Numbers of which the one farthest from 0 counts, over all rows and the whole time; 0: there was none.

    A time since 1970 is one as well: the latest counts. `size` is how many numbers.
    """

    name: str
    size: int = 1

    @property
    def cells(self) -> int:
        """The number of cells it takes."""
        return self.size


@dataclass(frozen=True, slots=True)
class SharedLatest:
    """A number of which the newest counts, over all rows: a cell for its time, since 1970, and one for the number."""

    name: str
    cells: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is determined at each scrape; one for each combination of label values, if there are labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


Shown = Counter | Histogram | SharedGauge
Instrument = Shown | SharedPeak | SharedLatest


class ProcessCounters:
    """One row: what one process counts in all of its threads. If it is made before the fork, only the child uses it."""

    def __init__(self, cells: memoryview[float], at: dict[str, int]) -> None:
        self._cells = cells
        self._at = at
        # adding is a read and a write, which two threads must not mix
        self._adding = threading.Lock()

    def count(self, counter: Counter, value: str = "", by: float = 1.0) -> None:
        """Adds `by` to the counter. Raises ValueError for a label value that the counter does not have."""
        cell = self._at[counter.name] + counter.values.index(value)
        with self._adding:
            self._cells[cell] += by

    def observe(self, histogram: Histogram, *seconds: float) -> None:
        """Records durations."""
        buckets, first = histogram.buckets, self._at[histogram.name]
        total = first + len(buckets) + 1
        with self._adding:
            for each in seconds:
                self._cells[first + bisect_left(buckets, each)] += 1.0
                self._cells[total] += each

    def set(self, gauge: SharedGauge, number: float) -> None:
        """Sets this process's part of the gauge."""
        self._cells[self._at[gauge.name]] = number

    def reach(self, peak: SharedPeak, number: float, place: int = 0) -> None:
        """Raises this one of the peak's numbers, if `number` is farther from 0."""
        cell = self._at[peak.name] + place
        if abs(number) > abs(self._cells[cell]):
            self._cells[cell] = number

    def note(self, latest: SharedLatest, number: float, at: float) -> None:
        """The newest number now, and its time, since 1970."""
        cell = self._at[latest.name]
        self._cells[cell + 1] = number
        self._cells[cell] = at


class SharedCounters:
    """All rows of a program. Made by the parent before it forks."""

    def __init__(self, instruments: Sequence[Instrument], rows: int) -> None:
        #: those that Prometheus is shown
        self.instruments = [each for each in instruments if not isinstance(each, SharedPeak | SharedLatest)]
        self.rows = rows
        self._at: dict[str, int] = {}
        self._width = 0
        for instrument in instruments:
            self._at[instrument.name] = self._width
            self._width += instrument.cells
        self._cells = memoryview(mmap.mmap(-1, max(1, rows * self._width) * _CELL)).cast("d")

    def row(self, index: int) -> ProcessCounters:
        """The row of one process, from 0, for writing."""
        start = index * self._width
        return ProcessCounters(self._cells[start : start + self._width], self._at)

    def total(self, instrument: Shown) -> list[float]:
        """The instrument's numbers, each summed over all rows."""
        return [sum(column) for column in self._columns(instrument)]

    def peaks(self, peak: SharedPeak) -> list[float]:
        """The peak's numbers."""
        return [max(column, key=abs) for column in self._columns(peak)]

    def latest(self, latest: SharedLatest) -> float | None:
        """The newest number; None: there was none."""
        times, numbers = self._columns(latest)
        at, number = max(zip(times, numbers, strict=True))
        return number if at else None

    def _columns(self, instrument: Instrument) -> list[memoryview[float]]:
        first = self._at[instrument.name]
        return [self._cells[first + cell :: self._width] for cell in range(instrument.cells)]
