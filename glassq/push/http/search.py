"""Tasks in the queue, by their names: get, list, delete, run.

The queue knows no names, so a task is found by looking at one job after the other. A search is bounded: at most
SEARCHES of a process run at once, each for SEARCH_WITHIN seconds. What this process has just added is found at once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager, suppress
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobNotFound, QueueRefused
from glassq.push.http.errors import ApiError, invalid
from glassq.push.purge import TombstoneBatch, readable
from glassq.push.request import SOURCE
from glassq.queues.base import ALL_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.delivery import Delivery
    from glassq.push.client import Client
    from glassq.push.putting import TaskItem
    from glassq.queues import Inspector
    from glassq.queues.base import Job

# In seconds: Google's client waits for 20.
SEARCH_WITHIN = 10.0
SEARCHES = 8
# Tasks of one page: as many as Cloud Tasks gives.
MAX_PAGE = 1_000
# The tasks that are remembered with their jobs; each takes some 300 bytes.
MAX_RECENT = 20_000
# How often a task is looked up again that is taken just when it is to be deleted.
_TRIES = 3


class FoundTask(NamedTuple):
    """A task and the job that holds it."""

    delivery: Delivery
    job: Job


class RecentJobs:
    """Where the tasks are that this process has added lately; for all its threads. A retry has another job."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._refs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def add(self, item: TaskItem) -> None:
        """The task has been put."""
        if item.receipt is None:
            return
        with self._lock:
            self._refs[item.delivery.tube, item.label] = item.receipt.ref
            if len(self._refs) > MAX_RECENT:
                self._refs.popitem(last=False)

    def ref(self, tube: str, task_id: str) -> str:
        """The reference of its job when it was put; "": it is not known."""
        with self._lock:
            return self._refs.get((tube, task_id), "")


class TaskSearch:
    """Looks up and changes tasks; for all threads of a process."""

    def __init__(self, client: Client, recent: RecentJobs) -> None:
        self._client = client
        self._recent = recent
        self._places = BoundedSemaphore(SEARCHES)

    def get(self, queue: str, task_id: str) -> FoundTask:
        """The task of this queue. Raises ApiError or a taskqueue Error."""
        with self._looking(queue) as (inspector, tubes, watch):
            return self._find(inspector, tubes, task_id, watch)

    def page(self, queue: str, size: int, token: str) -> tuple[list[FoundTask], str]:
        """At most `size` tasks, newest first, and the token of the next page; "": there is none.

        `token` "" is the first page. A page may have fewer tasks than asked for where the search was cut short.
        """
        found: list[FoundTask] = []
        with self._looking(queue) as (inspector, tubes, watch):
            if token and not inspector.is_ref(token):
                raise invalid("pageToken: expected a nextPageToken of an earlier page")
            if unseen := inspector.capabilities.unseen:
                raise ApiError(501, unseen)
            try:
                for job in inspector.find(ALL_STATES, tubes, progress=watch):
                    if token and not _is_older(job.ref, token):
                        continue
                    if len(found) == size:
                        return found, found[-1].job.ref
                    if task := _task(job):
                        found.append(task)
            except ApiError:
                if not found:
                    raise
                return found, found[-1].job.ref
        return found, ""

    def delete(self, queue: str, task_id: str) -> None:
        """Deletes the task, and keeps its name taken as that of a deleted one. Raises ApiError."""
        with self._looking(queue) as (inspector, tubes, watch), TombstoneBatch(self._client.names) as finished:
            for _ in range(_TRIES):
                task = self._find(inspector, tubes, task_id, watch)
                if task.job.state == "reserved":
                    break
                try:
                    inspector.delete(task.job)
                except JobNotFound:
                    continue
                finished.add(queue, task.delivery)
                return
        raise ApiError(400, f"task {task_id}: is running, and cannot be deleted until that ends", "FAILED_PRECONDITION")

    def run(self, queue: str, task_id: str) -> FoundTask:
        """Makes the task due now, if it waits for its time or lies buried. Raises ApiError."""
        with self._looking(queue) as (inspector, tubes, watch):
            task = self._find(inspector, tubes, task_id, watch)
            if task.job.state not in ("delayed", "buried"):
                return task
            try:
                return FoundTask(task.delivery, inspector.get(inspector.change(task.job, state="ready")))
            except JobNotFound:
                # a worker has it, or is done with it
                return self._find(inspector, tubes, task_id, watch)

    @contextmanager
    def _looking(self, queue: str) -> Iterator[tuple[Inspector, Sequence[str], Callable[[int, int], None]]]:
        """An inspector, the queue's tubes, and a function that ends a search in time."""
        tube = self._client.tube(queue)
        over = time.monotonic() + SEARCH_WITHIN

        def watch(looked: int, total: int) -> None:
            if time.monotonic() > over:
                words = f"the queue is too large to search: {looked} of {total} jobs in {SEARCH_WITHIN:g} s"
                raise ApiError(429, f"{words}; `glassq queues` and `glassq show` take their time")

        if not self._places.acquire(blocking=False):
            raise ApiError(503, f"{SEARCHES} searches of the queue run already: try again")
        try:
            with self._client.inspector(2 * SEARCH_WITHIN) as inspector:
                # its tasks may be parked beside it: a queue's name has no dot
                parked = [name for name in inspector.tubes() if name.startswith(f"{tube}.")]
                yield inspector, [tube, *parked], watch
        finally:
            self._places.release()

    def _find(
        self, inspector: Inspector, tubes: Sequence[str], task_id: str, watch: Callable[[int, int], None]
    ) -> FoundTask:
        for job in self._candidates(inspector, tubes, task_id, watch):
            task = _task(job)
            if task and job.tube in tubes and task.delivery.labels.get("task") == task_id:
                return task
        if unseen := inspector.capabilities.unseen:
            raise ApiError(501, f"task {task_id}: {unseen}")
        raise ApiError(404, f"task {task_id}: is not in the queue: it is done, was deleted, or never was there")

    def _candidates(
        self, inspector: Inspector, tubes: Sequence[str], task_id: str, watch: Callable[[int, int], None]
    ) -> Iterator[Job]:
        if ref := self._recent.ref(tubes[0], task_id):
            with suppress(JobNotFound):
                yield inspector.get(ref)
        newest = ""
        # a queue that takes no jobs does not say
        with suppress(QueueRefused):
            newest = inspector.newest()
        yield from inspector.find(ALL_STATES, tubes, progress=watch)
        if newest:
            # put anew meanwhile, for a retry: nobody may be told that it is gone
            yield from inspector.find(ALL_STATES, tubes, since=newest, progress=watch)


def _task(job: Job) -> FoundTask | None:
    delivery = readable(job)
    return FoundTask(delivery, job) if delivery is not None and delivery.source == SOURCE else None


def _is_older(ref: str, than: str) -> bool:
    """Whether a job is older, by references that count up."""
    return (len(ref), ref) < (len(than), than)
