"""A slot of the scoreboard, as the child writes it that has it.

Each field has one writer. So there are no locks, and a child that is killed at any moment blocks no other.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from glassq.worker.crashes import MARK, hashed, packed
from glassq.worker.layout import (
    BEAT,
    CLAIMS,
    HANDLE_LENGTH,
    HANDLE_SIZE,
    INT,
    PROBLEM,
    PROBLEM_SIZE,
    SLOT,
    STATE,
    TIME,
    UNBEGUN,
    UNPROVEN,
    WORKED,
    State,
    read_handle,
    read_status,
)

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

    from glassq.metrics import ProcessCounters
    from glassq.worker.crashes import CrashLog
    from glassq.worker.layout import BoardLayout


class Slot:
    """One child's slot, for writing.

    `parent` is the pid of the process that made it, `born` is when (time.monotonic()). `counters` are the child's.
    `lanes` are the slots of a lane child's lanes; a plain child has none, nor has a lane.
    """

    def __init__(
        self, memory: mmap.mmap, layout: BoardLayout, index: int, crashes: CrashLog, counters: ProcessCounters
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
        self._handle = ""
        self.born = time.monotonic()

    def reset(self) -> None:
        """Called by the parent before it forks a child into this slot."""
        now = time.monotonic()
        self._write(SLOT.pack(State.STARTING, 0, now, now, 0.0, 0, b"", 0.0, b""))
        self._state = State.STARTING
        self._claim(0)
        self._unproven = 0
        self._write(INT.pack(0), UNPROVEN)
        self.problem("")

    def clear(self) -> None:
        """Called by the parent when the child has died and its death is recorded."""
        self._write(SLOT.pack(State.EMPTY, 0, 0.0, 0.0, 0.0, 0, b"", 0.0, b""))
        self._state = State.EMPTY
        self._claim(0)
        for lane in self.lanes:
            lane.clear()

    def beat(self) -> None:
        """Records a heartbeat. Called by the child's keeper thread."""
        self._write(TIME.pack(time.monotonic()), BEAT)

    def state(self, state: State) -> None:
        """Sets what the child is doing from now on."""
        if state is not self._state:
            self._state = state
            self._write(INT.pack(state), STATE)

    def worked(self, jobs: int) -> None:
        """Sets how many jobs a lane child has worked in its lanes."""
        self._write(INT.pack(jobs), WORKED)

    def unproven(self, number: int) -> None:
        """Sets how many jobs the child still holds whose attempts are over: their next forms are not proven yet."""
        if number != self._unproven:
            self._unproven = number
            self._write(INT.pack(number), UNPROVEN)

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
        self._write(packed(text, PROBLEM_SIZE).ljust(PROBLEM_SIZE, b"\0"), PROBLEM)

    def begin(
        self, job: str, delivery: str, attempt: int, deadline: float, begun: float = 0.0, handle: str = ""
    ) -> None:
        """An attempt starts, at `begun` (seconds since boot). At `deadline` (monotonic) the parent kills the child.

        With `handle` the job can be given back, should this process die (`left_behind`).
        """
        self._leave(handle)
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
        self._write(SLOT.pack(*fields))
        self._state = State.WORKING

    def end(self) -> None:
        """The attempt is over and settled."""
        self._worked += 1
        now = time.monotonic()
        self._write(SLOT.pack(State.WAITING, self._worked, now, now, 0.0, 0, b"", 0.0, b""))
        self._state = State.WAITING
        self._claim(0)
        self._leave("")

    def left_behind(self) -> str:
        """The handle of the job in hand of the last process that had this slot, if it died over it; else ""."""
        handle = read_handle(self._memory, self._layout.handle(self.index))
        self._handle = handle
        self._leave("")
        return handle

    def may_be_lost(self, job: str) -> bool:
        """Whether an attempt at this job, which this child has just reserved, may have ended with its process.

        Quick; sometimes wrongly True, never wrongly False for an attempt that a slot of this pool said was begun.
        """
        return self._find(job, CLAIMS, self._end_of_marks) >= 0

    def claimed_elsewhere(self, job: str) -> bool:
        """Whether the slot of another child names this job, which this child has reserved.

        That child has died, or does not know yet that it has lost the job.
        """
        start = CLAIMS
        while (at := self._find(job, start, self._layout.crash_marks)) >= 0:
            index, misplaced = divmod(at - CLAIMS, MARK.size)
            if not misplaced and index != self.index:
                return read_status(self._memory, self._layout.slot(index)).job == job[:48]
            start = at + 1
        return False

    def excuse(self) -> bool:
        """Whether a job that the queue shows as lost, and nobody names, may be one that a dead child held unbegun.

        Each child that dies may hold one, so there are no more such jobs than deaths. Two children that ask at once may
        both take the last one.
        """
        left = int(INT.unpack_from(self._memory, UNBEGUN)[0])
        if left > 0:
            self._memory[UNBEGUN : UNBEGUN + INT.size] = INT.pack(left - 1)
        return left > 0

    def _leave(self, handle: str) -> None:
        if handle == self._handle:
            return
        self._handle = handle
        data, at = handle.encode("ascii", "replace"), self._layout.handle(self.index)
        fits = len(data) <= HANDLE_SIZE - HANDLE_LENGTH.size
        # no length before the whole of it is there
        self._memory[at : at + HANDLE_LENGTH.size] = HANDLE_LENGTH.pack(0)
        if data and fits:
            start = at + HANDLE_LENGTH.size
            self._memory[start : start + len(data)] = data
            self._memory[at : at + HANDLE_LENGTH.size] = HANDLE_LENGTH.pack(len(data))

    def _find(self, job: str, start: int, end: int) -> int:
        """Where the job's mark is in this part of the memory; -1: nowhere."""
        mark = MARK.pack(hashed(job))
        # it begins with a byte that is not 0, as nearly all others are: a search for one byte is the quickest
        at = self._memory.find(mark[:1], start, end)
        while at >= 0 and self._memory[at : at + MARK.size] != mark:
            at = self._memory.find(mark[:1], at + 1, end)
        return at

    def _claim(self, mark: int) -> None:
        start = CLAIMS + self.index * MARK.size
        self._memory[start : start + MARK.size] = MARK.pack(mark)

    def _write(self, data: bytes, field: int = 0) -> None:
        # Not pack_into: it writes zeros first, and the parent kills a child whose heartbeat reads as 0.
        start = self._at + field
        self._memory[start : start + len(data)] = data
