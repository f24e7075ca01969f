"""The scheduler of a pool, in a process beside its children."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq import host
from glassq.errors import SettingsError
from glassq.log import fields, logger
from glassq.queues import open_producer
from glassq.queues.base import NewJob, Refusal
from glassq.queues.durable import put_durably
from glassq.schedules.opening import has_schedules, schedules_of
from glassq.schedules.scheduler import Scheduler
from glassq.schedules.table import ScheduleTable
from glassq.worker import sidecar

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery
    from glassq.queues.base import Producer
    from glassq.settings import Settings

log = logger("glassq.schedules")

# How long a put, and its proof, may take, in seconds.
PUT_WITHIN = 5.0


def main_of(settings: Settings) -> Callable[[], int] | None:
    """The main function of the process, which the calling process forks; None if there is nothing to schedule.

    Raises SettingsError if the schedules cannot be used.
    """
    if not has_schedules(settings):
        return None
    schedules_of(settings)
    # what the process before it has claimed, the next one finishes at once: the pool has one at a time
    parent, name = os.getpid(), host.run_name()
    return lambda: run(settings, parent, name)


def run(settings: Settings, parent: int, name: str) -> int:
    """Puts what is due until `parent` has died; SIGTERM ends it before. It may be interrupted anywhere.

    `name` is that of the pool's run, which no other pool has.
    """
    sidecar.begin("schedules")
    try:
        schedules = schedules_of(settings)
    except SettingsError as error:
        # it was right when the pool read it; a reload reads it again
        log.error("schedules cannot be read %s", fields(why=error))
        return 1
    with closing(open_producer(settings)) as producer, closing(ScheduleTable(settings.ledger.url)) as table:
        scheduler = Scheduler(
            schedules, table, lambda delivery: put(producer, delivery), name, lambda: datetime.now(UTC)
        )
        # a suspended machine and a step of the clock are noticed at the next look, which is never far
        return sidecar.repeat(scheduler.step, parent)


def put(producer: Producer, delivery: Delivery) -> None:
    """Returns once the delivery is durable in the queue. Raises QueueError; then it is not there, as far as we know."""
    job = NewJob(delivery.id, envelope.encode(delivery), delivery.tube)
    answer = put_durably(producer, job, within=PUT_WITHIN, proof_within=PUT_WITHIN)
    if isinstance(answer, Refusal):
        raise answer.error
