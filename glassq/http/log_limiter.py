"""Limits the log lines about refused requests, so that clients cannot flood the log."""

from __future__ import annotations

import threading
import time

# A token bucket: this many lines at once, then one line every LINE_EVERY seconds.
BURST = 300
LINE_EVERY = 1.0


class LogLimiter:
    """A rate limit for one kind of log line; for all threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = float(BURST)
        self._at = time.monotonic()
        self._left_out = 0

    def admit(self) -> dict[str, object] | None:
        """None if the line must be left out; else the field `left_out` for it, if any were left out before it."""
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
