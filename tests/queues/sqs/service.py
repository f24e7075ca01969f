"""The SQS of tests (server.py), in a process of its own, behind a proxy that can refuse connections."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.queues.aws.service import CREDENTIALS, REGION, AwsService
from tests.queues.sqs.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CREDENTIALS", "REGION", "SqsService", "Truth"]


@dataclass(frozen=True, slots=True)
class Truth:
    """All messages that there are, and how many long polls wait at each queue, by name."""

    messages: list[dict[str, Any]]
    waiting: dict[str, int]


class SqsService(AwsService):
    """One such service; `stop` leaves its messages as they are."""

    module = "tests.queues.sqs.server"

    def set(self, faults: Faults | None = None) -> None:
        """What it does from now on; None: all that it is asked."""
        self.be(faults or Faults())

    def truth(self) -> Truth:
        return Truth(**self.ask("truth"))

    def remove(self, ref: str) -> None:
        """Deletes a message, whoever has it, by its id or by the reference in its attribute."""
        self.ask("remove", json.dumps(ref).encode())

    def fill(self, queue: str, messages: int, text: str) -> None:
        """Puts so many messages into a queue, past all calls."""
        self.ask("fill", json.dumps([queue, messages, text]).encode())

    def make(self, queues: Sequence[str], attributes: Mapping[str, str] | None = None) -> None:
        """Makes these queues; without attributes with the service's own defaults, as another tool would."""
        self.ask("make", json.dumps([queues, attributes or {}]).encode())

    def drop(self, queues: Sequence[str]) -> None:
        """Deletes these queues."""
        self.ask("drop", json.dumps(queues).encode())
