"""What /proc tells of processes (proc(5)). Where there is no /proc it tells nothing, and callers do without."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# Times of processes are counted in this, in seconds.
TICK = 1 / os.sysconf("SC_CLK_TCK")
# The states of a process that a signal or a debugger has stopped, and of one that has ended.
_STOPPED, _ENDED = frozenset("Tt"), frozenset("ZX")
# Where fields of /proc/PID/stat are, counted after the name in brackets.
_STATE, _PARENT, _GROUP, _USER, _SYSTEM, _BORN = 0, 1, 2, 11, 12, 19


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `cpu` is what all its threads have used, `born` when it began since boot; in seconds."""

    pid: int
    parent: int
    group: int
    state: str
    cpu: float
    born: float

    @property
    def stopped(self) -> bool:
        return self.state in _STOPPED

    @property
    def ended(self) -> bool:
        return self.state in _ENDED

    @property
    def identity(self) -> tuple[int, float]:
        """Tells it from another process that gets its pid later."""
        return self.pid, self.born


def seconds_since_boot() -> float:
    """Now, on the clock of `Process.born`."""
    # monotonic() stands still while the machine is suspended
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def look(pid: int) -> Process | None:
    """The process with this pid; None where there is none, or no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # the name may hold anything, brackets and spaces too
    fields = text.rpartition(")")[2].split()
    cpu = (int(fields[_USER]) + int(fields[_SYSTEM])) * TICK
    return Process(pid, int(fields[_PARENT]), int(fields[_GROUP]), fields[_STATE], cpu, int(fields[_BORN]) * TICK)


def table() -> dict[int, Process]:
    """All processes that we may see, by pid."""
    try:
        names = [path.name for path in _PROC.iterdir()]
    except OSError:
        return {}
    found = (look(int(name)) for name in names if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def children() -> set[int] | None:
    """Pids of our own children; None where the kernel does not list them. For a process with one thread."""
    path = _PROC / "self" / "task" / str(threading.get_native_id()) / "children"
    try:
        return {int(pid) for pid in path.read_text().split()}
    except OSError:
        return None


def variable(pid: int, name: str) -> str:
    """Of the environment that the process was started with; "" where that has none of this name."""
    try:
        environment = (_PROC / str(pid) / "environ").read_text("utf-8", "replace")
    except OSError:
        return ""
    pairs = (each.partition("=") for each in environment.split("\0"))
    return next((value for key, _, value in pairs if key == name), "")


def title(pid: int) -> str:
    """How ps shows it; "" for one that has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0 ").decode("utf-8", "replace")
    except OSError:
        return ""


def kill(process: Process) -> None:
    """SIGKILL for this very process; nothing where it has ended or we may not."""
    with suppress(OSError):
        # whoever gets the pid after this is not what the descriptor stands for
        descriptor = os.pidfd_open(process.pid)
        try:
            now = look(process.pid)
            if now is not None and now.identity == process.identity:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
