"""Puts one job durably, or says why not, and whether it may be in the queue all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.queues.base import Refusal

if TYPE_CHECKING:
    from glassq.queues.base import NewJob, Producer, Receipt


def put_durably(producer: Producer, job: NewJob, *, within: float, proof_within: float) -> Receipt | Refusal:
    """Puts the job and has it proven; each may take so many seconds. What is not proven is withdrawn.

    A Refusal is in doubt where nobody knows whether the queue has the job: one that it has kept without proof, and that
    could not be withdrawn, is in doubt too.
    """
    [answer] = producer.put([job], within=within)
    if isinstance(answer, Refusal):
        return answer
    try:
        producer.confirm([answer], within=proof_within)
    except QueueError as error:
        return Refusal(job.key, error, in_doubt=not _withdrawn(producer, answer, proof_within))
    return answer


def _withdrawn(producer: Producer, receipt: Receipt, within: float) -> bool:
    """Whether it could be deleted again: a consumer may have it, or the queue does not answer."""
    try:
        return producer.withdraw(receipt, within=within)
    except QueueError:
        return False
