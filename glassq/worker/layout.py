"""Where everything is in the shared memory of a scoreboard, and what a slot of it says.

Each slot has fixed fields on 8-byte boundaries. Times are time.monotonic(), which is the same for all processes of a
machine.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.worker.boardfile import boot
from glassq.worker.crashes import MARK, RECORD, SPARE_CRASHES, CrashLog, hashed, packed, shown

if TYPE_CHECKING:
    import mmap

# state, jobs worked, beat, started, deadline (0: none), attempt, delivery id, begun, job
SLOT = struct.Struct("@qqdddq40sd48s")
INT, TIME = struct.Struct("@q"), struct.Struct("@d")
STATE, WORKED, BEAT = 0, 8, 16
# After these fields: how many ended attempts the queue has not proven yet (see `Slot.unproven`), and the text of the
# problem that keeps the child from working.
UNPROVEN = 184
PROBLEM, PROBLEM_SIZE = 192, 256
SIZE = PROBLEM + PROBLEM_SIZE

# After the crash log: for each slot, the length of the handle that it has left, and the handle (see `Slot.begin`). A
# receipt handle of SQS is some hundred bytes, and 1 KiB at most.
HANDLE_LENGTH = struct.Struct("@q")
HANDLE_SIZE = 1536

# The memory begins with: what it is, its layout (hashed), and the start of the machine. Then comes a number that every
# process writes: see `Slot.excuse`.
_HEAD = struct.Struct("@8sq40s")
UNBEGUN = _HEAD.size
# Then one number for each slot: the job that its child works, hashed (0: none). The marks of the crash log follow, so
# that one quick search finds both. Then come the slots, and the records of the crash log.
CLAIMS = UNBEGUN + INT.size


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
class BoardLayout:
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
        return CLAIMS + self.count * MARK.size

    @property
    def slots(self) -> int:
        return self.crash_marks + self.crashes_kept * MARK.size

    @property
    def crash_records(self) -> int:
        return self.slots + self.count * SIZE

    @property
    def handles(self) -> int:
        return self.crash_records + self.crashes_kept * RECORD.size

    @property
    def size(self) -> int:
        return self.handles + self.count * HANDLE_SIZE

    def handle(self, index: int) -> int:
        return self.handles + index * HANDLE_SIZE

    def slot(self, index: int) -> int:
        return self.slots + index * SIZE

    def head(self) -> bytes:
        """What the memory begins with. Another release may have another layout."""
        sizes = f"{self.crashes_kept} {self.plain} {self.crews} {self.lanes}"
        form = f"{SLOT.format} {UNPROVEN} {PROBLEM} {SIZE} {RECORD.format} {HANDLE_SIZE} {sizes} {list(State)}"
        return _HEAD.pack(b"glassq 1", hashed(form), packed(boot(), 40))

    def crashes(self, memory: mmap.mmap | bytes) -> CrashLog:
        return CrashLog(memory, self.crashes_kept, self.crash_marks, self.crash_records)


def read_handle(memory: mmap.mmap | bytes, at: int) -> str:
    (length,) = HANDLE_LENGTH.unpack_from(memory, at)
    if not 0 < length <= HANDLE_SIZE - HANDLE_LENGTH.size:
        return ""
    start = at + HANDLE_LENGTH.size
    return bytes(memory[start : start + length]).decode("ascii", "replace")


def read_unproven(memory: mmap.mmap | bytes, at: int) -> int:
    (number,) = INT.unpack_from(memory, at + UNPROVEN)
    return max(0, int(number))


def read_status(memory: mmap.mmap | bytes, at: int) -> WorkerStatus:
    state, worked, beat, started, deadline, attempt, delivery, begun, job = SLOT.unpack_from(memory, at)
    problem = shown(memory[at + PROBLEM : at + SIZE], "utf-8")
    running = int(state == State.WORKING)
    return WorkerStatus(
        State(state), worked, shown(job), beat, started, deadline, attempt, shown(delivery), begun, problem, running
    )
