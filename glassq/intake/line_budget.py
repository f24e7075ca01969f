"""How many lines a kind of refusal may have in the log: whoever can reach us must not be able to flood it."""

from __future__ import annotations

import threading
import time

# A token bucket: so many lines at once, then one in so many seconds.
BURST = 300
LINE_EVERY = 1.0


class LineBudget:
    """For all threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = float(BURST)
        self._at = time.monotonic()
        self._left_out = 0

    def admit(self) -> dict[str, object] | None:
        """The field `left_out`, how many had no line since the last one, if any; None: this one has none either."""
        with self._lock:
            now = time.monotonic()
            self._lines = min(float(BURST), self._lines + (now - self._at) / LINE_EVERY)
            self._at = now
            if self._lines < 1:
                self._left_out += 1
                return None
            self._lines -= 1
            left_out, self._left_out = self._left_out, 0
            return {"left_out": left_out} if left_out else {}
