"""Shared memory in which every child of the pool publishes its status, for the parent to read.

Each child has a slot of fixed fields on 8-byte boundaries, and each field has one writer. So there are no locks, and a
child that is killed at any moment blocks no other. Times are time.monotonic(), which is the same for all processes of a
machine. Beside the slots is a ring of the latest crashes: only the parent knows what ended a child, and the child that
gets the job next puts that into the delivery as evidence.
"""

from __future__ import annotations

import enum
import hashlib
import mmap
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.worker.metrics import new_counters

if TYPE_CHECKING:
    from glassq.metrics import ProcessCounters

# More children than one machine would run; the memory for them is 56 KiB.
MAX_SLOTS = 128

# state, jobs worked, beat, started, deadline (0: none), attempt, delivery id, begun, job
_SLOT = struct.Struct("@qqdddq40sd48s")
_INT, _TIME = struct.Struct("@q"), struct.Struct("@d")
_STATE, _BEAT = 0, 16
# After these fields: the text of the problem that keeps the child from working.
_PROBLEM, _PROBLEM_SIZE = 192, 256
_SIZE = _PROBLEM + _PROBLEM_SIZE

# Beside the slots, one number for each: the job that its child works, hashed (0: none), for a quick search.
_CLAIM = 8
# A job may come back from a pool that died as a whole, whose crashes nobody has recorded: for so long after our own
# start, in seconds, every job is looked at.
YOUNG = 60.0

# The number of crashes in the ring. A job is buried after a few, so this is enough for dozens of jobs at once.
MAX_CRASHES = 64
# job (hashed), when (seconds since 1970, for people), seconds into the attempt, delivery id, how, why
_CRASH = struct.Struct("@qdd40s16s48s")
_CRASH_SIZE = 128


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
    since boot. `problem` is what keeps the child from working while it is STARTING or CONNECTING.
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


@dataclass(frozen=True, slots=True)
class Crash:
    """The death of a child in an attempt: `how` ("SIGKILL", "exit 7"), and `why` if the parent knows the cause.

    `at` is in seconds since 1970, `duration` of the attempt in seconds.
    """

    how: str
    why: str
    at: float
    duration: float


