"""The SQS of tests (server.py), in a process of its own, behind a proxy that can refuse connections."""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tests.conftest import Process, wait_for
from tests.ports import free_port
from tests.proxy import Proxy
from tests.queues.sqs.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REGION = "eu-west-1"
# What boto3's own chain finds: any will do.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class Truth:
    """All messages that there are, and how many long polls wait at each queue, by name."""

    messages: list[dict[str, Any]]
    waiting: dict[str, int]


class SqsService:
    """One such service. `port` is where it is reached; `stop` leaves its messages as they are."""

    def __init__(self, directory: Path) -> None:
        self._own = free_port()
        log = directory / "sqs.log"
        self._process = Process([sys.executable, "-m", "tests.queues.sqs.server", str(self._own)], log)
        self.port = free_port()
        self._front: Proxy | None = None
        wait_for(self._answers, "SQS to answer")
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """It can be reached again."""
        self._front = Proxy(self._own, at=self.port)
        self._front.__enter__()

    def stop(self) -> None:
        """It cannot be reached: connections end, new ones are refused."""
        front, self._front = self._front, None
        if front is not None:
            front.__exit__()

    def end(self) -> None:
        self.stop()
        self._process.end()

    def endpoint(self, port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}"

    def set(self, faults: Faults | None = None) -> None:
        """What it does from now on; None: all that it is asked."""
        self._ask("faults", msgspec.json.encode(faults or Faults()))

    def truth(self) -> Truth:
        return Truth(**self._ask("truth"))

    def done_to(self) -> dict[str, dict[str, int]]:
        """By the id of a delivery: what the service did to its messages that may have it worked twice."""
        return dict(self._ask("done-to"))

    def calls(self, *, clear: bool = False) -> dict[str, int]:
        """How often what was called."""
        return dict(self._ask("calls", b"clear" if clear else None))

    def remove(self, ref: str) -> None:
        """Deletes a message, whoever has it, by its id or by the reference in its attribute."""
        self._ask("remove", json.dumps(ref).encode())

    def fill(self, queue: str, messages: int, text: str) -> None:
        """Puts so many messages into a queue, past all calls."""
        self._ask("fill", json.dumps([queue, messages, text]).encode())

    def make(self, queue: str) -> None:
        """Makes a queue with the service's own defaults, as another tool would."""
        self._ask("make", json.dumps(queue).encode())

    def drop(self, queues: Sequence[str]) -> None:
        """Deletes these queues."""
        self._ask("drop", json.dumps(queues).encode())

    def _answers(self) -> bool:
        try:
            self.truth()
        except OSError:
            return False
        return True

    def _ask(self, what: str, body: bytes | None = None) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._own}/glassq/{what}", body or b"", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found
