"""Shared memory in which every child of the pool says what it does, and the parent reads it.

One slot per child, of fixed fields on 8-byte boundaries, each written by one side only: no locks, so a child that is
killed in the middle of anything can hold up nobody. Times are time.monotonic(), which all processes of a machine share.
Beside the slots is a ring of the latest deaths: the parent alone knows what ended a child, and the child that gets its
job next puts that into the delivery's story.
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

from glassq.worker.metrics import new_board

if TYPE_CHECKING:
    from glassq.metrics import ProcessCounters

# More children than one machine would run; the memory is 56 KiB.
MAX_SLOTS = 128

# state, jobs worked, beat, started, deadline (0: none), attempt, delivery id, begun, job
_SLOT = struct.Struct("@qqdddq40sd48s")
_INT, _TIME = struct.Struct("@q"), struct.Struct("@d")
_STATE, _BEAT = 0, 16
# Behind these fields is what keeps the child from working, as text.
_PROBLEM, _PROBLEM_SIZE = 192, 256
_SIZE = _PROBLEM + _PROBLEM_SIZE

# So many deaths are remembered. Each job is buried after a few, so it is told of dozens that die at once.
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
    """What one slot says.

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
    """A child that died in an attempt: `how` ("SIGKILL", "exit 7"), and `why` where the parent knows more.

    `at` is in seconds since 1970, `duration` of the attempt in seconds.
    """

    how: str
    why: str
    at: float
    duration: float


class CrashLog:
    """The latest deaths. The parent adds, the children read."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._next = 0

    def add(self, job: str, delivery: str, how: str, why: str, duration: float) -> None:
        """A child died that worked this delivery, out of this job."""
        start = self._next * _CRASH_SIZE
        packed = _CRASH.pack(_hashed(job), time.time(), duration, _text(delivery, 40), _text(how, 16), _text(why, 48))
        # the job last: a reader never takes half a record for the one it looks for
        self._memory[start : start + 8] = bytes(8)
        self._memory[start + 8 : start + len(packed)] = packed[8:]
        self._memory[start : start + 8] = packed[:8]
        self._next = (self._next + 1) % MAX_CRASHES

    def of(self, job: str, delivery: str) -> list[Crash]:
        """Who died of this delivery, out of this very job; oldest first."""
        found = []
        for index in range(MAX_CRASHES):
            record = _CRASH.unpack_from(self._memory, index * _CRASH_SIZE)
            if record[0] == _hashed(job) and _shown(record[3]) == delivery:
                found.append(Crash(_shown(record[4]), _shown(record[5]), record[1], record[2]))
        return sorted(found, key=lambda death: death.at)


class Slot:
    """One child's place on the scoreboard, for writing. `parent` is the pid of the process that made it.

    `tally` is for what it counts.
    """

    def __init__(self, memory: mmap.mmap, index: int, crashes: CrashLog, tally: ProcessCounters) -> None:
        self.index = index
        self.crashes = crashes
        self.tally = tally
        self.parent = os.getpid()
        self._memory = memory
        self._at = index * _SIZE
        self._worked = 0

    def reset(self) -> None:
        """Called by the parent before it forks a child into this slot."""
        now = time.monotonic()
        self._write(_SLOT.pack(State.STARTING, 0, now, now, 0.0, 0, b"", 0.0, b""))
        self.problem("")

    def clear(self) -> None:
        """Called by the parent when the slot's child is gone for good."""
        self._write(_SLOT.pack(State.EMPTY, 0, 0.0, 0.0, 0.0, 0, b"", 0.0, b""))

    def beat(self) -> None:
        """The child lives. Called by its keeper thread."""
        self._write(_TIME.pack(time.monotonic()), _BEAT)

    def state(self, state: State) -> None:
        """What the child does from now on."""
        self._write(_INT.pack(state), _STATE)

    def problem(self, text: str) -> None:
        """What keeps the child from working now, for the parent to tell. Its end may be cut off."""
        self._write(_text(text, _PROBLEM_SIZE).ljust(_PROBLEM_SIZE, b"\0"), _PROBLEM)

    def begin(self, job: str, delivery: str, attempt: int, deadline: float, begun: float = 0.0) -> None:
        """An attempt starts, at `begun` (seconds since boot).

        At `deadline` (monotonic) the parent ends it the hard way.
        """
        now = time.monotonic()
        fields = (State.WORKING, self._worked, now, now, deadline, attempt, _text(delivery, 40), begun, _text(job, 48))
        self._write(_SLOT.pack(*fields))

    def end(self) -> None:
        """The attempt is over and acted on."""
        self._worked += 1
        now = time.monotonic()
        self._write(_SLOT.pack(State.WAITING, self._worked, now, now, 0.0, 0, b"", 0.0, b""))

    def claimed_elsewhere(self, job: str) -> bool:
        """Whether another child says that it works this job.

        Whoever has it reserved knows better: that one has died, or has yet to learn that the job was taken from it.
        """
        others = set(range(len(self._memory) // _SIZE)) - {self.index}
        return any(_card(self._memory, index).job == job[:48] for index in others)

    def _write(self, packed: bytes, field: int = 0) -> None:
        # Not pack_into: it fills the place with zeros first, and a beat that reads as 0 has the child killed.
        start = self._at + field
        self._memory[start : start + len(packed)] = packed


class Scoreboard:
    """All slots. Made by the parent before it forks.

    `counted` is what all processes of the pool count; `tally` the parent's own part of it. `parent` is its pid.
    """

    def __init__(self, slots: int = MAX_SLOTS) -> None:
        self._memory = mmap.mmap(-1, slots * _SIZE)
        self.crashes = CrashLog(mmap.mmap(-1, MAX_CRASHES * _CRASH_SIZE))
        self.parent = os.getpid()
        self.counted = new_board(slots + 1)
        self.tally = self.counted.row(slots)
        self.slots = [Slot(self._memory, index, self.crashes, self.counted.row(index)) for index in range(slots)]

    def card(self, index: int) -> WorkerStatus:
        """What the child in this slot last said."""
        return _card(self._memory, index)


def _card(memory: mmap.mmap, index: int) -> WorkerStatus:
    at = index * _SIZE
    state, worked, beat, started, deadline, attempt, delivery, begun, job = _SLOT.unpack_from(memory, at)
    problem = _shown(memory[at + _PROBLEM : at + _SIZE], "utf-8")
    return WorkerStatus(
        State(state), worked, _shown(job), beat, started, deadline, attempt, _shown(delivery), begun, problem
    )


def _hashed(job: str) -> int:
    """A job's reference as one number, which one store writes; never 0."""
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=8).digest()) >> 1 | 1


def _text(text: str, size: int) -> bytes:
    return text.encode("utf-8", "replace")[:size]


def _shown(packed: bytes, encoding: str = "ascii") -> str:
    return packed.rstrip(b"\0").decode(encoding, "replace")
