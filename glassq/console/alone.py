"""Whether another process carries out runs of this console: several may share its state, as in a reload."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FILE = "consoles"


class SharedState:
    """A lock that each process of the console holds together with the others, from `join` to `leave`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        self._lock = threading.Lock()
        self._handle: int | None = None

    def join(self) -> None:
        """From now on others see that this process lives. Raises OSError."""
        with self._lock:
            if self._handle is None:
                self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._handle, fcntl.LOCK_SH)

    def leave(self) -> None:
        """The process is about to end."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def is_alone(self) -> bool:
        """Whether no other process has joined, by now. Raises OSError."""
        with self._lock:
            if self._handle is None:
                return False
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False
            else:
                alone = True
            # flock(2): a lock that could not be changed may be lost
            fcntl.flock(self._handle, fcntl.LOCK_SH)
            return alone
