"""Runs a program to its end, within a deadline and in little memory, whatever it does.

It gets a session of its own, an environment that the caller made, and no file of ours but its standard streams. What it
writes is read as it comes, and only the end is kept. Nothing here needs the main thread or a signal.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from glassq.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from glassq.errors import Interrupt

# How much of an output is kept, in bytes.
KEPT = 8 << 10
# One read, in bytes, and the number of reads that empty the largest pipe of a program that has ended.
_CHUNK, _LAST_READS = 64 << 10, 16
# How often a running program is looked after, in seconds.
_BEAT = 0.25
# The pause between two looks at a program that has closed its streams and is about to end, in seconds; it doubles.
_PAUSE, _PAUSE_CAP = 0.0002, 0.05
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# How long a program has after SIGTERM, in seconds.
GRACE = 3.0


class Output(Protocol):
    """Where an output goes."""

    def write(self, data: bytes) -> object: ...


class Tail:
    """The end of an output. `size` is how many bytes came in all."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._end = b""
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._end = (self._end + data)[-self._limit :]

    def text(self) -> str:
        """The end as text, without control characters but tabs and line ends.

        Where something is missing before it, it begins with a whole line, if it has two.
        """
        end = self._end
        if self.size > len(end):
            _, newline, rest = end.partition(b"\n")
            # a character may have been cut in two
            end = rest if newline and rest.strip() else end.lstrip(bytes(range(0x80, 0xC0)))
        return _CONTROL.sub("?", end.decode("utf-8", "backslashreplace").strip())


@dataclass(frozen=True, slots=True)
class Limits:
    """When a program has to end: at `deadline`, or when `pending` says why. At `hard` it must be gone.

    Times are those of time.monotonic().
    """

    deadline: float = float("inf")
    hard: float = float("inf")
    pending: Callable[[], type[Interrupt] | None] = lambda: None


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended: its exit code, negative for a signal's number. `interrupt` is why we ended it (None: no)."""

    code: int
    interrupt: type[Interrupt] | None = None


def run(
    command: Sequence[str],
    stdin: IO[bytes],
    environment: Mapping[str, str],
    limits: Limits,
    out: Output,
    err: Output,
) -> ExitStatus:
    """Runs the program and returns how it ended. Raises OSError if it cannot be started.

    What it leaves behind in the background goes on, and nobody reads its output any more. But where the program is
    interrupted, or an output raises, its whole group ends.
    """
    process = subprocess.Popen(
        command,
        bufsize=0,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        running = _Running(process.pid, {process.stdout.fileno(): out, process.stderr.fileno(): err})
        try:
            interrupt = running.follow(limits)
            if interrupt is not None:
                running.signal(signal.SIGTERM)
                now = time.monotonic()
                running.follow(Limits(deadline=now + max(0.0, min(GRACE, (limits.hard - now) / 2))))
                running.signal(signal.SIGKILL)
        except BaseException:
            running.signal(signal.SIGKILL)
            raise
        finally:
            code = process.wait()
    return ExitStatus(code, interrupt)


def end_marked(marks: Mapping[str, str]) -> None:
    """Kills the processes that have these variables in their environment, wherever they have gone (Linux only).

    In a child of its own an attempt takes all that it has started with it, in other ways too (worker/leftovers.py).
    """
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # from here on a new process with the same pid is safe: the descriptor does not stand for it
            descriptor = os.pidfd_open(int(path.name))
            try:
                if wanted <= {*(path / "environ").read_bytes().split(b"\0")}:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)


class _Running:
    """A program that nobody has waited for yet, so that its process group is its own."""

    def __init__(self, pid: int, outputs: Mapping[int, Output]) -> None:
        self._pid = pid
        self._outputs = dict(outputs)
        self._poll = select.poll()
        for descriptor in outputs:
            self._poll.register(descriptor, select.POLLIN)

    def follow(self, limits: Limits) -> type[Interrupt] | None:
        """Reads what it writes until it ends, and returns None; or why it has to end before."""
        pause = _PAUSE
        while not self._ended():
            if why := limits.pending():
                return why
            if (left := limits.deadline - time.monotonic()) <= 0:
                return DeadlineExceeded
            if self._outputs:
                self._read(min(left, _BEAT))
            else:
                time.sleep(min(left, pause))
                pause = min(2 * pause, _PAUSE_CAP)
        # the last words; a process that it has left behind may write for ever
        for _ in range(_LAST_READS):
            if not self._outputs or not self._read(0.0):
                break
        return None

    def signal(self, number: int) -> None:
        """Sends the signal to its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read(self, seconds: float) -> bool:
        """Reads what has come, or comes within this time; whether there was anything."""
        found = self._poll.poll(seconds * 1000)
        for descriptor, _ in found:
            if data := os.read(descriptor, _CHUNK):
                self._outputs[descriptor].write(data)
            else:
                self._poll.unregister(descriptor)
                del self._outputs[descriptor]
        return bool(found)
