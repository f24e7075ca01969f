"""Signals as numbers that the pool's parent waits for."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Collection

# The signals that the parent answers.
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
    """Waits for signals. Their handlers do nothing: the interpreter writes each signal's number into a pipe."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in PARENT:
            signal.signal(number, _ignore)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        os.close(self._read)
        os.close(self._write)

    def wait(self, timeout: float, also: Collection[int] = ()) -> list[int]:
        """The signals that come within `timeout` seconds, in order. Returns early if one of `also` can be read."""
        if self._read in select.select([self._read, *also], [], [], timeout)[0]:
            return list(os.read(self._read, 512))
        return []

    @staticmethod
    def restore() -> None:
        """Restores the default handling, which a child needs until it has handlers of its own."""
        signal.set_wakeup_fd(-1)
        for number in PARENT:
            signal.signal(number, signal.SIG_DFL)


def _ignore(_signal: int, _frame: object) -> None:
    pass
