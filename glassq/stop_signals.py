"""Defers the signals that ask a process to end, so that they do not cut a step in two."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# An operator or a lost terminal sends these.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Stop signals take effect after the block. Does nothing outside of the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # not a signal mask: a progress bar has a thread, which would get the signal
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for deferred, handler in before.items():
            signal.signal(deferred, handler)
    for number in came:
        signal.raise_signal(number)
