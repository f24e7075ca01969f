"""Processes that a test has started and not ended, as it failed, or as the tests' process was killed.

Those of a failed test end with it, and so does what they have started (conftest.py). For a tests' process that was
killed, or ends itself at once as pytest-xdist has it some seconds after an interrupt, a guard kills what it leaves.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol

# A program of ours that has not ended after this time, in seconds, hangs.
PATIENCE = 20.0
# Reads a process id and when that process began, until nobody can write any more; then it kills those that still run.
_GUARD = """
import os, signal, sys
from contextlib import suppress
for pid, began in [line.split() for line in sys.stdin]:
    with suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        if stat.read().rpartition(")")[2].split()[19] == began:
            os.kill(int(pid), signal.SIGKILL)
"""


class Started(Protocol):
    """As Popen, which it may be."""

    pid: int

    def poll(self) -> int | None: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...
    def wait(self, timeout: float, /) -> int: ...
    def kill(self) -> None: ...


_started: set[Started] = set()


def note(process: Started) -> None:
    """Call for each process of which somebody has to make sure that it ends."""
    _started.add(process)
    guard(process.pid)


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


def guard(pid: int) -> None:
    """Has this process killed when ours is gone (Linux only)."""
    with suppress(OSError):
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        os.write(_guard(os.getpid()), f"{pid} {began}\n".encode())


@cache
def _guard(owner: int) -> int:
    """Starts the guard of this process; the descriptor that it reads from."""
    reading, writing = os.pipe()
    # Ctrl-C at a terminal is for the tests
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", _GUARD], stdin=reading, start_new_session=True)
    os.close(reading)

    def let_go() -> None:
        if os.getpid() == owner:
            os.close(writing)
            process.wait(PATIENCE)

    atexit.register(let_go)
    return writing