class CrashLog:
    """The latest crashes. The parent adds them, the children read them."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._next = 0

    def add(self, job: str, delivery: str, how: str, why: str, duration: float) -> None:
        """Adds the death of a child that worked this delivery, out of this job."""
        start = self._next * _CRASH_SIZE
        packed = _CRASH.pack(_hashed(job), time.time(), duration, _text(delivery, 40), _text(how, 16), _text(why, 48))
        # the job last: a reader that looks for it never finds half a record
        self._memory[start : start + 8] = bytes(8)
        self._memory[start + 8 : start + len(packed)] = packed[8:]
        self._memory[start : start + 8] = packed[:8]
        self._next = (self._next + 1) % MAX_CRASHES

    def may_name(self, job: str) -> bool:
        """Whether there may be a crash out of this job. Quick; sometimes wrongly True, never wrongly False."""
        return self._memory.find(_INT.pack(_hashed(job))) >= 0

    def of(self, job: str, delivery: str) -> list[Crash]:
        """The crashes of this delivery out of this very job, oldest first."""
        found = []
        for index in range(MAX_CRASHES):
            record = _CRASH.unpack_from(self._memory, index * _CRASH_SIZE)
            if record[0] == _hashed(job) and _shown(record[3]) == delivery:
                found.append(Crash(_shown(record[4]), _shown(record[5]), record[1], record[2]))
        return sorted(found, key=lambda crash: crash.at)


class Slot:
    """One child's slot, for writing. `parent` is the pid of the process that made it, `counters` are the child's."""

    def __init__(
        self, memory: mmap.mmap, claims: mmap.mmap, index: int, crashes: CrashLog, counters: ProcessCounters
    ) -> None:
        self.index = index
        self.crashes = crashes
        self.counters = counters
        self.parent = os.getpid()
        self._memory = memory
        self._claims = claims
        self._at = index * _SIZE
        self._worked = 0
        self._state = State.EMPTY
        self._young_until = time.monotonic() + YOUNG

    def reset(self) -> None:
        """Called by the parent before it forks a child into this slot."""
        now = time.monotonic()
        self._write(_SLOT.pack(State.STARTING, 0, now, now, 0.0, 0, b"", 0.0, b""))
        self._state = State.STARTING
        self._claim(0)
        self.problem("")

    def clear(self) -> None:
        """Called by the parent when the child has died and its death is recorded."""
        self._write(_SLOT.pack(State.EMPTY, 0, 0.0, 0.0, 0.0, 0, b"", 0.0, b""))
        self._state = State.EMPTY
        self._claim(0)

    def beat(self) -> None:
        """Records a heartbeat. Called by the child's keeper thread."""
        self._write(_TIME.pack(time.monotonic()), _BEAT)

    def state(self, state: State) -> None:
        """Sets what the child is doing from now on."""
        if state is not self._state:
            self._state = state
            self._write(_INT.pack(state), _STATE)

    def problem(self, text: str) -> None:
        """Sets what keeps the child from working, for the parent to report. A long text is cut off."""
        self._write(_text(text, _PROBLEM_SIZE).ljust(_PROBLEM_SIZE, b"\0"), _PROBLEM)

    def begin(self, job: str, delivery: str, attempt: int, deadline: float, begun: float = 0.0) -> None:
        """An attempt starts, at `begun` (seconds since boot). At `deadline` (monotonic) the parent kills the child."""
        now = time.monotonic()
        fields = (State.WORKING, self._worked, now, now, deadline, attempt, _text(delivery, 40), begun, _text(job, 48))
        self._claim(_hashed(job))
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

        Quick. Never wrongly False for an attempt that a slot of this pool said was begun, or for one of another pool
        that died shortly before this one started.
        """
        packed = _INT.pack(_hashed(job))
        return self._claims.find(packed) >= 0 or self.crashes.may_name(job) or time.monotonic() < self._young_until

    def claimed_elsewhere(self, job: str) -> bool:
        """Whether the slot of another child names this job, which this child has reserved.

        That child has died, or does not know yet that it has lost the job.
        """
        others = set(range(len(self._memory) // _SIZE)) - {self.index}
        return any(_status(self._memory, index).job == job[:48] for index in others)

    def _claim(self, hashed: int) -> None:
        start = self.index * _CLAIM
        self._claims[start : start + _CLAIM] = _INT.pack(hashed)

    def _write(self, packed: bytes, field: int = 0) -> None:
        # Not pack_into: it writes zeros first, and the parent kills a child whose heartbeat reads as 0.
        start = self._at + field
        self._memory[start : start + len(packed)] = packed


class Scoreboard:
    """All slots. Made by the parent before it forks.

    `shared_counters` are those of all processes of the pool, `counters` the parent's own. `parent` is its pid.
    """

    def __init__(self, slots: int = MAX_SLOTS) -> None:
        self._memory = mmap.mmap(-1, slots * _SIZE)
        claims = mmap.mmap(-1, slots * _CLAIM)
        self.crashes = CrashLog(mmap.mmap(-1, MAX_CRASHES * _CRASH_SIZE))
        self.parent = os.getpid()
        self.shared_counters = new_counters(slots + 1)
        self.counters = self.shared_counters.row(slots)
        self.slots = [
            Slot(self._memory, claims, index, self.crashes, self.shared_counters.row(index)) for index in range(slots)
        ]

    def status(self, index: int) -> WorkerStatus:
        """The status that the child in this slot last wrote."""
        return _status(self._memory, index)


def _status(memory: mmap.mmap, index: int) -> WorkerStatus:
    at = index * _SIZE
    state, worked, beat, started, deadline, attempt, delivery, begun, job = _SLOT.unpack_from(memory, at)
    problem = _shown(memory[at + _PROBLEM : at + _SIZE], "utf-8")
    return WorkerStatus(
        State(state), worked, _shown(job), beat, started, deadline, attempt, _shown(delivery), begun, problem
    )


def _hashed(job: str) -> int:
    """A job's reference as a number that one store can write; never 0."""
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=8).digest()) >> 1 | 1


def _text(text: str, size: int) -> bytes:
    return text.encode("utf-8", "replace")[:size]


def _shown(packed: bytes, encoding: str = "ascii") -> str:
    return packed.rstrip(b"\0").decode(encoding, "replace")
