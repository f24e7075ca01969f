"""The cause of a child's death, as far as its parent can know it."""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")


def how_it_ended(code: int) -> str:
    """An exit code of os.waitstatus_to_exitcode in words: "SIGKILL" or "exit 7"."""
    if code >= 0:
        return f"exit {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    # real-time signals have no names
    return f"SIG {-code}"


class OutOfMemory:
    """Whether the kernel's out-of-memory killer was at work: Linux counts its kills, for the whole machine."""

    def __init__(self) -> None:
        self._seen = self._count()

    def killed(self) -> bool:
        """Whether it has killed a process since the last call."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    @staticmethod
    def _count() -> int:
        try:
            found = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(), re.MULTILINE)
        except OSError:
            return 0
        return int(found[1]) if found else 0
