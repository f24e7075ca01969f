"""Shared memory in which every child of the pool publishes its status, for the parent to read.

Each child has a slot of fixed fields on 8-byte boundaries, and each field has one writer. So there are no locks, and a
child that is killed at any moment blocks no other. A lane child, which works many jobs at once, has a slot for itself
and one for each of its lanes. Times are time.monotonic(), which is the same for all processes of a
machine. Beside the slots is the log of the latest crashes (crashes.py).

Where the pool has a runtime directory, the memory is a file there (boardfile.py). It outlives a pool that is killed as
a whole, and tells the next one what was worked: those attempts are in its crash log from the start. Without it nobody
knows that, and what the queue shows as lost counts as lost (losses.py).
"""

from __future__ import annotations

import enum
import math
import mmap
import os
import struct
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glassq.worker.boardfile import BoardFile, boot
from glassq.worker.crashes import (
    MARK,
    RECORD,
    SPARE_CRASHES,
    Crash,
    CrashLog,
    hashed,
    packed,
    shown,
)
from glassq.worker.metrics import new_counters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.metrics import ProcessCounters

# More plain children than one machine would run; the memory for them is 224 KiB.
MAX_SLOTS = 512
# The most lanes of a pool: what a tube's limit counts up to (bucket.py).
MAX_LANES = 4_000
# More jobs than they hold at a moment without working them: the next one, and those that are ended and not proven.
MAX_UNBEGUN = 1 << 14

# state, jobs worked, beat, started, deadline (0: none), attempt, delivery id, begun, job
_SLOT = struct.Struct("@qqdddq40sd48s")
_INT, _TIME = struct.Struct("@q"), struct.Struct("@d")
_STATE, _WORKED, _BEAT = 0, 8, 16
# After these fields: how many ended attempts the queue has not proven yet (see `Slot.unproven`), and the text of the
# problem that keeps the child from working.
_UNPROVEN = 184
_PROBLEM, _PROBLEM_SIZE = 192, 256
_SIZE = _PROBLEM + _PROBLEM_SIZE

# The memory begins with: what it is, its layout (hashed), and the start of the machine. Then comes a number that every
# process writes: see `Slot.excuse`.
_HEAD = struct.Struct("@8sq40s")
_UNBEGUN = _HEAD.size
# Then one number for each slot: the job that its child works, hashed (0: none). The marks of the crash log follow, so
# that one quick search finds both. Then come the slots, and the records of the crash log.
_CLAIMS = _UNBEGUN + _INT.size


class State(enum.IntEnum):
    """What a child is doing."""

    EMPTY = 0
    STARTING = 1
    CONNECTING = 2
    WAITING = 3
    WORKING = 4
    STOPPING = 5


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The status of one child, as it wrote it into its slot.

    `deadline` is when the parent must kill the child; 0: no attempt runs. `begun` is when the attempt began, in seconds
    since boot. `problem` is what keeps the child from working while it is STARTING or CONNECTING, or what blocks its
    event loop. `running` is how many attempts run. Of a lane child, the attempt is the one with the first deadline.
    """

    state: State
    worked: int
    job: str
    beat: float
    started: float
    deadline: float
    attempt: int
    delivery: str
    begun: float
    problem: str
    running: int = 0


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything is in the memory of a scoreboard.

    First come the slots of plain children, then those of lane children, then the lanes of each of these.
    """

    plain: int
    crews: int
    lanes: int

    @property
    def children(self) -> int:
        return self.plain + self.crews

    @property
    def count(self) -> int:
        return self.children + self.crews * self.lanes

    @property
    def crashes_kept(self) -> int:
        return self.count + SPARE_CRASHES

    def lanes_of(self, child: int) -> range:
        """The slots of this child's lanes; none for a plain child."""
        first = self.children + (child - self.plain) * self.lanes
        return range(first, first + self.lanes) if self.plain <= child < self.children else range(0)

    @property
    def crash_marks(self) -> int:
        return _CLAIMS + self.count * MARK.size

    @property
    def slots(self) -> int:
        return self.crash_marks + self.crashes_kept * MARK.size

    @property
    def crash_records(self) -> int:
        return self.slots + self.count * _SIZE

    @property
    def size(self) -> int:
        return self.crash_records + self.crashes_kept * RECORD.size

    def slot(self, index: int) -> int:
        return self.slots + index * _SIZE

    def head(self) -> bytes:
        """What the memory begins with. Another release may have another layout."""
        sizes = f"{self.crashes_kept} {self.plain} {self.crews} {self.lanes}"
        form = f"{_SLOT.format} {_UNPROVEN} {_PROBLEM} {_SIZE} {RECORD.format} {sizes} {list(State)}"
        return _HEAD.pack(b"glassq 1", hashed(form), packed(boot(), 40))

    def crashes(self, memory: mmap.mmap | bytes) -> CrashLog:
        return CrashLog(memory, self.crashes_kept, self.crash_marks, self.crash_records)


