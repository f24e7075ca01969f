"""Signals as numbers to wait for, for the pool's parent."""

from __future__ import annotations

import os
import select
import signal
from typing import Self

# What the parent answers to.
PARENT = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGUSR2,
        signal.SIGCHLD,
    }
)


class Signals:
    """The handlers do nothing; the interpreter writes each signal's number into a pipe."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in PARENT:
            signal.signal(number, _nothing)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        os.close(self._read)
        os.close(self._write)

    def wait(self, timeout: float) -> list[int]:
        """The signals that came within `timeout` seconds, in their order."""
        if select.select([self._read], [], [], timeout)[0]:
            return list(os.read(self._read, 512))
        return []

    @staticmethod
    def restore() -> None:
        """Default signal handling again, as a child needs it before it sets its own."""
        signal.set_wakeup_fd(-1)
        for number in PARENT:
            signal.signal(number, signal.SIG_DFL)


def _nothing(_signal: int, _frame: object) -> None:
    pass
