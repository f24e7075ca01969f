"""Processes as Linux shows them under /proc: who lives, whose child it is, and what it holds."""

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
class Being:
    """One process for as long as it lives: a pid alone may be somebody else's by now. `born` is in clock ticks."""

    pid: int
    born: int

    def lives(self) -> bool:
        """Whether it is still there; a zombie is not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.born and fields[0] not in ("Z", "X")

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False where it is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self.lives():
                os.kill(self.pid, number)
                return True
        return False


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process holds; `rss` is in bytes."""

    descriptors: int
    threads: int
    rss: int


def being(pid: int) -> Being | None:
    """The process that has this pid now."""
    fields = _stat(pid)
    return Being(pid, int(fields[19])) if fields else None


def children(pid: int) -> list[Being]:
    """The children that live, oldest first; those of its main thread, which is where ours fork."""
    found = [being(child) for child in _child_pids(pid)]
    return sorted((child for child in found if child is not None and child.lives()), key=lambda child: child.born)


def zombies(pid: int) -> int:
    """How many children have ended and are not reaped."""
    states = [_stat(child) for child in _child_pids(pid)]
    return sum(1 for fields in states if fields and fields[0] == "Z")


def holding(pid: int) -> Holding | None:
    """What it holds now; None where it is gone."""
    try:
        place = Path(f"/proc/{pid}")
        rss = int((place / "statm").read_text().split()[1]) * PAGE
        return Holding(_entries(place / "fd"), _entries(place / "task"), rss)
    except OSError:
        return None


def _child_pids(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold blanks and brackets (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _entries(directory: Path) -> int:
    return sum(1 for _ in directory.iterdir())