class Slot:
    """One child's slot, for writing.

    `parent` is the pid of the process that made it, `born` is when (time.monotonic()). `counters` are the child's.
    `lanes` are the slots of a lane child's lanes; a plain child has none, nor has a lane.
    """

    def __init__(
        self, memory: mmap.mmap, layout: _Layout, index: int, crashes: CrashLog, counters: ProcessCounters
    ) -> None:
        self.index = index
        self.lanes: Sequence[Slot] = ()
        self.crashes = crashes
        self.counters = counters
        self.parent = os.getpid()
        self._memory = memory
        self._layout = layout
        self._at = layout.slot(index)
        self._end_of_marks = layout.slots
        self._worked = self._unproven = 0
        self._state = State.EMPTY
        self._said = ""
        self.born = time.monotonic()

    def reset(self) -> None:
        """Called by the parent before it forks a child into this slot."""
        now = time.monotonic()
        self._write(_SLOT.pack(State.STARTING, 0, now, now, 0.0, 0, b"", 0.0, b""))
        self._state = State.STARTING
        self._claim(0)
        self._unproven = 0
        self._write(_INT.pack(0), _UNPROVEN)
        self.problem("")

    def clear(self) -> None:
        """Called by the parent when the child has died and its death is recorded."""
        self._write(_SLOT.pack(State.EMPTY, 0, 0.0, 0.0, 0.0, 0, b"", 0.0, b""))
        self._state = State.EMPTY
        self._claim(0)
        for lane in self.lanes:
            lane.clear()

    def beat(self) -> None:
        """Records a heartbeat. Called by the child's keeper thread."""
        self._write(_TIME.pack(time.monotonic()), _BEAT)

    def state(self, state: State) -> None:
        """Sets what the child is doing from now on."""
        if state is not self._state:
            self._state = state
            self._write(_INT.pack(state), _STATE)

    def worked(self, jobs: int) -> None:
        """Sets how many jobs a lane child has worked in its lanes."""
        self._write(_INT.pack(jobs), _WORKED)

    def unproven(self, number: int) -> None:
        """Sets how many jobs the child still holds whose attempts are over: their next forms are not proven yet."""
        if number != self._unproven:
            self._unproven = number
            self._write(_INT.pack(number), _UNPROVEN)

    @property
    def doing(self) -> State:
        """What this process last said that it does."""
        return self._state

    @property
    def said(self) -> str:
        """What this process last said that keeps it from working."""
        return self._said

    def problem(self, text: str) -> None:
        """Sets what keeps the child from working, for the parent to report. A long text is cut off."""
        self._said = text
        self._write(packed(text, _PROBLEM_SIZE).ljust(_PROBLEM_SIZE, b"\0"), _PROBLEM)

    def begin(self, job: str, delivery: str, attempt: int, deadline: float, begun: float = 0.0) -> None:
        """An attempt starts, at `begun` (seconds since boot). At `deadline` (monotonic) the parent kills the child."""
        now = time.monotonic()
        fields = (
            State.WORKING,
            self._worked,
            now,
            now,
            deadline,
            attempt,
            packed(delivery, 40),
            begun,
            packed(job, 48),
        )
        self._claim(hashed(job))
        self._write(_SLOT.pack(*fields))
        self._state = State.WORKING

    def end(self) -> None:
        """The attempt is over and settled."""
        self._worked += 1
        now = time.monotonic()
        self._write(_SLOT.pack(State.WAITING, self._worked, now, now, 0.0, 0, b"", 0.0, b""))
        self._state = State.WAITING
        self._claim(0)

    def may_be_lost(self, job: str) -> bool:
        """Whether an attempt at this job, which this child has just reserved, may have ended with its process.

        Quick; sometimes wrongly True, never wrongly False for an attempt that a slot of this pool said was begun.
        """
        return self._memory.find(MARK.pack(hashed(job)), _CLAIMS, self._end_of_marks) >= 0

    def claimed_elsewhere(self, job: str) -> bool:
        """Whether the slot of another child names this job, which this child has reserved.

        That child has died, or does not know yet that it has lost the job.
        """
        mark, start = MARK.pack(hashed(job)), _CLAIMS
        while (at := self._memory.find(mark, start, self._layout.crash_marks)) >= 0:
            index, misplaced = divmod(at - _CLAIMS, MARK.size)
            if not misplaced and index != self.index:
                return _status(self._memory, self._layout.slot(index)).job == job[:48]
            start = at + 1
        return False

    def excuse(self) -> bool:
        """Whether a job that the queue shows as lost, and nobody names, may be one that a dead child held unbegun.

        Each child that dies may hold one, so there are no more such jobs than deaths. Two children that ask at once may
        both take the last one.
        """
        left = int(_INT.unpack_from(self._memory, _UNBEGUN)[0])
        if left > 0:
            self._memory[_UNBEGUN : _UNBEGUN + _INT.size] = _INT.pack(left - 1)
        return left > 0

    def _claim(self, mark: int) -> None:
        start = _CLAIMS + self.index * MARK.size
        self._memory[start : start + MARK.size] = MARK.pack(mark)

    def _write(self, data: bytes, field: int = 0) -> None:
        # Not pack_into: it writes zeros first, and the parent kills a child whose heartbeat reads as 0.
        start = self._at + field
        self._memory[start : start + len(data)] = data


