"""Adds tasks: claims their names, puts their deliveries into the queue, confirms the names. Serves all threads."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from glassq.delivery import BIG_JOB, Delivery, encode, new_id
from glassq.errors import (
    JobNotFound,
    NamesUnavailable,
    QueueError,
    SettingsError,
)
from glassq.log import fields, logger
from glassq.push.known import KnownQueues
from glassq.push.names import open_names
from glassq.push.names_table import TOMBSTONE, NameRequest
from glassq.push.purge import Purged, TombstoneBatch, purge, readable
from glassq.push.putting import TaskItem, put, task_error, withdraw
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
from glassq.queues import open_inspector, open_producer
from glassq.queues.base import WAITING_STATES
from glassq.routes import TASKS, all_routes
from glassq.settings import parked_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.push.names import Names
    from glassq.push.queue_yaml import PushQueue
    from glassq.push.request import TaskRequest
    from glassq.push.task import TaskSpec
    from glassq.queues import Inspector, Producer
    from glassq.queues.base import Job, TubeCounts
    from glassq.settings import PushSettings, Settings

log = logger("glassq.push")

MAX_TASKS_PER_ADD = 100
# Maximum time for all puts of one add and their proof, in seconds. The claim of named tasks may leave less.
PUT_WITHIN = 4.5
# Maximum time to purge a queue, or to search it for names, in seconds.
SEARCH_WITHIN = 60.0


class Client:
    """What `taskqueue` does, with these settings. A client made before a fork can be used after it."""

    def __init__(self, settings: Settings, *, producer: Producer | None = None, names: Names | None = None) -> None:
        """`producer` puts the tasks, `names` is the names' database; by default those of the settings.

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
        self._producer = producer or open_producer(settings)
        self.names = names or open_names(settings.push)
        self._queues = KnownQueues(settings.push.queue_yaml)

    def add(self, queue_name: str, tasks: Sequence[TaskSpec]) -> None:
        """Adds the tasks to this queue, and sets their `was_enqueued`.

        Raises DuplicateTaskNameError, BadTaskStateError, TooManyTasksError, UnknownQueueError or InvalidTaskError,
        and then puts nothing. Otherwise puts every task that it can, and then raises the first of TransientError,
        InternalError, TaskTooLargeError, TaskAlreadyExistsError and TombstonedTaskError.
        """
        _check(tasks)
        self.known(queue_name)
        items = [self.item(task.request(queue_name, ""), task.payload or b"") for task in tasks]
        self.put(queue_name, items)
        for task, item in zip(tasks, items, strict=True):
            if item.put_state == "put":
                task.name, task.queue_name, task.was_enqueued = item.label, queue_name, True
        if errors := [item.error for item in items if item.error]:
            raise min(errors, key=_rank)

    def item(self, request: TaskRequest, payload: bytes) -> TaskItem:
        """The task of this request (`name` "": its author gives it none), ready to be put.

        Raises UnknownQueueError, or InvalidTaskError where no target takes it or it is too large.
        """
        queue = self.known(request.queue)
        own, name, now = new_id(), request.name, datetime.now(UTC)
        labels = (request if name else msgspec.structs.replace(request, name=own)).labels()
        self._check_target(request.target, queue, labels)
        due = datetime.fromtimestamp(request.eta, UTC) if request.eta > now.timestamp() else None
        tube = tube_of(self._base, queue.name)
        delivery = Delivery(id=own, source=SOURCE, received=now, labels=labels, tube=tube, due=due, body=payload)
        encoded = encode(delivery)
        if len(encoded) > BIG_JOB:
            raise TaskTooLargeError(
                f"the task's job would have {len(encoded)} bytes, of {BIG_JOB}: shorten its headers"
            )
        return TaskItem(delivery, encoded, name, request.eta)

    def tube(self, queue_name: str) -> str:
        """The tube of this queue. Raises UnknownQueueError."""
        return tube_of(self._base, self.known(queue_name).name)

    def queues(self) -> list[PushQueue]:
        """The queues of queue.yaml, with "default"."""
        return self._queues.all()

    def put(self, queue_name: str, items: Sequence[TaskItem]) -> None:
        """Puts the items of this queue, their names claimed before and confirmed after; sets `error` of each."""
        over = time.monotonic() + PUT_WITHIN
        if named := [item for item in items if item.name]:
            over = self._claim(queue_name, named)
            named = [item for item in named if item.error is None]
        try:
            self.put_unnamed([item for item in items if item.error is None], over)
        finally:
            self._settle(queue_name, named)

    def put_unnamed(self, items: Sequence[TaskItem], over: float | None = None) -> None:
        """Puts the items, of any queues, without a look at their names; sets `error` of each.

        To be done by `over` (time.monotonic()); None: within PUT_WITHIN.
        """
        put(self._producer, items, time.monotonic() + PUT_WITHIN if over is None else over)

    def check(self, within: float) -> None:
        """Raises QueueError if a task would not be kept durably now. Asks within so many seconds."""
        self._producer.check(within=within)

    def purge(self, queue_name: str) -> int:
        """Deletes all waiting and all buried tasks of this queue; returns how many. Running tasks go on.

        Raises UnknownQueueError, or TransientError (then some may be deleted).
        """
        self.known(queue_name)
        with self.inspector(SEARCH_WITHIN) as inspector:
            _require_waiting(inspector)
            tubes = self._tubes(inspector, queue_name)
            done = Purged.of(*inspector.counts(tubes))
            for _ in purge(inspector, tubes, self.names, done):
                pass
        return done.deleted

    def delete(self, queue_name: str, names: frozenset[str]) -> set[str]:
        """Deletes the tasks with these names; returns the names of those that were waiting or buried.

        The queue knows no names: this looks through all its jobs. Raises like `purge`.
        """
        self.known(queue_name)
        deleted: set[str] = set()
        with self.inspector(SEARCH_WITHIN) as inspector, TombstoneBatch(self.names) as finished:
            _require_waiting(inspector)
            for job in inspector.find(WAITING_STATES, self._tubes(inspector, queue_name)):
                delivery = readable(job)
                name = delivery.labels.get("task", "") if delivery else ""
                if delivery and name in names and _delete(inspector, job):
                    finished.add(queue_name, delivery)
                    deleted.add(name)
                if deleted == names:
                    break
        return deleted

    def snapshot(self, queue_name: str, within: float) -> tuple[TubeCounts, Job | None, PushQueue]:
        """The counts of this queue, its next job, and its settings in queue.yaml, within so many seconds.

        Raises UnknownQueueError or TransientError.
        """
        known, tube = self.known(queue_name), tube_of(self._base, queue_name)
        with self.inspector(within) as inspector:
            (counts,) = inspector.counts([tube])
            first = inspector.first("ready", tube) if inspector.capabilities.oldest else None
            return counts, first, known

    def close(self) -> None:
        """Closes the idle connections; later calls open others."""
        self._producer.close()
        self.names.close()

    def _tubes(self, inspector: Inspector, queue_name: str) -> list[str]:
        """The tube of this queue, and those in which its tasks are parked."""
        tube = tube_of(self._base, queue_name)
        return [tube, *parked_of(self._base, tube, inspector.tubes())]

    def known(self, queue_name: str) -> PushQueue:
        """The queue of this name. Raises UnknownQueueError."""
        queue = self._queues.find(queue_name)
        if queue is None:
            where = self._push.queue_yaml or "any file, as [push] queue_yaml is not set"
            raise UnknownQueueError(f"queue {queue_name!r} is not in {where}")
        return queue

    def _check_target(self, given: str, queue: PushQueue, labels: Mapping[str, str]) -> None:
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

    def _claim(self, queue_name: str, named: Sequence[TaskItem]) -> float:
        """Claims the names; sets `error` of those that are taken. Returns until when the puts must be over."""
        now = time.time()
        requests = [
            NameRequest(item.name, item.delivery.id, datetime.fromtimestamp(item.eta or now, UTC)) for item in named
        ]
        try:
            claimed = self.names.claim(queue_name, requests)
        except NamesUnavailable as error:
            raise TransientError(f"task names: {error}") from error
        for item in named:
            if (state := claimed.taken.get(item.name)) is not None:
                kind = TombstonedTaskError if state == TOMBSTONE else TaskAlreadyExistsError
                item.error = kind(f"task {item.name!r} of queue {queue_name!r} {_STATES[state]}")
        return min(claimed.until, time.monotonic() + PUT_WITHIN)

    def _settle(self, queue_name: str, named: Sequence[TaskItem]) -> None:
        """Confirms the names of tasks that were put, and releases those of tasks that certainly were not."""
        put = {item.name: item for item in named if item.put_state == "put"}
        unsent = {item.name: item.delivery.id for item in named if item.put_state == "unsent"}
        lost: set[str] = set()
        try:
            if put:
                lost = self.names.confirm(queue_name, {name: item.delivery.id for name, item in put.items()})
            if unsent:
                self.names.release(queue_name, unsent)
        except (NamesUnavailable, SettingsError) as error:
            # the tasks are in the queue, which is what counts: their first attempts confirm the names
            log.error("task names cannot be settled %s", fields(queue=queue_name, error=error))
        for name in sorted(lost):
            self._take_back(queue_name, put[name])

    def _take_back(self, queue_name: str, item: TaskItem) -> None:
        """Deletes our task: this process was stopped for so long that another one has taken over the name."""
        withdraw(self._producer, [item])
        if item.put_state == "put":
            where = fields(delivery=item.delivery.id, queue=queue_name, task=item.name)
            log.warning("task is put twice: its name was taken over %s", where)
        item.error = TaskAlreadyExistsError(f"task {item.name!r} of queue {queue_name!r} was just added by another")

    @contextmanager
    def inspector(self, within: float) -> Iterator[Inspector]:
        """A look at the queue within so many seconds. Raises TransientError or InternalError for what it raises."""
        with closing(open_inspector(self.settings)) as inspector:
            inspector.set_deadline(time.monotonic() + within)
            try:
                yield inspector
            except QueueError as error:
                raise task_error(error) from error


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


def _require_waiting(inspector: Inspector) -> None:
    """Raises InternalError where the engine cannot show what waits."""
    if unseen := inspector.capabilities.unseen:
        raise InternalError(unseen)


def _delete(inspector: Inspector, job: Job) -> bool:
    """Whether it could be deleted; it may have been reserved just now."""
    try:
        inspector.delete(job)
    except JobNotFound:
        return False
    return True


def _rank(error: Error) -> int:
    """Which error of several is raised: as in App Engine, other errors come before those of existing tasks."""
    if isinstance(error, TaskAlreadyExistsError | TombstonedTaskError):
        return 2
    return 0 if isinstance(error, TaskTooLargeError) else 1
