"""Puts deliveries into SWF, one call each. An answer is the proof: the service keeps the history on several servers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import QueueError, QueueRefused, QueueUnavailable
from glassq.queues.again import put_again
from glassq.queues.aws.troubles import in_doubt
from glassq.queues.base import Receipt, Refusal
from glassq.queues.swf.forms import LIMITS, form_of
from glassq.queues.swf.looking import find_run, probe
from glassq.queues.swf.names import id_of
from glassq.queues.swf.starting import start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import NewJob
    from glassq.queues.swf.client import SwfClient

# For so long, in seconds, what refused a put is taken to refuse the next one.
BELIEVED = 5.0


class SwfProducer:
    """See `glassq.queues.base.Producer`. A delivery whose key is in the queue already is not put once more."""

    def __init__(self, client: SwfClient, *, lease: int) -> None:
        """`lease` is how long each attempt may go without a sign of life, in seconds."""
        self._client = client
        self._lease = lease
        # why the last put was refused, if it was, and until when that is believed
        self._refused: QueueRefused | None = None
        self._refused_until = 0.0

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        deadline = time.monotonic() + within
        answers = put_again(lambda them: self._put(them, deadline), jobs, again=again, reconnect=self._client.close)
        errors = (getattr(answer, "error", None) for answer in answers)
        self._refused = next((error for error in errors if isinstance(error, QueueRefused)), None)
        self._refused_until = time.monotonic() + BELIEVED
        return answers

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        """The answer was the proof."""

    def check(self, *, within: float) -> None:
        # whether an execution is taken shows with a put only: after a while the next one may try it
        if self._refused is not None and time.monotonic() < self._refused_until:
            raise self._refused
        probe(self._client, within)

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        deadline = time.monotonic() + within
        found = find_run(self._client, id_of(receipt.ref), lambda: deadline - time.monotonic())
        if found is None or not found.run.is_free:
            return False
        self._client.settle(
            "terminate_workflow_execution", **found.execution, reason="withdrawn", within=deadline - time.monotonic()
        )
        return True

    def close(self) -> None:
        """The client is that of all roles: it keeps its connections, and opens new ones where they broke."""

    def _put(self, jobs: Sequence[NewJob], deadline: float) -> list[Receipt | Refusal]:
        """The answer for each job. What follows a broken connection is not sent."""
        answers: list[Receipt | Refusal] = []
        failed: QueueError | None = None
        for job in jobs:
            if error := LIMITS.fault(job.body, job.tube, job.delay) or failed:
                answers.append(Refusal(job.key, error))
                continue
            try:
                answers.append(Receipt(job.key, self._start(job, deadline - time.monotonic())))
            except QueueError as error:
                answers.append(Refusal(job.key, error, in_doubt=in_doubt(error)))
                failed = error if isinstance(error, QueueUnavailable) else None
        return answers

    def _start(self, job: NewJob, within: float) -> str:
        form = form_of(job.body, job.tube, lease=self._lease, state="delayed", delay=job.delay)
        return start(self._client, job.key, form, within=within)
