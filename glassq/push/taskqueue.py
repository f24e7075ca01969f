"""App Engine's task queue API: `from glassq import taskqueue` replaces that of google.appengine.api.

    taskqueue.add(url="/work", payload=b"...", name="photo-17", countdown=30)
    taskqueue.Queue("mail").add([taskqueue.Task(url="/send", params={"to": name}) for name in people])

When the call returns, the task is in the queue. glassq's pool works it, at least once and in no particular order: it
POSTs the task to its target, or calls the function that a route names. The settings file is that of GLASSQ_CONFIG, or
/etc/glassq/glassq.toml (see `configure`). In asyncio: `await taskqueue.add_async(...)`.
glassq has no pull queues and no transactions: calls that need them raise.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from glassq.errors import SettingsError
from glassq.push.client import MAX_TASKS_PER_ADD, Client
from glassq.push.pending import Pending, Threads
from glassq.push.request import DEFAULT_QUEUE
from glassq.push.statistics import DEADLINE, Statistics, check_deadline
from glassq.push.task import (
    MAX_DISPATCH_DEADLINE,
    MAX_PUSH_TASK_SIZE_BYTES,
    MAX_TASK_NAME_LENGTH,
    MAX_TASK_SIZE_BYTES,
    MAX_URL_LENGTH,
    MIN_DISPATCH_DEADLINE,
    NO_PULL_QUEUES,
    TaskRetryOptions,
    TaskSpec,
)
from glassq.push.task_errors import (
    BadTaskStateError,
    BadTransactionState,
    BadTransactionStateError,
    ConfigurationError,
    DatastoreError,
    DuplicateTaskNameError,
    Error,
    InternalError,
    InvalidDeadlineError,
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidLeaseTimeError,
    InvalidMaxTasksError,
    InvalidQueueError,
    InvalidQueueModeError,
    InvalidQueueNameError,
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
    PermissionDeniedError,
    QueuePausedError,
    TaskAlreadyExistsError,
    TaskLeaseExpiredError,
    TaskTooLargeError,
    TombstonedTaskError,
    TooManyTasksError,
    TransactionalRequestTooLargeError,
    TransientError,
    UnknownQueueError,
)
from glassq.settings import TASKS, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn, Self

__all__ = [
    "MAX_DISPATCH_DEADLINE",
    "MAX_PUSH_TASK_SIZE_BYTES",
    "MAX_QUEUE_NAME_LENGTH",
    "MAX_TASKS_PER_ADD",
    "MAX_TASK_NAME_LENGTH",
    "MAX_TASK_SIZE_BYTES",
    "MAX_URL_LENGTH",
    "MIN_DISPATCH_DEADLINE",
    "BadTaskStateError",
    "BadTransactionState",
    "BadTransactionStateError",
    "Client",
    "ConfigurationError",
    "DatastoreError",
    "DuplicateTaskNameError",
    "Error",
    "InternalError",
    "InvalidDeadlineError",
    "InvalidDispatchDeadlineError",
    "InvalidEtaError",
    "InvalidLeaseTimeError",
    "InvalidMaxTasksError",
    "InvalidQueueError",
    "InvalidQueueModeError",
    "InvalidQueueNameError",
    "InvalidTagError",
    "InvalidTaskError",
    "InvalidTaskNameError",
    "InvalidTaskRetryOptionsError",
    "InvalidUrlError",
    "Pending",
    "PermissionDeniedError",
    "Queue",
    "QueuePausedError",
    "QueueStatistics",
    "Task",
    "TaskAlreadyExistsError",
    "TaskLeaseExpiredError",
    "TaskRetryOptions",
    "TaskTooLargeError",
    "TombstonedTaskError",
    "TooManyTasksError",
    "TransactionalRequestTooLargeError",
    "TransientError",
    "UnknownQueueError",
    "add",
    "add_async",
    "configure",
]

T = TypeVar("T")

MAX_QUEUE_NAME_LENGTH = 100
_QUEUE_NAME = re.compile(rf"[a-zA-Z0-9-]{{1,{MAX_QUEUE_NAME_LENGTH}}}")


class _Default:
    """The client and the threads of this process, made on first use: App Engine's functions do not take a client."""

    def __init__(self) -> None:
        self.threads = Threads()
        self._path: str | None = None
        self._clients: dict[str | None, Client] = {}

    def configure(self, path: str | None) -> None:
        self._path = path
        while self._clients:
            self._clients.popitem()[1].close()

    def client(self) -> Client:
        found = self._clients.get(self._path)
        if found is not None:
            return found
        try:
            made = Client(load(self._path, os.environ, TASKS))
        except SettingsError as error:
            raise ConfigurationError(str(error)) from None
        # if two threads get here at once, one of their clients is dropped; it has not connected yet
        return self._clients.setdefault(self._path, made)


