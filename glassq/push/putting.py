"""Puts tasks into the queue, and says of each whether the queue has proven to keep it."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from glassq.delivery import BIG_JOB
from glassq.errors import JobTooBig, QueueError, QueueRefused, QueueUnavailable, SearchIncomplete
from glassq.push.task_errors import Error, InternalError, TaskTooLargeError, TransientError
from glassq.queues.base import NewJob, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.delivery import Delivery
    from glassq.queues import Producer

# Maximum time to take back what was put in vain, in seconds.
WITHDRAW_WITHIN = 1.0


@dataclass(slots=True, eq=False)
class TaskItem:
    """A task to put: its delivery, and that encoded.

    `name` is what its author calls it ("": nothing), `eta` the earliest time to run it in seconds since 1970 (0: none).
    `put_state`: it is not in the queue, perhaps it is, or it is and the queue has proven it. `error` says why it is not
    known to be there.
    """

    delivery: Delivery
    body: bytes
    name: str = ""
    eta: float = 0.0
    put_state: Literal["unsent", "unknown", "put"] = "unsent"
    receipt: Receipt | None = None
    error: Error | None = None

    @property
    def label(self) -> str:
        """The task's name: its author's, or the delivery's id."""
        return self.name or self.delivery.id

    def job(self) -> NewJob:
        """The job to put, with the delay that is left now."""
        delay = max(0, math.ceil(self.eta - time.time())) if self.eta else 0
        return NewJob(self.delivery.id, self.body, self.delivery.tube, delay)


def put(producer: Producer, items: Sequence[TaskItem], deadline: float) -> None:
    """Puts all items, with one proof; sets the `put_state` and the `error` of each. To be done by `deadline`.

    `deadline` is on time.monotonic(). What is not proven is taken back, as far as that is possible.
    """
    jobs = [item.job() for item in items]
    for item in items:
        # An interrupt (KeyboardInterrupt, errors.Interrupt) may come at any moment from here on.
        item.put_state = "unknown"
    answers = producer.put(jobs, within=max(0.0, deadline - time.monotonic()))
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, Receipt):
            item.receipt = answer
            continue
        too_big = isinstance(answer.error, JobTooBig)
        item.put_state = "unknown" if answer.in_doubt and not too_big else "unsent"
        item.error = TaskTooLargeError(_too_large(item, answer.error)) if too_big else task_error(answer.error)
    _confirm(producer, [item for item in items if item.receipt is not None], deadline)


def _confirm(producer: Producer, sent: Sequence[TaskItem], deadline: float) -> None:
    receipts = [item.receipt for item in sent if item.receipt]
    try:
        producer.confirm(receipts, within=max(0.0, deadline - time.monotonic()))
    except QueueError as error:
        # What stays may be worked, or lost with the power: its name stays claimed, until the claim runs out.
        withdraw(producer, sent)
        for item in sent:
            item.error = task_error(error)
        return
    for item in sent:
        item.put_state = "put"


def withdraw(producer: Producer, items: Sequence[TaskItem]) -> None:
    """Takes back what nobody has reserved yet, for a short time."""
    deadline = time.monotonic() + WITHDRAW_WITHIN
    with suppress(QueueError):
        for item in items:
            left = max(0.0, deadline - time.monotonic())
            if item.receipt is not None and producer.withdraw(item.receipt, within=left):
                item.put_state = "unsent"


def task_error(error: QueueError) -> Error:
    """What App Engine's API calls an error of the queue."""
    if isinstance(error, QueueUnavailable | QueueRefused | SearchIncomplete):
        return TransientError(str(error))
    return InternalError(str(error))


def _too_large(item: TaskItem, error: QueueError) -> str:
    return f"{error}. This one has {len(item.body)} bytes; tasks as large as on App Engine need {BIG_JOB} bytes"
