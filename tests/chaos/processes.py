"""Reads processes from /proc: which ones live, their children, and the resources they use."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Handle:
    """One process, and never a later one with the same pid. `born` is its start in clock ticks."""

    pid: int
    born: int

    def lives(self) -> bool:
        """Whether the process lives; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.born and fields[0] not in ("Z", "X")

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False if the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self.lives():
                os.kill(self.pid, number)
                return True
        return False


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that a process uses; `rss` is in bytes."""

    descriptors: int
    threads: int
    rss: int


def handle(pid: int) -> Handle | None:
    """The process that has this pid now; None if there is none."""
    fields = _stat(pid)
    return Handle(pid, int(fields[19])) if fields else None


def children(pid: int) -> list[Handle]:
    """The living children of the main thread, which is the one that forks, oldest first."""
    found = [handle(child) for child in _child_pids(pid)]
    return sorted((child for child in found if child is not None and child.lives()), key=lambda child: child.born)


def zombies(pid: int) -> int:
    """The number of children that have ended and are not reaped."""
    states = [_stat(child) for child in _child_pids(pid)]
    return sum(1 for fields in states if fields and fields[0] == "Z")


def resources(pid: int) -> Resources | None:
    """The resources that the process uses now; None if it is gone."""
    try:
        place = Path(f"/proc/{pid}")
        rss = int((place / "statm").read_text().split()[1]) * PAGE
        return Resources(_entries(place / "fd"), _entries(place / "task"), rss)
    except OSError:
        return None


def _child_pids(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may contain spaces and brackets (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _entries(directory: Path) -> int:
    return sum(1 for _ in directory.iterdir())