_default = _Default()


def configure(path: str | None) -> None:
    """Selects the settings file; None: that of GLASSQ_CONFIG, or /etc/glassq/glassq.toml.

    The next add reads the file, and raises ConfigurationError if it cannot be used.
    """
    _default.configure(path)


def add(
    payload: bytes | str | None = None, *, queue_name: str = DEFAULT_QUEUE, transactional: bool = False, **task: Any
) -> Task:
    """Makes a task of the arguments (see `Task`), adds it to the queue (see `Queue.add`) and returns it."""
    made = Task(payload, **task)
    return Queue(queue_name).add(made, transactional)


def add_async(
    payload: bytes | str | None = None, *, queue_name: str = DEFAULT_QUEUE, transactional: bool = False, **task: Any
) -> Pending[Task]:
    """Like `add`, in a thread: `await` the result, or call its `get_result()`."""
    made = Task(payload, **task)
    return Queue(queue_name).add_async(made, transactional)


def finish() -> None:
    """Waits for the `_async` calls that this process has started."""
    _default.threads.finish()


def in_thread(call: Callable[[], T]) -> Pending[T]:
    """Starts the call in a thread of this process."""
    return _default.threads.start(call)


class Task(TaskSpec):
    """An HTTP request to send later. TaskSpec documents the arguments and what they raise."""

    def add(self, queue_name: str = DEFAULT_QUEUE, transactional: bool = False) -> Self:
        """Adds it to this queue; see `taskqueue.Queue.add`."""
        Queue(queue_name).add(self, transactional)
        return self

    def add_async(self, queue_name: str = DEFAULT_QUEUE, transactional: bool = False) -> Pending[Task]:
        """Adds it to this queue; see `taskqueue.Queue.add_async`."""
        return Queue(queue_name).add_async(self, transactional)


@dataclass(frozen=True, slots=True)
class QueueStatistics(Statistics):
    """A queue as it is now. Statistics documents the fields."""

    @overload
    @classmethod
    def fetch(cls, queue_or_queues: Queue | str, deadline: float = DEADLINE) -> QueueStatistics: ...  # type: ignore[overload-overlap]

    @overload
    @classmethod
    def fetch(cls, queue_or_queues: Iterable[Queue | str], deadline: float = DEADLINE) -> list[QueueStatistics]: ...

    @classmethod
    def fetch(
        cls, queue_or_queues: Queue | str | Iterable[Queue | str], deadline: float = DEADLINE
    ) -> QueueStatistics | list[QueueStatistics]:
        """The statistics of one queue or of several, given as names or as Queues; see `Queue.fetch_statistics`."""
        if isinstance(queue_or_queues, str):
            return Queue(queue_or_queues).fetch_statistics(deadline)
        if isinstance(queue_or_queues, Queue):
            return queue_or_queues.fetch_statistics(deadline)
        queues = [Queue(queue) if isinstance(queue, str) else queue for queue in queue_or_queues]
        return [queue.fetch_statistics(deadline) for queue in queues]

    @classmethod
    def fetch_async(
        cls, queue_or_queues: Queue | str | Iterable[Queue | str]
    ) -> Pending[QueueStatistics | list[QueueStatistics]]:
        """Like `fetch`, in a thread."""
        return in_thread(lambda: cls.fetch(queue_or_queues))


