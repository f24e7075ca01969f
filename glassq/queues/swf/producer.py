"""Puts deliveries into SWF, one call each. An answer is the proof: the service keeps the history on several servers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import QueueError, QueueUnavailable
from glassq.queues.aws.producer import AwsProducer
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


class SwfProducer(AwsProducer):
    """See `glassq.queues.base.Producer`. A delivery whose key is in the queue already is not put once more."""

    def __init__(self, client: SwfClient, *, lease: int) -> None:
        """`lease` is how long each attempt may go without a sign of life, in seconds."""
        super().__init__(client)
        self._client = client
        self._lease = lease

    def ask(self, within: float) -> None:
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

    def put_until(self, deadline: float, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
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
