"""The SWF of tests (server.py), in a process of its own, behind a proxy that can refuse connections."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tests.queues.aws.service import CREDENTIALS, REGION, AwsService
from tests.queues.swf.faults import Faults

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CREDENTIALS", "REGION", "SwfService", "SwfTruth"]


@dataclass(frozen=True, slots=True)
class SwfTruth:
    """All executions that there are, and how many polls wait at each list, by kind, domain and name."""

    runs: list[dict[str, Any]]
    waiting: dict[str, int]


class SwfService(AwsService):
    """One such service; `stop` leaves its executions as they are."""

    module = "tests.queues.swf.server"

    def __init__(self, directory: Path, *, poll: float = 1.0, decider_poll: float = 0.0) -> None:
        """A poll waits for `poll` seconds, one for a decision for `decider_poll`; at the real service for 60."""
        self._polls = {"poll": poll, "decider_poll": decider_poll}
        super().__init__(directory)
        self.set()

    def set(self, faults: Faults | None = None) -> None:
        """What it does from now on; None: all that it is asked."""
        self.be(msgspec.structs.replace(faults or Faults(), **self._polls))

    def truth(self) -> SwfTruth:
        return SwfTruth(**self.ask("truth"))

    def decided(self, within: float) -> bool:
        """Whether no execution waits for a decider, where there is one, within so many seconds."""
        return bool(self.ask("decided", json.dumps(within).encode()))

    def lease_left(self, workflow_id: str) -> float:
        """How long its worker may be silent still, in seconds; 0 where it has none."""
        return float(self.ask("lease-left", json.dumps(workflow_id).encode()))

    def skip(self, seconds: float) -> None:
        """So much time passes at once."""
        self.ask("skip", json.dumps(seconds).encode())

    def clear(self, domain: str) -> None:
        """Its executions are no longer there."""
        self.ask("clear", json.dumps(domain).encode())
