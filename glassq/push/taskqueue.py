"""App Engine's task queue API: `from glassq import taskqueue` takes the place of google.appengine.api's.

    taskqueue.add(url="/work", payload=b"...", name="photo-17", countdown=30)
    taskqueue.Queue("mail").add([taskqueue.Task(url="/send", params={"to": each}) for each in people])

A task is kept in the queue when the call returns. glassq's pool works it, at least once and in no order: it POSTs the
task to its target, or calls the function that a route names. The settings are those that GLASSQ_CONFIG names, or
/etc/glassq/glassq.toml (see `configure`). In asyncio: `await taskqueue.add_async(...)`.
Pull queues and transactional adds are refused: glassq has neither.
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
    """The client of this process, made at its first use: App Engine's functions take none. And its threads."""

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
        # of two threads that come first at once one makes a client in vain: nothing is connected yet
        return self._clients.setdefault(self._path, made)


_default = _Default()


def configure(path: str | None) -> None:
    """From now on the settings are those of this file; None: of GLASSQ_CONFIG, or /etc/glassq/glassq.toml.

    The file is read at the next add, which raises ConfigurationError where it cannot be used.
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
    """As `add`, in a thread: `await` what it returns, or ask its `get_result()`."""
    made = Task(payload, **task)
    return Queue(queue_name).add_async(made, transactional)


def finish() -> None:
    """Waits for the `_async` calls that this process has started."""
    _default.threads.finish()


def in_thread(call: Callable[[], T]) -> Pending[T]:
    """Has the call begun in one of this process's threads for tasks."""
    return _default.threads.start(call)


class Task(TaskSpec):
    """One HTTP request to make later, for a queue; TaskSpec tells its arguments and what they raise."""

    def add(self, queue_name: str = DEFAULT_QUEUE, transactional: bool = False) -> Self:
        """Adds it to this queue; see `taskqueue.Queue.add`."""
        Queue(queue_name).add(self, transactional)
        return self

    def add_async(self, queue_name: str = DEFAULT_QUEUE, transactional: bool = False) -> Pending[Task]:
        """Adds it to this queue; see `taskqueue.Queue.add_async`."""
        return Queue(queue_name).add_async(self, transactional)


@dataclass(frozen=True, slots=True)
class QueueStatistics(Statistics):
    """A queue as it is now; Statistics tells its fields."""

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
        """The statistics of a queue, or of each of several, named or as they are; see `Queue.fetch_statistics`."""
        if isinstance(queue_or_queues, str):
            return Queue(queue_or_queues).fetch_statistics(deadline)
        if isinstance(queue_or_queues, Queue):
            return queue_or_queues.fetch_statistics(deadline)
        queues = [Queue(each) if isinstance(each, str) else each for each in queue_or_queues]
        return [each.fetch_statistics(deadline) for each in queues]

    @classmethod
    def fetch_async(
        cls, queue_or_queues: Queue | str | Iterable[Queue | str]
    ) -> Pending[QueueStatistics | list[QueueStatistics]]:
        """As `fetch`, in a thread."""
        return in_thread(lambda: cls.fetch(queue_or_queues))


class Queue:
    """A queue by its name: "default", or one in queue.yaml.

    `client` is whom it asks; without one, the process's own. Raises InvalidQueueNameError.
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
        """Adds a task, or up to 100 of them, and returns what was given.

        After an error of several tasks `was_enqueued` says which are in the queue. Where it is TaskAlreadyExistsError
        or TombstonedTaskError, each of them is there, or a task of its name was. After TransientError a task may be
        there all the same, and adding it again may double it: at least once. A named one is doubled only where its put
        was not confirmed, and none of its attempts has begun until the second add takes the name over, seconds later.
        """
        if transactional:
            raise BadTransactionStateError("glassq has no transactions: add the task without transactional=True")
        tasks = [task] if isinstance(task, Task) else list(task)
        if not all(isinstance(each, Task) for each in tasks):
            raise InvalidTaskError("expected a Task, or a list of them")
        if tasks:
            self.client.add(self.name, tasks)
        return task if isinstance(task, Task) else tasks

    @overload
    def add_async(self, task: Task, transactional: bool = False) -> Pending[Task]: ...

    @overload
    def add_async(self, task: Iterable[Task], transactional: bool = False) -> Pending[list[Task]]: ...

    def add_async(self, task: Task | Iterable[Task], transactional: bool = False) -> Pending[Any]:
        """As `add`, in a thread. What `add` would raise is raised where the result is asked for."""
        given = task if isinstance(task, Task) else list(task)
        return in_thread(lambda: self.add(given, transactional))

    def purge(self) -> None:
        """Deletes all tasks that wait, and all that lie buried. What runs now goes on."""
        self.client.purge(self.name)

    @overload
    def delete_tasks(self, task: Task) -> Task: ...

    @overload
    def delete_tasks(self, task: Iterable[Task]) -> list[Task]: ...

    def delete_tasks(self, task: Task | Iterable[Task]) -> Task | list[Task]:
        """Deletes tasks by their names; `was_deleted` stays false for those that run now, or are not there.

        It looks through all of the queue. Raises BadTaskStateError for a task without a name, or deleted before, and
        DuplicateTaskNameError.
        """
        tasks = [task] if isinstance(task, Task) else list(task)
        names = {each.name for each in tasks if each.name}
        if any(not each.name or each.was_deleted for each in tasks):
            raise BadTaskStateError("a task has no name, or has been deleted before")
        if len(names) < len(tasks):
            raise DuplicateTaskNameError("a task name stands more than once in one call")
        if tasks:
            deleted = self.client.delete(self.name, frozenset(names))
            for each in tasks:
                each.was_deleted = each.name in deleted
        return task if isinstance(task, Task) else tasks

    @overload
    def delete_tasks_by_name(self, task_name: str) -> Task: ...  # type: ignore[overload-overlap]

    @overload
    def delete_tasks_by_name(self, task_name: Iterable[str]) -> list[Task]: ...

    def delete_tasks_by_name(self, task_name: str | Iterable[str]) -> Task | list[Task]:
        """As `delete_tasks`, by the names themselves."""
        if isinstance(task_name, str):
            return self.delete_tasks(Task(name=task_name))
        return self.delete_tasks([Task(name=each) for each in task_name])

    def delete_tasks_async(self, task: Task | Iterable[Task]) -> Pending[Task | list[Task]]:
        """As `delete_tasks`, in a thread."""
        given = task if isinstance(task, Task) else list(task)
        return in_thread(lambda: self.delete_tasks(given))

    def delete_tasks_by_name_async(self, task_name: str | Iterable[str]) -> Pending[Task | list[Task]]:
        """As `delete_tasks_by_name`, in a thread."""
        given = task_name if isinstance(task_name, str) else list(task_name)
        return in_thread(lambda: self.delete_tasks_by_name(given))

    def fetch_statistics(self, deadline: float = DEADLINE) -> QueueStatistics:
        """How many tasks there are, and how the queue does; within so many seconds.

        Raises UnknownQueueError, TransientError, or InvalidDeadlineError.
        """
        return QueueStatistics.of(self, *self.client.look(self.name, check_deadline(deadline)))

    def fetch_statistics_async(self) -> Pending[QueueStatistics]:
        """As `fetch_statistics`, in a thread."""
        return in_thread(self.fetch_statistics)

    def lease_tasks(self, *_: object, **__: object) -> NoReturn:
        """Refused: a pull queue's."""
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
        """Whom it asks. Raises ConfigurationError where that is the process's own, and the settings cannot be used."""
        return self._client or _default.client()
