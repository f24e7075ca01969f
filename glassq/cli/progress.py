"""How a command at a terminal follows an operation: a bar after a while, warnings on standard error, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import click

from glassq.cli.output import line
from glassq.errors import Stopped
from glassq.operations.progress import Silent
from glassq.stop_signals import defer_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.progress import Progress as Bar
    from rich.status import Status

# An operation that takes longer shows how far it is, in seconds.
BAR_AFTER = 2.0
# So soon Ctrl-C ends a wait, in seconds.
_SLICE = 0.1


class Terminal:
    """The Progress of a command (see operations/progress.py). As a context it removes its bar at the end.

    With `stoppable` the first Ctrl-C ends the operation at its next safe point, with a report of what was done; the
    second ends the command. Else Ctrl-C ends the command, as ever.
    """

    def __init__(self, command: Callable[[str], str], *, stoppable: bool = False) -> None:
        """`command` adapts the texts that name a command of ours (`App.adapt`)."""
        self._adapt = command
        self._stoppable = stoppable
        self._stopped = False
        self._before: Any = None
        self._started = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        # Where it is ignored, as in a script's background, it stays so.
        if self._stoppable and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self._bar is not None:
            self._bar.stop()

    def _stop(self, *_: object) -> None:
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def advance(self, done: int, total: int, words: str) -> None:
        """Moves the bar, which appears once this takes long. Raises Stopped."""
        self._check()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=words)
        elif time.monotonic() - self._started > BAR_AFTER and sys.stderr.isatty():
            self._bar = _bar(done, total, words)

    def wait(self, seconds: float) -> None:
        """Waits, in slices. Raises Stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, _SLICE))
        self._check()

    def defer_signals(self) -> AbstractContextManager[None]:
        """See signals.py."""
        return defer_signals()

    def warn(self, words: str) -> None:
        """Says so on standard error."""
        click.echo(f"glassq: {line(self._adapt(words))}", err=True)

    def note(self, words: str) -> None:
        """Says so on standard error."""
        self.warn(words)

    def _check(self) -> None:
        if self._stopped:
            raise Stopped


class Spinner(Silent):
    """The Progress of a command that prints what it finds while it goes on: nothing but a line on standard error.

    On a terminal the line says what is looked at, once that takes a while.
    """

    def __init__(self) -> None:
        self._words = ""
        self._timer: threading.Timer | None = None
        self._status: Status | None = None

    def advance(self, done: int, total: int, words: str) -> None:
        """Something else is looked at, where the words are others."""
        if words == self._words or not sys.stderr.isatty():
            return
        from rich.console import Console

        self.stop()
        self._words = words
        self._status = Console(stderr=True).status(words)
        self._timer = threading.Timer(BAR_AFTER, self._status.start)
        self._timer.start()

    def stop(self) -> None:
        """Nothing is said any more until something else is looked at."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
        if self._status is not None:
            self._status.stop()
            self._status = None


def _bar(done: int, total: int, words: str) -> Bar:
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    bar.add_task(words, total=total, completed=done)
    bar.start()
    return bar
