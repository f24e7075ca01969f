"""Adds tasks: claims their names, puts their deliveries into the queue, confirms the names. Serves all threads."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from glassq.delivery import BIG_JOB, Delivery, decode, encode, new_id
from glassq.errors import (
    DamagedDelivery,
    JobNotFound,
    JobTooBig,
    NamesUnavailable,
    NotDurable,
    QueueRefused,
    SettingsError,
)
from glassq.log import fields, logger
from glassq.push.connections import Connections
from glassq.push.known import KnownQueues
from glassq.push.names import open_names
from glassq.push.names_table import TOMBSTONE, NameRequest
from glassq.push.purge import Purged, TombstoneBatch, purge
from glassq.push.request import DEFAULT_TARGET, SOURCE, tube_of
from glassq.push.task_errors import (
    BadTaskStateError,
    DuplicateTaskNameError,
    Error,
    InternalError,
    InvalidTaskError,
    TaskAlreadyExistsError,
    TaskTooLargeError,
    TombstonedTaskError,
    TooManyTasksError,
    TransientError,
    UnknownQueueError,
)
from glassq.queues import JobStats, open_queue
from glassq.queues.beanstalk.protocol import ScanShort
from glassq.routes import TASKS, all_routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.push.names import Names
    from glassq.push.queue_yaml import PushQueue
    from glassq.push.task import TaskSpec
    from glassq.queues import Job, Queue
    from glassq.queues.beanstalk.protocol import TubeStats
    from glassq.settings import PushSettings, Settings

log = logger("glassq.push")

MAX_TASKS_PER_ADD = 100
# Maximum time for all puts of one add, in seconds. The claim of named tasks may leave less.
PUT_WITHIN = 4.5
# Maximum time to purge a queue, or to search it for names, in seconds.
SEARCH_WITHIN = 60.0
_DELETABLE = frozenset({"ready", "delayed", "buried"})


@dataclass(slots=True, eq=False)
class _Item:
    """A task being added. `put_state` is what we know of its put: not sent, perhaps done, or done."""

    task: TaskSpec
    delivery: Delivery
    job: bytes
    put_state: Literal["unsent", "unknown", "put"] = "unsent"
    job_id: int = 0


class Client:
    """What `taskqueue` does, with these settings. A client made before a fork can be used after it."""

    def __init__(
        self, settings: Settings, *, connect: Callable[[], Queue] | None = None, names: Names | None = None
    ) -> None:
        """`connect` makes an unconnected queue, `names` is the names' database; by default those of the settings.

        Raises SettingsError if there is no [push] section, or if queue.yaml cannot be used.
        """
        if settings.push is None:
            raise SettingsError(
                f"{settings.file or 'glassq.toml'}: missing section [push]: expected it where tasks are added"
            )
        self.settings = settings
        self._push: PushSettings = settings.push
        self._routes = all_routes(settings)
        self._file = settings.file
        self._base = settings.queue.tube
        self._durable = settings.intake.require_durable
        self._connections = Connections(
            connect or (lambda: open_queue(settings.queue, lease=settings.lease, require_durable=self._durable))
        )
        self._names = names or open_names(settings.push)
        self._queues = KnownQueues(settings.push.queue_yaml)

    def add(self, queue_name: str, tasks: Sequence[TaskSpec]) -> None:
        """Adds the tasks to this queue, and sets their `was_enqueued`.

        Raises DuplicateTaskNameError, BadTaskStateError, TooManyTasksError, UnknownQueueError or InvalidTaskError,
        and then puts nothing. Otherwise puts every task that it can, and then raises the first of TransientError,
        InternalError, TaskTooLargeError, TaskAlreadyExistsError and TombstonedTaskError.
        """
        _check(tasks)
        queue = self._known(queue_name)
        items = [self._item(queue, task) for task in tasks]
        named = [item for item in items if item.task.name]
        over = time.monotonic() + PUT_WITHIN
        errors: list[Error] = []
        if named:
            over, refused = self._claim(queue_name, named)
            errors += refused.values()
            items = [item for item in items if item.task.name not in refused]
            named = [item for item in named if item.task.name not in refused]
        try:
            errors += self._put(queue_name, items, over)
        finally:
            errors += self._settle(queue_name, named)
        for item in items:
            if item.put_state == "put":
                item.task.name, item.task.queue_name, item.task.was_enqueued = _name(item), queue_name, True
        if errors:
            # as in App Engine: other errors come before those of existing tasks
            raise min(errors, key=lambda error: isinstance(error, TaskAlreadyExistsError | TombstonedTaskError))

    def purge(self, queue_name: str) -> int:
        """Deletes all waiting and all buried tasks of this queue; returns how many. Running tasks go on.

        Raises UnknownQueueError, or TransientError (then some may be deleted).
        """
        self._known(queue_name)
        with self._connections.lend(time.monotonic() + SEARCH_WITHIN) as queue:
            tube = tube_of(self._base, queue_name)
            counts = queue.stats_tube(tube)
            done = Purged({"ready": counts.ready, "delayed": counts.delayed, "buried": counts.buried})
            for _ in purge(lambda state: queue.head(state, tube), lambda job: queue.delete(job.id), self._names, done):
                pass
        return done.deleted

    def delete(self, queue_name: str, names: frozenset[str]) -> set[str]:
        """Deletes the tasks with these names; returns the names of those that were waiting or buried.

        beanstalkd knows no names: all jobs of the queue are looked through. Raises like `purge`.
        """
        self._known(queue_name)
        deleted: set[str] = set()
        with self._connections.lend(time.monotonic() + SEARCH_WITHIN) as queue, TombstoneBatch(self._names) as finished:
            for delivery, job_id in self._waiting(queue, queue_name):
                name = delivery.labels.get("task", "")
                if name in names and _delete(queue, job_id):
                    finished.add(queue_name, delivery)
                    deleted.add(name)
                if deleted == names:
                    break
        return deleted

    def snapshot(self, queue_name: str, within: float) -> tuple[TubeStats, Job | None, PushQueue]:
        """The counts of this queue, its next job, and its settings in queue.yaml, within so many seconds.

        Raises UnknownQueueError or TransientError.
        """
        known, tube = self._known(queue_name), tube_of(self._base, queue_name)
        with self._connections.lend(time.monotonic() + within) as queue:
            return queue.stats_tube(tube), queue.head("ready", tube), known

    def close(self) -> None:
        """Closes the idle connections; later calls open others."""
        self._connections.close()
        self._names.close()

    def _known(self, queue_name: str) -> PushQueue:
        queue = self._queues.find(queue_name)
        if queue is None:
            where = self._push.queue_yaml or "any file, as [push] queue_yaml is not set"
            raise UnknownQueueError(f"queue {queue_name!r} is not in {where}")
        return queue

    def _item(self, queue: PushQueue, task: TaskSpec) -> _Item:
        own = new_id()
        request = task.request(queue.name, own)
        labels = request.labels()
        self._check_target(task.target, queue, labels)
        body = task.payload or b""
        delivery = Delivery(id=own, source=SOURCE, received=datetime.now(UTC), labels=labels, body=body)
        job = encode(delivery)
        if len(job) > BIG_JOB:
            raise TaskTooLargeError(f"the task's job would have {len(job)} bytes, of {BIG_JOB}: shorten its headers")
        return _Item(task, delivery, job)

    def _check_target(self, given: str | None, queue: PushQueue, labels: Mapping[str, str]) -> None:
        """Raises InvalidTaskError if the target that the task names or needs does not exist."""
        target = given or queue.target or DEFAULT_TARGET
        if target in self._push.targets:
            return
        to = next(route for route in self._routes if route.wants(SOURCE, labels))
        if given or to is TASKS:
            known = ", ".join(sorted(self._push.targets)) or "none"
            hint = "" if given else f'; only a task that a route with source = "{SOURCE}" takes needs none'
            raise InvalidTaskError(
                f'target "{target}" is not in [push.targets] of {self._file}; there are: {known}{hint}'
            )

    def _claim(self, queue_name: str, named: Sequence[_Item]) -> tuple[float, dict[str | None, Error]]:
        """Claims the names. Returns until when the puts must be over, and an error for each name that is taken."""
        requests = [NameRequest(_name(item), item.delivery.id, item.task.eta) for item in named]
        try:
            claimed = self._names.claim(queue_name, requests)
        except NamesUnavailable as error:
            raise TransientError(f"task names: {error}") from error
        refused: dict[str | None, Error] = {}
        for name, state in claimed.taken.items():
            kind = TombstonedTaskError if state == TOMBSTONE else TaskAlreadyExistsError
            refused[name] = kind(f"task {name!r} of queue {queue_name!r} {_STATES[state]}")
        return min(claimed.until, time.monotonic() + PUT_WITHIN), refused

    def _put(self, queue_name: str, items: Sequence[_Item], over: float) -> list[Error]:
        tube = tube_of(self._base, queue_name)
        errors: list[Error] = []
        try:
            with self._connections.lend(over) as queue:
                for item in items:
                    try:
                        self._put_one(queue, item, tube)
                    except JobTooBig:
                        errors.append(TaskTooLargeError(_too_large(item)))
                if self._durable:
                    # nothing is put any more: this may end later than the claim of the names
                    queue.set_deadline(time.monotonic() + PUT_WITHIN)
                    _check_durable(queue, items)
        except (TransientError, InternalError) as error:
            errors.append(error)
        return errors

    def _put_one(self, queue: Queue, item: _Item, tube: str) -> None:
        item.put_state = "unknown"
        try:
            delay = max(0, math.ceil(item.task.eta_posix - time.time())) if item.task.has_eta else 0
            item.job_id = queue.put(item.job, delay=delay, tube=tube)
        except (JobTooBig, QueueRefused):
            item.put_state = "unsent"
            raise
        item.put_state = "put"

    def _settle(self, queue_name: str, named: Sequence[_Item]) -> list[Error]:
        """Confirms the names of tasks that were put, and releases those of tasks that certainly were not."""
        put = {_name(item): item for item in named if item.put_state == "put"}
        unsent = {_name(item): item.delivery.id for item in named if item.put_state == "unsent"}
        lost: set[str] = set()
        try:
            if put:
                lost = self._names.confirm(queue_name, {name: item.delivery.id for name, item in put.items()})
            if unsent:
                self._names.release(queue_name, unsent)
        except (NamesUnavailable, SettingsError) as error:
            # the tasks are in the queue, which is what counts: their first attempts confirm the names
            log.error("task names cannot be settled %s", fields(queue=queue_name, error=error))
        return [self._take_back(queue_name, put[name]) for name in sorted(lost)]

    def _take_back(self, queue_name: str, item: _Item) -> Error:
        """Deletes our task: this process was stopped for so long that another one has taken over the name."""
        try:
            with self._connections.lend(time.monotonic() + PUT_WITHIN) as queue:
                queue.delete(item.job_id)
            item.put_state = "unsent"
        except (JobNotFound, Error):
            where = fields(delivery=item.delivery.id, queue=queue_name, task=item.task.name)
            log.warning("task is put twice: its name was taken over %s", where)
        return TaskAlreadyExistsError(f"task {item.task.name!r} of queue {queue_name!r} was just added by another")

    def _waiting(self, queue: Queue, queue_name: str) -> Iterator[tuple[Delivery, int]]:
        """What waits in the queue, each with its job; without what is damaged, or gone by now."""
        for found in queue.scan(_DELETABLE, tube_of(self._base, queue_name)):
            if isinstance(found, ScanShort):
                raise TransientError(f"only {found.found} of {found.promised} tasks could be found now")
            if isinstance(found, JobStats):
                with suppress(JobNotFound, DamagedDelivery):
                    yield decode(queue.peek(found.id).body), found.id


_STATES = {"put": "is in the queue", TOMBSTONE: "ran, or was deleted, within the last 9 days"}


def _check(tasks: Sequence[TaskSpec]) -> None:
    if len(tasks) > MAX_TASKS_PER_ADD:
        raise TooManyTasksError(f"one call adds at most {MAX_TASKS_PER_ADD} tasks; these are {len(tasks)}")
    names = set()
    for task in tasks:
        if task.was_enqueued:
            raise BadTaskStateError(f"task {task.name!r} has been added before")
        if task.name in names:
            raise DuplicateTaskNameError(f"task name {task.name!r} stands more than once in one call")
        if task.name:
            names.add(task.name)
    if len({id(task) for task in tasks}) < len(tasks):
        raise BadTaskStateError("one task stands more than once in one call")


def _check_durable(queue: Queue, items: Sequence[_Item]) -> None:
    """Raises NotDurable where the server has stopped writing to disk: it answers INSERTED as before then.

    It never begins again by itself, so the last put speaks for those before it.
    """
    put = [item for item in items if item.put_state == "put"]
    if not put:
        return
    try:
        found = queue.stats_job(put[-1].job_id)
    except JobNotFound:
        # worked already: another one tells
        found = queue.probe()
    if not found.file:
        for item in put:
            item.put_state = "unknown"
        raise NotDurable("beanstalkd kept the task in memory only: its binlog failed")


def _delete(queue: Queue, job_id: int) -> bool:
    """Whether it could be deleted; it may have been reserved just now."""
    try:
        queue.delete(job_id)
    except JobNotFound:
        return False
    return True


def _name(item: _Item) -> str:
    return item.task.name or item.delivery.id


def _too_large(item: _Item) -> str:
    return f"beanstalkd takes no job of {len(item.job)} bytes: start it with -z {BIG_JOB}, as App Engine takes 100 KB"
