"""Adds tasks: claims their names, puts their deliveries into the queue, confirms the names. Serves all threads."""

from __future__ import annotations

import math
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from glassq.delivery import BIG_JOB, Delivery, encode, new_id
from glassq.errors import (
    JobNotFound,
    JobTooBig,
    NamesUnavailable,
    QueueError,
    QueueRefused,
    QueueUnavailable,
    SearchIncomplete,
    SettingsError,
)
from glassq.log import fields, logger
from glassq.push.known import KnownQueues
from glassq.push.names import open_names
from glassq.push.names_table import TOMBSTONE, NameRequest
from glassq.push.purge import Purged, TombstoneBatch, purge, readable
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
from glassq.queues.base import WAITING_STATES, NewJob, Receipt, Refusal
from glassq.routes import TASKS, all_routes
from glassq.settings import parked_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.push.names import Names
    from glassq.push.queue_yaml import PushQueue
    from glassq.push.task import TaskSpec
    from glassq.queues import Inspector, Producer
    from glassq.queues.base import Job, TubeCounts
    from glassq.settings import PushSettings, Settings

log = logger("glassq.push")

MAX_TASKS_PER_ADD = 100
# Maximum time for all puts of one add and their proof, in seconds. The claim of named tasks may leave less.
PUT_WITHIN = 4.5
# Maximum time to take back what was put in vain, in seconds.
WITHDRAW_WITHIN = 1.0
# Maximum time to purge a queue, or to search it for names, in seconds.
SEARCH_WITHIN = 60.0


@dataclass(slots=True, eq=False)
class _Item:
    """A task being added. `put_state`: it is not in the queue, perhaps it is, or it is and the queue has proven it."""

    task: TaskSpec
    delivery: Delivery
    body: bytes
    put_state: Literal["unsent", "unknown", "put"] = "unsent"
    receipt: Receipt | None = None

    def job(self, tube: str) -> NewJob:
        """The job to put, with the delay that is left now."""
        delay = max(0, math.ceil(self.task.eta_posix - time.time())) if self.task.has_eta else 0
        return NewJob(self.delivery.id, self.body, tube, delay)


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
        with self._inspector(SEARCH_WITHIN) as inspector:
            tubes = self._tubes(inspector, queue_name)
            done = Purged.of(*inspector.counts(tubes))
            for _ in purge(inspector, tubes, self._names, done):
                pass
        return done.deleted

    def delete(self, queue_name: str, names: frozenset[str]) -> set[str]:
        """Deletes the tasks with these names; returns the names of those that were waiting or buried.

        The queue knows no names: this looks through all its jobs. Raises like `purge`.
        """
        self._known(queue_name)
        deleted: set[str] = set()
        with self._inspector(SEARCH_WITHIN) as inspector, TombstoneBatch(self._names) as finished:
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
        known, tube = self._known(queue_name), tube_of(self._base, queue_name)
        with self._inspector(within) as inspector:
            (counts,) = inspector.counts([tube])
            return counts, inspector.first("ready", tube), known

    def close(self) -> None:
        """Closes the idle connections; later calls open others."""
        self._producer.close()
        self._names.close()

    def _tubes(self, inspector: Inspector, queue_name: str) -> list[str]:
        """The tube of this queue, and those in which its tasks are parked."""
        tube = tube_of(self._base, queue_name)
        return [tube, *parked_of(self._base, tube, (counts.name for counts in inspector.counts()))]

    def _known(self, queue_name: str) -> PushQueue:
        queue = self._queues.find(queue_name)
        if queue is None:
            where = self._push.queue_yaml or "any file, as [push] queue_yaml is not set"
            raise UnknownQueueError(f"queue {queue_name!r} is not in {where}")
        return queue

    def _item(self, queue: PushQueue, task: TaskSpec) -> _Item:
        own, now = new_id(), datetime.now(UTC)
        request = task.request(queue.name, own)
        labels = request.labels()
        self._check_target(task.target, queue, labels)
        body = task.payload or b""
        tube = tube_of(self._base, queue.name)
        due = task.eta if task.has_eta and task.eta > now else None
        delivery = Delivery(id=own, source=SOURCE, received=now, labels=labels, tube=tube, due=due, body=body)
        encoded = encode(delivery)
        if len(encoded) > BIG_JOB:
            raise TaskTooLargeError(
                f"the task's job would have {len(encoded)} bytes, of {BIG_JOB}: shorten its headers"
            )
        return _Item(task, delivery, encoded)

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
        jobs = [item.job(tube) for item in items]
        for item in items:
            # An interrupt (KeyboardInterrupt, errors.Interrupt) may come at any moment from here on.
            item.put_state = "unknown"
        answers = self._producer.put(jobs, within=max(0.0, over - time.monotonic()))
        errors: list[Error] = []
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Receipt):
                item.receipt = answer
            elif isinstance(answer.error, JobTooBig):
                item.put_state = "unsent"
                errors.append(TaskTooLargeError(_too_large(item, answer.error)))
            else:
                item.put_state = "unknown" if answer.in_doubt else "unsent"
        failed = [answer.error for answer in answers if isinstance(answer, Refusal)]
        errors += [_task_error(error) for error in failed if not isinstance(error, JobTooBig)][:1]
        return [*errors, *self._confirm(items, over)]

    def _confirm(self, items: Sequence[_Item], over: float) -> list[Error]:
        """An error where the queue does not prove that it keeps what was put."""
        put = [item for item in items if item.receipt is not None]
        receipts = [item.receipt for item in put if item.receipt]
        try:
            self._producer.confirm(receipts, within=max(0.0, over - time.monotonic()))
        except QueueError as error:
            # What stays may be worked, or lost with the power: its name stays claimed, until the claim runs out.
            self._withdraw(put)
            return [_task_error(error)]
        for item in put:
            item.put_state = "put"
        return []

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
        self._withdraw([item])
        if item.put_state == "put":
            where = fields(delivery=item.delivery.id, queue=queue_name, task=item.task.name)
            log.warning("task is put twice: its name was taken over %s", where)
        return TaskAlreadyExistsError(f"task {item.task.name!r} of queue {queue_name!r} was just added by another")

    def _withdraw(self, items: Sequence[_Item]) -> None:
        """Deletes what nobody has begun to work, as far as the queue answers at once."""
        over = time.monotonic() + WITHDRAW_WITHIN
        with suppress(QueueError):
            for item in items:
                left = max(0.0, over - time.monotonic())
                if item.receipt is not None and self._producer.withdraw(item.receipt, within=left):
                    item.put_state = "unsent"

    @contextmanager
    def _inspector(self, within: float) -> Iterator[Inspector]:
        """A look at the queue within so many seconds. Raises TransientError or InternalError for what it raises."""
        with closing(open_inspector(self.settings)) as inspector:
            inspector.set_deadline(time.monotonic() + within)
            try:
                yield inspector
            except QueueError as error:
                raise _task_error(error) from error


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


def _task_error(error: QueueError) -> Error:
    """What App Engine's API calls an error of the queue."""
    if isinstance(error, QueueUnavailable | QueueRefused | SearchIncomplete):
        return TransientError(str(error))
    return InternalError(str(error))


def _delete(inspector: Inspector, job: Job) -> bool:
    """Whether it could be deleted; it may have been reserved just now."""
    try:
        inspector.delete(job)
    except JobNotFound:
        return False
    return True


def _name(item: _Item) -> str:
    return item.task.name or item.delivery.id


def _too_large(item: _Item, error: JobTooBig) -> str:
    return f"{error}. This one has {len(item.body)} bytes; tasks as large as on App Engine need {BIG_JOB} bytes"
