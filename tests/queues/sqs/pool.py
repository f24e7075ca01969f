"""A pool on SQS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.queues.aws.pool import AwsPool
from tests.queues.aws.service import REGION

if TYPE_CHECKING:
    from pathlib import Path

    from tests.queues.sqs.service import SqsService


class SqsPool(AwsPool):
    """A pool that works what is put into its queue at SQS."""

    def __init__(
        self,
        home: Path,
        service: SqsService,
        *,
        processes: int = 2,
        ttr: int = 30,
        poll: int = 1,
        prefix: str = "chaos",
        more: str = "",
    ) -> None:
        """`ttr` and `poll` are in seconds; `prefix` begins its queues' names; `more` are settings."""
        self._service, self._queue = service, f"{prefix}-pings"
        url = f"sqs://{REGION}/{prefix}?endpoint={service.endpoint()}&poll={poll}"
        super().__init__(home, url, processes=processes, ttr=ttr, more=more)

    def messages(self) -> list[dict[str, Any]]:
        """All that is in its queue."""
        return [each for each in self._service.truth().messages if each["queue"] == self._queue]

    def left(self) -> int:
        return len(self.messages())