class Queue:
    """A push queue by its name: "default", or one in queue.yaml.

    `client` does the work; None: that of this process. Raises InvalidQueueNameError.
    """

    def __init__(self, name: str = DEFAULT_QUEUE, *, client: Client | None = None) -> None:
        if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name):
            raise InvalidQueueNameError(f"queue name {str(name)[:50]!r}: expected 1 to 100 of a-z A-Z 0-9 and -")
        self.name = name
        self._client = client

    @overload
    def add(self, task: Task, transactional: bool = False) -> Task: ...

    @overload
    def add(self, task: Iterable[Task], transactional: bool = False) -> list[Task]: ...

    def add(self, task: Task | Iterable[Task], transactional: bool = False) -> Task | list[Task]:
        """Adds a task, or up to 100 tasks, and returns its argument.

        If adding several tasks fails, `was_enqueued` says which are in the queue. After TaskAlreadyExistsError or
        TombstonedTaskError each of them is in the queue, or a task of its name was. After TransientError a task may be
        in the queue nevertheless, and adding it again may duplicate it: at least once. To make that idempotent, name
        the task: then it is duplicated only if its put was not confirmed and none of its attempts has begun when the
        second add takes over the name, seconds later.
        """
        if transactional:
            raise BadTransactionStateError("glassq has no transactions: add the task without transactional=True")
        tasks = [task] if isinstance(task, Task) else list(task)
        if not all(isinstance(given, Task) for given in tasks):
            raise InvalidTaskError("expected a Task, or a list of them")
        if tasks:
            self.client.add(self.name, tasks)
        return task if isinstance(task, Task) else tasks

    @overload
    def add_async(self, task: Task, transactional: bool = False) -> Pending[Task]: ...

    @overload
    def add_async(self, task: Iterable[Task], transactional: bool = False) -> Pending[list[Task]]: ...

    def add_async(self, task: Task | Iterable[Task], transactional: bool = False) -> Pending[Any]:
        """Like `add`, in a thread. Asking for the result raises what `add` would raise."""
        given = task if isinstance(task, Task) else list(task)
        return in_thread(lambda: self.add(given, transactional))

    def purge(self) -> None:
        """Deletes all waiting and all buried tasks. Running tasks go on."""
        self.client.purge(self.name)

    @overload
    def delete_tasks(self, task: Task) -> Task: ...

    @overload
    def delete_tasks(self, task: Iterable[Task]) -> list[Task]: ...

    def delete_tasks(self, task: Task | Iterable[Task]) -> Task | list[Task]:
        """Deletes tasks by their names. `was_deleted` stays false for tasks that are running or not in the queue.

        Searches the whole queue. Raises BadTaskStateError for a task that has no name or was deleted before, and
        DuplicateTaskNameError.
        """
        tasks = [task] if isinstance(task, Task) else list(task)
        names = {given.name for given in tasks if given.name}
        if any(not given.name or given.was_deleted for given in tasks):
            raise BadTaskStateError("a task has no name, or has been deleted before")
        if len(names) < len(tasks):
            raise DuplicateTaskNameError("a task name stands more than once in one call")
        if tasks:
            deleted = self.client.delete(self.name, frozenset(names))
            for given in tasks:
                given.was_deleted = given.name in deleted
        return task if isinstance(task, Task) else tasks

    @overload
    def delete_tasks_by_name(self, task_name: str) -> Task: ...  # type: ignore[overload-overlap]

    @overload
    def delete_tasks_by_name(self, task_name: Iterable[str]) -> list[Task]: ...

    def delete_tasks_by_name(self, task_name: str | Iterable[str]) -> Task | list[Task]:
        """Like `delete_tasks`, by name."""
        if isinstance(task_name, str):
            return self.delete_tasks(Task(name=task_name))
        return self.delete_tasks([Task(name=name) for name in task_name])

    def delete_tasks_async(self, task: Task | Iterable[Task]) -> Pending[Task | list[Task]]:
        """Like `delete_tasks`, in a thread."""
        given = task if isinstance(task, Task) else list(task)
        return in_thread(lambda: self.delete_tasks(given))

    def delete_tasks_by_name_async(self, task_name: str | Iterable[str]) -> Pending[Task | list[Task]]:
        """Like `delete_tasks_by_name`, in a thread."""
        given = task_name if isinstance(task_name, str) else list(task_name)
        return in_thread(lambda: self.delete_tasks_by_name(given))

    def fetch_statistics(self, deadline: float = DEADLINE) -> QueueStatistics:
        """The queue's statistics, looked up within `deadline` seconds.

        Raises UnknownQueueError, TransientError, or InvalidDeadlineError.
        """
        return QueueStatistics.of(self, *self.client.snapshot(self.name, check_deadline(deadline)))

    def fetch_statistics_async(self) -> Pending[QueueStatistics]:
        """Like `fetch_statistics`, in a thread."""
        return in_thread(self.fetch_statistics)

    def lease_tasks(self, *_: object, **__: object) -> NoReturn:
        """Raises InvalidQueueModeError: only pull queues have leases."""
        raise InvalidQueueModeError(NO_PULL_QUEUES)

    lease_tasks_by_tag = lease_tasks_async = lease_tasks_by_tag_async = modify_task_lease = lease_tasks

    def __repr__(self) -> str:
        return f"Queue<name={self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Queue) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def client(self) -> Client:
        """The client that does the work. Raises ConfigurationError if it must be made and the settings are unusable."""
        return self._client or _default.client()
