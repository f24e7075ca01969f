"""Reads processes from /proc (proc(5)). Without /proc the answers are empty, and callers do without them."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# prctl(2): the signal that we get when our parent ends; orphans among our descendants become our children.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# The unit of the kernel's process times, in seconds.
TICK = 1 / os.sysconf("SC_CLK_TCK")
# The states of a stopped process (by a signal or a debugger), and of one that has ended.
_STOPPED, _ENDED = frozenset("Tt"), frozenset("ZX")
# Positions of fields in /proc/PID/stat, counted after the name in brackets.
_STATE, _PARENT, _GROUP, _USER, _SYSTEM, _BORN = 0, 1, 2, 11, 12, 19


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `cpu` is the CPU time of all its threads, `born` its start since boot; in seconds."""

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
        """Differs from that of another process that gets the same pid later."""
        return self.pid, self.born


def seconds_since_boot() -> float:
    """The time now, on the clock of `Process.born`."""
    # monotonic() stops while the machine is suspended
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def stat(pid: int) -> Process | None:
    """The process with this pid; None if there is none, or no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # the name may contain anything, even brackets and spaces
    fields = text.rpartition(")")[2].split()
    cpu = (int(fields[_USER]) + int(fields[_SYSTEM])) * TICK
    return Process(pid, int(fields[_PARENT]), int(fields[_GROUP]), fields[_STATE], cpu, int(fields[_BORN]) * TICK)


def table() -> dict[int, Process]:
    """All visible processes, by pid."""
    try:
        names = [path.name for path in _PROC.iterdir()]
    except OSError:
        return {}
    found = (stat(int(name)) for name in names if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def tick_of(seconds: float) -> float:
    """The start of the kernel's tick that this time is in: `Process.born` of all that are born in that tick."""
    return int(seconds / TICK) * TICK


def children() -> set[int] | None:
    """Pids of our own children, whichever thread started them; None if the kernel does not list them."""
    threads = _PROC / "self" / "task"
    try:
        found = _started_by(threads / str(threading.get_native_id()))
        others = [path for path in threads.iterdir() if path.name != str(threading.get_native_id())]
    except OSError:
        return None
    for path in others:
        # it may have ended meanwhile
        with suppress(OSError):
            found |= _started_by(path)
    return found


def _started_by(thread: Path) -> set[int]:
    return {int(pid) for pid in (thread / "children").read_text().split()}


def has_children() -> bool:
    """Whether any thread of ours has a child that nobody has waited for yet. Takes a microsecond."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, AttributeError):
        # AttributeError: not on every system
        return False
    return True


def variable(pid: int, name: str) -> str:
    """A variable of the environment that the process was started with; "" if it has none of this name."""
    try:
        environment = (_PROC / str(pid) / "environ").read_text("utf-8", "replace")
    except OSError:
        return ""
    pairs = (line.partition("=") for line in environment.split("\0"))
    return next((value for key, _, value in pairs if key == name), "")


def title(pid: int) -> str:
    """The process's title, as ps shows it; "" if it has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0 ").decode("utf-8", "replace")
    except OSError:
        return ""


def adopt_orphans() -> bool:
    """Makes orphans among our descendants children of this process (Linux only); whether that worked."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> bool:
    """Has the kernel send us SIGTERM when our parent ends (Linux only); whether that worked."""
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def kill(process: Process) -> None:
    """Sends SIGKILL to this very process. Does nothing if it has ended, or if we may not."""
    with suppress(OSError):
        # From here on a new process with the same pid is safe: the descriptor does not stand for it.
        descriptor = os.pidfd_open(process.pid)
        try:
            now = stat(process.pid)
            if now is not None and now.identity == process.identity:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
