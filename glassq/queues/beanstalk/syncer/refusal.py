"""After a failed sync nothing is proven until beanstalkd was restarted, and a restarted syncer still knows it.

The kernel reports a failed write once, and takes the pages for written from then on: the next sync succeeds. So what
happened stands in a file beside beanstalkd's. Its room is made at the start, because later the disk may be full.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

# One sector: it is written whole or not at all.
SIZE = 512
# So many failed files are written down. Where there are so many, there may be more.
MAX_FILES = 16
NAME = "syncer.state"


class InUseError(Exception):
    """Another syncer works in this directory."""


class RefusalFile:
    """syncer.state in beanstalkd's directory: which run of beanstalkd nothing is proven of, and why."""

    def __init__(self, directory: Path) -> None:
        """Locks the file as long as this process lives. Raises InUseError, or OSError."""
        self._unwritten: dict[str, object] | None = None
        self._descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._descriptor).st_size < SIZE:
                self._write({})
        except BlockingIOError:
            os.close(self._descriptor)
            raise InUseError(f"another syncer works in {directory}") from None
        except BaseException:
            os.close(self._descriptor)
            raise
        found = parse(os.pread(self._descriptor, SIZE, 0))
        self.server = str(found.get("server", ""))
        self.reason = str(found.get("reason", ""))

    def refuse(self, server: str, pid: int, reason: str, files: list[int]) -> None:
        """Nothing of this run of beanstalkd is proven from now on. `files` are those whose sync failed.

        Raises OSError if that could not be written down; it holds for this process all the same.
        """
        self.server, self.reason = server, reason
        plain = reason.encode("ascii", "replace").decode()[:200]
        self._write(
            {"server": server, "pid": pid, "started": _started(pid), "reason": plain, "files": files[:MAX_FILES]}
        )

    def forget(self) -> None:
        """beanstalkd was restarted. Raises OSError."""
        self.server = self.reason = ""
        self._write({})

    def retry(self) -> None:
        """Writes down what could not be written before. Raises OSError."""
        if self._unwritten is not None:
            self._write(self._unwritten)

    def close(self) -> None:
        """Another syncer may work here."""
        os.close(self._descriptor)

    def _write(self, what: dict[str, object]) -> None:
        self._unwritten = what
        os.pwrite(self._descriptor, json.dumps(what).encode().ljust(SIZE - 1) + b"\n", 0)
        os.fsync(self._descriptor)
        self._unwritten = None


def note_files(directory: Path, files: list[int]) -> None:
    """Writes down whose sync failed while no beanstalkd runs; [] once they are written anew. Raises OSError."""
    descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        state = {**parse(os.pread(descriptor, SIZE, 0)), "files": files[:MAX_FILES]}
        os.pwrite(descriptor, json.dumps(state).encode().ljust(SIZE - 1) + b"\n", 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse(text: bytes) -> dict[str, Any]:
    """What a syncer.state says; {} if it says nothing."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _started(pid: int) -> int:
    """When a process started, in clock ticks since the machine did (proc(5)); 0 if nobody says."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
