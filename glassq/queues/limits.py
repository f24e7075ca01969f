"""For engines: how large a job may be, and how long it may wait, with what is wrong in words."""

from __future__ import annotations

from typing import NamedTuple

from glassq.errors import JobTooBig, QueueError
from glassq.values import Tube


class JobLimits(NamedTuple):
    """The largest job of an engine, in bytes, and its longest delay, lease and pause, in seconds."""

    size: int
    seconds: float

    def fault(self, body: bytes, tube: str, delay: float = 0.0) -> QueueError | None:
        """Why the engine would not take this job; None if it may."""
        return self.bad_size(body) or self.bad_time(delay) or _bad_tube(tube)

    def bad_size(self, body: bytes) -> JobTooBig | None:
        """Why this is no body."""
        if len(body) <= self.size:
            return None
        return JobTooBig(f"a job of {len(body)} bytes: {self.size} are the maximum")

    def bad_time(self, seconds: float) -> QueueError | None:
        """Why this is no delay, lease or pause."""
        if 0 <= seconds <= self.seconds:
            return None
        return QueueError(f"{seconds:g} seconds: expected 0 to {self.seconds}")


def _bad_tube(name: str) -> QueueError | None:
    try:
        Tube(name)
    except ValueError as error:
        return QueueError(f"the tube {name!r}: {error}")
    return None
