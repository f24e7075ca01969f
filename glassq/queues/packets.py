"""Puts several deliveries into the queue with one proof, and sorts what became of them."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobTooBig, NotDurable, QueueError, QueueUnavailable
from glassq.queues.base import Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.queues.base import NewJob, Producer


class PutResult(NamedTuple):
    """What became of a packet; keys are deliveries' ids.

    `proven` is durable in the queue. `late` was put, and may be proven later. `too_big` is refused for good. `error` is
    why the queue has not taken or proven the others; None if there are none.
    """

    proven: Mapping[str, Receipt]
    late: Mapping[str, Receipt]
    too_big: Mapping[str, QueueError]
    error: QueueError | None


def put(producer: Producer, jobs: Sequence[NewJob], *, within: float, proof: float = 0.0) -> PutResult:
    """Puts the jobs in order and has them proven, within this number of seconds. Raises nothing.

    With `proof` the proof has so many seconds of its own.
    """
    until = time.monotonic() + within
    taken: dict[str, Receipt] = {}
    too_big: dict[str, QueueError] = {}
    error: QueueError | None = None
    for answer in producer.put(jobs, within=within, again=True):
        if isinstance(answer, Receipt):
            taken[answer.key] = answer
        elif isinstance(answer.error, JobTooBig):
            too_big[answer.key] = answer.error
        else:
            error = error or answer.error
    try:
        confirm(producer, list(taken.values()), time.monotonic() + proof if proof else until)
    except NotDurable as refusal:
        return PutResult({}, {}, too_big, refusal)
    except QueueError as refusal:
        return PutResult({}, taken, too_big, refusal)
    return PutResult(taken, {}, too_big, error)


def confirm(producer: Producer, receipts: Sequence[Receipt], until: float) -> None:
    """Returns once these are proven; `until` is on time.monotonic(). Raises QueueError."""
    if not receipts:
        return
    left = until - time.monotonic()
    if left <= 0:
        raise QueueUnavailable("no proof in time")
    producer.confirm(receipts, within=left)


class PacketMover:
    """Puts packets that come again until they are proven, for one thread at a time.

    What a packet has put already is not put again: only its proof is asked for.
    """

    def __init__(self, producer: Producer, *, within: float, proof: float = 0.0) -> None:
        """`within` and `proof` are as in `put`, for each packet."""
        self._producer = producer
        self._within = within
        self._proof = proof
        # what the last packet put and did not prove; it is in the next one, unless somebody else has moved it
        self._late: Mapping[str, Receipt] = {}

    def put(self, jobs: Sequence[NewJob]) -> dict[str, QueueError]:
        """On return these are proven, but for those that are returned: with JobTooBig, or why they are not yet."""
        late = {job.key: self._late[job.key] for job in jobs if job.key in self._late}
        try:
            confirm(self._producer, list(late.values()), time.monotonic() + (self._proof or self._within))
        except NotDurable:
            # the queue has lost them, or may have: they are put again
            late = {}
        except QueueError as error:
            return dict.fromkeys((job.key for job in jobs), error)
        others = [job for job in jobs if job.key not in late]
        result = put(self._producer, others, within=self._within, proof=self._proof)
        self._late = result.late
        unproven = dict(result.too_big)
        if result.error is not None:
            left = (job.key for job in others if job.key not in result.proven and job.key not in result.too_big)
            unproven |= dict.fromkeys(left, result.error)
        return unproven

    def withdraw(self) -> None:
        """Nothing comes again: deletes what is not proven, as far as the queue can now."""
        late, self._late = self._late, {}
        with suppress(QueueError):
            for receipt in late.values():
                self._producer.withdraw(receipt, within=self._proof or self._within)
