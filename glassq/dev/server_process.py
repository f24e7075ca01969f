"""How a stack starts and ends one of its processes."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process of a stack: its `command` is passed these open `descriptors`, and `env` beside the stack's own."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    #: the number of the user and its group that it runs as, by default who calls; it can come to this directory
    user: tuple[int, int] | None = None
    directory: str | None = None
    #: what ends it in order
    stop: signal.Signals = signal.SIGTERM
    #: it is started again whenever it ends
    restarts: bool = False
    #: what an exit code means, where the code alone says it
    meanings: Mapping[int, str] = field(default_factory=dict)
