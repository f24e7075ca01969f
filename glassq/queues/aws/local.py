"""What this machine has of a service of Amazon: the package of its client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.base import Fact


class LocalAws:
    """See `glassq.queues.engine.LocalEngine`. The server is Amazon's."""

    packages = ("boto3",)
    units: tuple[str, ...] = ()
    other_unit = ""
    socket = None

    def directories(self) -> Iterator[tuple[str, Path]]:
        yield from ()

    def other_server(self, active: str, boots: str) -> Iterator[Fact]:
        yield from ()
