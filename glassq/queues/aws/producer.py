"""What the producers of Amazon's services share: an answer is the proof, as it is on several servers by then."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from glassq.errors import QueueRefused
from glassq.queues.again import put_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.aws.client import AwsClient
    from glassq.queues.base import NewJob, Receipt, Refusal

# For so long, in seconds, what refused a put is taken to refuse the next one.
BELIEVED = 5.0


class AwsProducer(ABC):
    """See `glassq.queues.base.Producer`."""

    def __init__(self, client: AwsClient) -> None:
        self._reconnect = client.close
        # why the last put was refused, if it was, and until when that is believed
        self._refused: QueueRefused | None = None
        self._refused_until = 0.0

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        deadline = time.monotonic() + within
        answers = put_again(lambda them: self.put_until(deadline, them), jobs, again=again, reconnect=self._reconnect)
        errors = (getattr(answer, "error", None) for answer in answers)
        self._refused = next((error for error in errors if isinstance(error, QueueRefused)), None)
        self._refused_until = time.monotonic() + BELIEVED
        return answers

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:  # noqa: B027
        """The answer was the proof."""

    def check(self, *, within: float) -> None:
        # whether something is taken shows with a put only: after a while the next one may try it
        if self._refused is not None and time.monotonic() < self._refused_until:
            raise self._refused
        self.ask(within)

    def close(self) -> None:  # noqa: B027
        """The client is that of all roles: it keeps its connections, and opens new ones where they broke."""

    @abstractmethod
    def put_until(self, deadline: float, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        """The answer for each job, by `deadline` (monotonic). What follows a broken connection is not sent."""

    @abstractmethod
    def ask(self, within: float) -> None:
        """Raises QueueError where the queue is not there, or does not answer within so many seconds."""
