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


# each with whom it belongs to
_started: dict[Started, object] = {}


def note(process: Started, owner: object = None) -> None:
    """Call for each process of which somebody has to make sure that it ends; `owner` starts several after another."""
    _started[process] = owner or process


def running() -> set[object]:
    """The owners of those that run now: a server of several tests that one of them starts again is none of its own."""
    for process in [process for process in _started if process.poll() is not None]:
        del _started[process]
    return set(_started.values())


def end(owners: set[object]) -> None:
    """Ends what belongs to these, in order, and so what that has started; by SIGKILL what does not end."""
    processes = [process for process, owner in _started.items() if owner in owners]
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
