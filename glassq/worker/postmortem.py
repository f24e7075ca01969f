"""The cause of a child's death, as far as its parent can know it."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from pathlib import Path

_VMSTAT, _GROUPS, _MOUNT = Path("/proc/vmstat"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# A kill that was counted longer ago is no cause of a death, in seconds.
LOOK = 5.0


def how_it_ended(code: int) -> str:
    """An exit code of os.waitstatus_to_exitcode in words: "SIGKILL" or "exit 7"."""
    if code >= 0:
        return f"exit {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    # real-time signals have no names
    return f"SIG {-code}"


class OutOfMemory:
    """Whether the kernel's out-of-memory killer was at work a moment ago: Linux counts its kills.

    It counts those of a control group, ours, in which only what our handlers start is beside us; else only those of the
    whole machine are known.
    """

    def __init__(self) -> None:
        self._group = _group()
        self._seen, self._looked = self._count(), time.monotonic()

    def look(self, now: float) -> None:
        """Call it often: what was killed before the last look is no cause of a death."""
        if now - self._looked >= LOOK:
            self._seen, self._looked = self._count(), now

    def why(self) -> str:
        """What it did since the last look, as the cause of a death by SIGKILL; "" if it killed nothing."""
        before, self._seen = self._seen, self._count()
        if self._seen <= before:
            return ""
        return "it ran out of memory" if self._group else "perhaps the machine ran out of memory"

    def _count(self) -> int:
        try:
            found = re.search(r"^oom_kill (\d+)$", (self._group or _VMSTAT).read_text(), re.MULTILINE)
        except OSError:
            return 0
        return int(found[1]) if found else 0


def _group() -> Path | None:
    """The file with the counts of our own control group (version 2, or 1); None where it is not seen."""
    with suppress(OSError):
        for line in _GROUPS.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                file = _MOUNT / path.lstrip("/") / "memory.events"
            elif controllers == "memory":
                file = _MOUNT / "memory" / path.lstrip("/") / "memory.oom_control"
            else:
                continue
            if "oom_kill " in file.read_text():
                return file
    return None
