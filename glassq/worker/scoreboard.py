"""Shared memory in which every child of the pool publishes its status, for the parent to read.

Each child has a slot of fixed fields on 8-byte boundaries, and each field has one writer. So there are no locks, and a
child that is killed at any moment blocks no other. A lane child, which works many jobs at once, has a slot for itself
and one for each of its lanes. layout.py says what is where, slots.py writes. Beside the slots is the log of the latest
crashes (crashes.py).

Where the pool has a runtime directory, the memory is a file there (boardfile.py). It outlives a pool that is killed as
a whole, and tells the next one what was worked: those attempts are in its crash log from the start. Without it nobody
knows that, and what the queue shows as lost counts as lost (losses.py).
"""

from __future__ import annotations

import math
import mmap
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from glassq.worker.boardfile import BoardFile
from glassq.worker.crashes import MARK, Crash, hashed, shown
from glassq.worker.layout import CLAIMS, INT, SIZE, SLOT, UNBEGUN, BoardLayout, State, read_status, read_unproven
from glassq.worker.metrics import new_counters
from glassq.worker.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.metrics import ProcessCounters
    from glassq.worker.layout import WorkerStatus

# More plain children than one machine would run; the memory for them is 224 KiB.
MAX_SLOTS = 512
# The most lanes of a pool: what a tube's limit counts up to (bucket.py).
MAX_LANES = 4_000
# More jobs than they hold at a moment without working them: the next one, and those that are ended and not proven.
MAX_UNBEGUN = 1 << 14


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
        self._layout = BoardLayout(slots, crews, lanes)
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
        self._expect_unbegun(sum(1 + read_unproven(self._memory, self._layout.slot(at)) for at in lanes or [index]))

    def _slot(self, index: int, counters: ProcessCounters) -> Slot:
        return Slot(self._memory, self._layout, index, self.crashes, counters)

    def _state(self, index: int) -> State:
        return State(INT.unpack_from(self._memory, self._layout.slot(index))[0])

    def _attempts(self, index: int) -> list[WorkerStatus]:
        """Those of its lanes."""
        working = [lane for lane in self._layout.lanes_of(index) if self._state(lane) is State.WORKING]
        found = [self._read(lane) for lane in working]
        return [attempt for attempt in found if attempt.state is State.WORKING]

    def _read(self, index: int) -> WorkerStatus:
        # it is read far more often than it changes
        at = self._first_slot + index * SIZE
        raw = self._memory[at : at + SIZE]
        seen = self._seen.get(index)
        if seen is None or seen[0] != raw:
            seen = self._seen[index] = raw, read_status(raw, 0)
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
        # their handles: whoever gets the slot gives the job back
        memory, layout = self._memory, self._layout
        memory[layout.handles : layout.size] = old[layout.handles : layout.size]
        # a lane child holds jobs in its lanes only
        holders = [index for index in range(self._layout.count) if not self._layout.lanes_of(index)]
        states = [INT.unpack_from(old, self._layout.slot(index))[0] for index in holders]
        if living := sum(state not in (State.EMPTY, State.STARTING) for state in states):
            # nor had the last pool seen all that the one before it left
            left = INT.unpack_from(old, UNBEGUN)[0]
            ended = sum(read_unproven(old, self._layout.slot(index)) for index in range(self._layout.count))
            self._expect_unbegun(living + ended + max(0, left))

    def _ended_with(self, old: bytes) -> Iterator[tuple[int, str, Crash]]:
        """The attempts that were begun in the memory of another pool: mark of the job, delivery id, and the crash."""
        now = time.monotonic()
        for index in range(self._layout.count):
            (mark,) = MARK.unpack_from(old, CLAIMS + index * MARK.size)
            state, _, beat, started, _, _, delivery, _, job = SLOT.unpack_from(old, self._layout.slot(index))
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
        (known,) = INT.unpack_from(self._memory, UNBEGUN)
        self._memory[UNBEGUN : UNBEGUN + INT.size] = INT.pack(min(known + more, MAX_UNBEGUN))