class Scoreboard:
    """All slots. Made by the parent before it forks.

    `shared_counters` are those of all processes of the pool, `counters` the parent's own. `parent` is its pid.
    `inherited` is the number of attempts that ended with the last pool. `slots` are those of all children, the plain
    ones first; `size` is the number of slots with those of lanes.
    """

    def __init__(self, slots: int = MAX_SLOTS, directory: str | None = None, *, crews: int = 0, lanes: int = 0) -> None:
        """Room for `slots` plain children, and for `crews` lane children with so many `lanes` each.

        `directory` is the pool's runtime directory (None: it has none).
        """
        self._layout = _Layout(slots, crews, lanes)
        self.parent = os.getpid()
        self.size = self._layout.count
        self._plain, self._first_slot = slots, self._layout.slots
        #: by slot: its bytes when it was last read, and what they say
        self._seen: dict[int, tuple[bytes, WorkerStatus]] = {}
        children = self._layout.children
        self.shared_counters = new_counters(children + 1)
        self.counters = self.shared_counters.row(children)
        self._make(BoardFile(directory))
        self.slots = [self._slot(index, self.shared_counters.row(index)) for index in range(children)]
        for slot in self.slots[slots:]:
            slot.lanes = [self._slot(index, slot.counters) for index in self._layout.lanes_of(slot.index)]

    def status(self, index: int) -> WorkerStatus:
        """The status that the child in this slot last wrote."""
        own = self._read(index)
        attempts = self._attempts(index) if index >= self._plain else ()
        if not attempts:
            return own
        first = min(attempts, key=lambda attempt: attempt.deadline)
        return replace(first, worked=own.worked, beat=own.beat, problem=own.problem, running=len(attempts))

    def attempts(self, index: int) -> list[WorkerStatus]:
        """The attempts that run in the child of this slot."""
        own = self._read(index)
        return [own] if own.state is State.WORKING else self._attempts(index)

    def died(self, index: int) -> None:
        """Called by the parent when the child of this slot has died, before `clear`.

        It may have held a job that it had not begun, and those whose attempts were over; each of its lanes may.
        """
        lanes = [lane for lane in self._layout.lanes_of(index) if self._state(lane) is not State.EMPTY]
        self._expect_unbegun(sum(1 + _unproven(self._memory, self._layout.slot(at)) for at in lanes or [index]))

    def _slot(self, index: int, counters: ProcessCounters) -> Slot:
        return Slot(self._memory, self._layout, index, self.crashes, counters)

    def _state(self, index: int) -> State:
        return State(_INT.unpack_from(self._memory, self._layout.slot(index))[0])

    def _attempts(self, index: int) -> list[WorkerStatus]:
        """Those of its lanes."""
        working = [lane for lane in self._layout.lanes_of(index) if self._state(lane) is State.WORKING]
        found = [self._read(lane) for lane in working]
        return [attempt for attempt in found if attempt.state is State.WORKING]

    def _read(self, index: int) -> WorkerStatus:
        # it is read far more often than it changes
        at = self._first_slot + index * _SIZE
        raw = self._memory[at : at + _SIZE]
        seen = self._seen.get(index)
        if seen is None or seen[0] != raw:
            seen = self._seen[index] = raw, _status(raw, 0)
        return seen[1]

    def _make(self, file: BoardFile) -> None:
        try:
            self._use(file.make(self._layout.size) or mmap.mmap(-1, self._layout.size))
            self._inherit(file.left(self._layout.size))
            file.publish()
        except OSError as error:
            file.give_up(error)
            # Nothing is inherited: if this pool's work cannot be told to the next one, nor could the last one's.
            self._use(mmap.mmap(-1, self._layout.size))

    def _use(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self.crashes = self._layout.crashes(memory)
        self.inherited = 0
        head = self._layout.head()
        memory[: len(head)] = head

    def _inherit(self, old: bytes) -> None:
        """Takes over the crashes that the last pool knew of, and those of the attempts that ended with it."""
        if not old.startswith(self._layout.head()):
            return
        before = self._layout.crashes(old)
        self.crashes.take_over(before)
        for mark, delivery, crash in self._ended_with(old):
            # its parent may have recorded this death, and not cleared the slot yet
            if not before.names(mark, delivery):
                self.crashes.add_marked(mark, delivery, crash)
                self.inherited += 1
        # a lane child holds jobs in its lanes only
        holders = [index for index in range(self._layout.count) if not self._layout.lanes_of(index)]
        states = [_INT.unpack_from(old, self._layout.slot(index))[0] for index in holders]
        if living := sum(state not in (State.EMPTY, State.STARTING) for state in states):
            # nor had the last pool seen all that the one before it left
            left = _INT.unpack_from(old, _UNBEGUN)[0]
            ended = sum(_unproven(old, self._layout.slot(index)) for index in range(self._layout.count))
            self._expect_unbegun(living + ended + max(0, left))

    def _ended_with(self, old: bytes) -> Iterator[tuple[int, str, Crash]]:
        """The attempts that were begun in the memory of another pool: mark of the job, delivery id, and the crash."""
        now = time.monotonic()
        for index in range(self._layout.count):
            (mark,) = MARK.unpack_from(old, _CLAIMS + index * MARK.size)
            state, _, beat, started, _, _, delivery, _, job = _SLOT.unpack_from(old, self._layout.slot(index))
            # a kill in the middle of `begin` leaves no job, or the beginning of its name
            whole = job[-1:] != b"\0" or hashed(shown(job)) == mark
            if state != State.WORKING or not whole:
                continue
            last, lasted = now - beat, beat - started
            if not (math.isfinite(last) and math.isfinite(lasted)):
                continue
            crash = Crash("with its pool", "", time.time() - min(max(0.0, last), now), min(max(0.0, lasted), now))
            yield mark, shown(delivery), crash

    def _expect_unbegun(self, more: int) -> None:
        (known,) = _INT.unpack_from(self._memory, _UNBEGUN)
        self._memory[_UNBEGUN : _UNBEGUN + _INT.size] = _INT.pack(min(known + more, MAX_UNBEGUN))


def _unproven(memory: mmap.mmap | bytes, at: int) -> int:
    (number,) = _INT.unpack_from(memory, at + _UNPROVEN)
    return max(0, int(number))


def _status(memory: mmap.mmap | bytes, at: int) -> WorkerStatus:
    state, worked, beat, started, deadline, attempt, delivery, begun, job = _SLOT.unpack_from(memory, at)
    problem = shown(memory[at + _PROBLEM : at + _SIZE], "utf-8")
    running = int(state == State.WORKING)
    return WorkerStatus(
        State(state), worked, shown(job), beat, started, deadline, attempt, shown(delivery), begun, problem, running
    )
