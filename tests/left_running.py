"""Processes that a test has started and not ended, as it failed: they, and what they have started, end with it."""

from __future__ import annotations

import signal
import subprocess
from typing import Protocol

# A program of ours that has not ended after this time, in seconds, hangs.
PATIENCE = 20.0


class Started(Protocol):
    """As Popen, which it may be."""

    def poll(self) -> int | None: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...
    def wait(self, timeout: float, /) -> int: ...
    def kill(self) -> None: ...


_started: set[Started] = set()


def note(process: Started) -> None:
    """Call for each process of which somebody has to make sure that it ends."""
    _started.add(process)


def running() -> set[Started]:
    """Those that run now."""
    _started.difference_update([process for process in _started if process.poll() is not None])
    return set(_started)


def end(processes: set[Started]) -> None:
    """Ends them in order, and so what they have started; by SIGKILL what does not end."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
