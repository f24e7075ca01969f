"""Adds tasks: those without a name in batches, one proof for all that have come meanwhile; named ones one by one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from glassq.http.log_limiter import LogLimiter
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from glassq.push.client import Client
    from glassq.push.http.metrics import TaskCounters
    from glassq.push.http.search import RecentJobs
    from glassq.push.putting import TaskItem

log = logger("glassq.push")


class Arrived(NamedTuple):
    """A task that is ready to be put, and when its request had arrived, on time.monotonic()."""

    item: TaskItem
    at: float


class TaskAdder:
    """Adds the tasks of one process."""

    def __init__(self, client: Client, counters: TaskCounters, recent: RecentJobs) -> None:
        self._client = client
        self._counters = counters
        self._recent = recent
        self._limiter = LogLimiter()

    def add(self, item: TaskItem, environ: MutableMapping[str, Any]) -> bool:
        """Hands the task to the turn of our worker's loop, which holds the answer until it is kept; or adds it now.

        A named task is never for the loop: there False is returned, and the worker asks again in a thread. Raises
        taskqueue's Error if the task is not known to be in the queue.
        """
        task = Arrived(item, environ.get("glassq.arrived") or time.monotonic())
        if (turn := environ.get("glassq.turn")) is None:
            self._add_now(task)
        elif item.name:
            environ["glassq.aside"] = True
            return False
        else:
            turn.append(task)
        return True

    def keep(self, tasks: Sequence[Arrived]) -> list[bool]:
        """Puts a batch; whether each of its tasks is in the queue durably. Called in one thread of the worker."""
        items = [task.item for task in tasks]
        began = time.monotonic()
        self._client.put_unnamed(items)
        self._counters.batch(len(items), time.monotonic() - began)
        self._done(tasks)
        failed = [item.error for item in items if item.error is not None]
        if failed:
            self._counters.refused(503, len(failed))
            if (left_out := self._limiter.admit()) is not None:
                log.error("not added %s", fields(status=503, tasks=len(failed), why=failed[0], **left_out))
        return [item.error is None for item in items]

    def _add_now(self, task: Arrived) -> None:
        self._client.put(task.item.delivery.labels["queue"], [task.item])
        if task.item.error is not None:
            raise task.item.error
        self._done([task])

    def _done(self, tasks: Sequence[Arrived]) -> None:
        now = time.monotonic()
        added = [task for task in tasks if task.item.error is None]
        self._counters.added([now - task.at for task in added])
        for task in added:
            self._recent.add(task.item)
        # a log line takes a fifth of a task's time, so it is written at debug level only
        if log.isEnabledFor(logging.DEBUG):
            for task in added:
                labels = task.item.delivery.labels
                log.debug("added %s", fields(delivery=task.item.delivery.id, queue=labels["queue"]))
