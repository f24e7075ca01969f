"""Puts deliveries into SQS, ten a call. An answer is the proof: the message is on several servers by then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from glassq.errors import QueueError, QueueUnavailable
from glassq.queues.aws.producer import AwsProducer
from glassq.queues.aws.troubles import in_doubt
from glassq.queues.base import Receipt, Refusal
from glassq.queues.shelf import Shelved
from glassq.queues.sqs.messages import LIMITS, MAX_DELAY
from glassq.queues.sqs.sending import Outgoing, batches, numbers_of, send_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import NewJob
    from glassq.queues.shelf import Shelf
    from glassq.queues.sqs.client import SqsClient


class SqsProducer(AwsProducer):
    """See `glassq.queues.base.Producer`."""

    def __init__(self, client: SqsClient, shelf: Shelf, *, tube: str) -> None:
        """`tube` is the one that `check` looks at."""
        super().__init__(client)
        self._client = client
        self._shelf = shelf
        self._tube = tube

    def ask(self, within: float) -> None:
        client = self._client
        of = client.of(self._tube, within=within)
        client.insist("get_queue_attributes", within=within, **of, AttributeNames=["MessageRetentionPeriod"])

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        """A message can be deleted only by who has received it; what lies on the shelf can be taken from there."""
        row = self._shelf.by_ref(receipt.ref)
        if row is None:
            # whether anybody is there is the caller's next question
            self.ask(within)
            return False
        return self._shelf.delete(row)

    def put_until(self, deadline: float, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        answers: dict[int, Receipt | Refusal] = {}
        good = []
        for number, job in enumerate(jobs):
            if error := LIMITS.fault(job.body, job.tube, job.delay):
                answers[number] = Refusal(job.key, error)
            else:
                good.append((number, job))
        failed: QueueError | None = None
        for tube, found in _by_tube(good).items():
            numbered = dict(found)
            outgoing = ((number, Outgoing(job.body, job.delay)) for number, job in found)
            for entries in batches(outgoing) if tube else [[{"Id": number} for number in numbered]]:
                portion = {number: numbered[number] for number in numbers_of(entries)}
                if failed is None:
                    answers.update(self._put_portion(tube, entries, portion, deadline))
                    failed = _broken(answers[next(iter(portion))])
                else:
                    answers.update({number: Refusal(job.key, failed) for number, job in portion.items()})
        return [answers[number] for number in range(len(jobs))]

    def _put_portion(
        self, tube: str, entries: Sequence[dict[str, Any]], portion: dict[int, NewJob], deadline: float
    ) -> dict[int, Receipt | Refusal]:
        """The answers for jobs that are sent in one call, or lie on the shelf together, where the tube is ""."""
        try:
            found: dict[int, str | QueueError] = {}
            if tube:
                found = send_batch(self._client, tube, entries, within=deadline - time.monotonic())
            else:
                now = time.time()
                rows = [Shelved(job.tube, "delayed", job.body, due=now + job.delay) for job in portion.values()]
                found.update(zip(portion, self._shelf.put(rows), strict=True))
        except QueueError as error:
            return {number: Refusal(job.key, error, in_doubt=in_doubt(error)) for number, job in portion.items()}
        return {number: _answer(job.key, found[number]) for number, job in portion.items()}


def _by_tube(jobs: Sequence[tuple[int, NewJob]]) -> dict[str, list[tuple[int, NewJob]]]:
    """The jobs of each tube; those for the shelf, last, under ""."""
    tubes: dict[str, list[tuple[int, NewJob]]] = {}
    for number, job in jobs:
        tubes.setdefault("" if job.delay > MAX_DELAY else job.tube, []).append((number, job))
    if later := tubes.pop("", []):
        tubes[""] = later
    return tubes


def _broken(answer: Receipt | Refusal) -> QueueError | None:
    """Why nothing more is sent after this answer."""
    return answer.error if isinstance(answer, Refusal) and isinstance(answer.error, QueueUnavailable) else None


def _answer(key: str, found: str | QueueError) -> Receipt | Refusal:
    if isinstance(found, QueueError):
        return Refusal(key, found, in_doubt=in_doubt(found))
    return Receipt(key, found)
