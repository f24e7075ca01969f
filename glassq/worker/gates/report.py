"""Which routes have paused themselves, in a file of the pool's runtime directory, for operators to read."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glassq.in_effect import publish
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.worker.gates.breaker import BreakerState

log = logger("glassq.worker")

_NAME = "paused-routes"


class PausedRoute(msgspec.Struct, frozen=True):
    """A route whose breaker is open, after `failures` in a row whose cause is `why`.

    `since` and `next_probe` are in seconds since 1970; `probes` is how many have failed.
    """

    route: str
    since: float
    failures: int
    why: str
    probes: int
    next_probe: float


class PausedRoutes:
    """Writes the file, for the pool's parent."""

    def __init__(self, directory: str | None) -> None:
        """`directory` is systemd's RUNTIME_DIRECTORY (None: there is none, and nothing is written)."""
        self._file = Path(directory.partition(":")[0], _NAME) if directory else None
        self._written: Mapping[str, BreakerState] | None = None

    def tend(self, now: Mapping[str, BreakerState]) -> None:
        """Writes down these breakers, which are open, if they have changed."""
        if self._file is None or now == self._written:
            return
        self._written = now
        wall = time.time() - time.monotonic()
        found = [
            PausedRoute(route, state.since, state.failures, state.why, state.probes, wall + state.due)
            for route, state in now.items()
        ]
        try:
            publish(self._file, msgspec.json.encode(found))
        except OSError as error:
            log.warning("cannot record which routes are paused %s", fields(why=error))


def paused_routes(directory: Path) -> list[PausedRoute]:
    """The routes that the pool with this runtime directory has paused; none if nobody has written that down."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((directory / _NAME).read_bytes(), type=list[PausedRoute])
    return []
