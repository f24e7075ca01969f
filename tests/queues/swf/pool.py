"""A pool on SWF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.queues.aws.pool import AwsPool
from tests.queues.aws.service import REGION

if TYPE_CHECKING:
    from pathlib import Path

    from tests.queues.swf.service import SwfService


class SwfPool(AwsPool):
    """A pool that works what is put into its domain at SWF, and decides what becomes of it."""

    def __init__(
        self, home: Path, service: SwfService, *, processes: int = 2, ttr: int = 30, domain: str = "chaos"
    ) -> None:
        """`ttr` is in seconds."""
        self._service, self._domain = service, domain
        url = f"swf://{REGION}/{domain}?endpoint={service.endpoint()}"
        super().__init__(home, url, processes=processes, ttr=ttr)

    def open(self) -> list[dict[str, Any]]:
        """Its executions that are open."""
        return [run for run in self._service.truth().runs if run["executionStatus"] == "OPEN"]

    def left(self) -> int:
        return len([run for run in self.open() if "buried" not in run.get("tagList", ())])
