"""App Engine's task queue API: `from glassq import taskqueue` takes the place of google.appengine.api's.

    taskqueue.add(url="/work", payload=b"...", name="photo-17", countdown=30)
    taskqueue.Queue("mail").add([taskqueue.Task(url="/send", params={"to": each}) for each in people])

A task is kept in the queue when the call returns. It is worked by glassq's pool, which POSTs it to its target: at
least once, in no order. The settings are those that GLASSQ_CONFIG names, or /etc/glassq/glassq.toml (see `configure`).
Pull queues and transactional adds are refused: glassq has neither.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, overload

from glassq.errors import SettingsError
from glassq.push.client import MAX_TASKS_PER_ADD, Client
from glassq.push.request import DEFAULT_QUEUE
from glassq.push.task import (
    MAX_PUSH_TASK_SIZE_BYTES,
    MAX_TASK_NAME_LENGTH,
    MAX_TASK_SIZE_BYTES,
    MAX_URL_LENGTH,
    NO_PULL_QUEUES,
    Task,
    TaskRetryOptions,
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
    InvalidEtaError,
    InvalidQueueError,
    InvalidQueueModeError,
    InvalidQueueNameError,
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
    PermissionDeniedError,
    TaskAlreadyExistsError,
    TaskTooLargeError,
    TombstonedTaskError,
    TooManyTasksError,
    TransactionalRequestTooLargeError,
    TransientError,
    UnknownQueueError,
)
from glassq.settings import TASKS, load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

__all__ = [
    "MAX_PUSH_TASK_SIZE_BYTES",
    "MAX_QUEUE_NAME_LENGTH",
    "MAX_TASKS_PER_ADD",
    "MAX_TASK_NAME_LENGTH",
    "MAX_TASK_SIZE_BYTES",
    "MAX_URL_LENGTH",
    "BadTaskStateError",
    "BadTransactionState",
    "BadTransactionStateError",
    "Client",
    "ConfigurationError",
    "DatastoreError",
    "DuplicateTaskNameError",
    "Error",
    "InternalError",
    "InvalidEtaError",
    "InvalidQueueError",
    "InvalidQueueModeError",
    "InvalidQueueNameError",
    "InvalidTagError",
    "InvalidTaskError",
    "InvalidTaskNameError",
    "InvalidTaskRetryOptionsError",
    "InvalidUrlError",
    "PermissionDeniedError",
    "Queue",
    "Task",
    "TaskAlreadyExistsError",
    "TaskRetryOptions",
    "TaskTooLargeError",
    "TombstonedTaskError",
    "TooManyTasksError",
    "TransactionalRequestTooLargeError",
    "TransientError",
    "UnknownQueueError",
    "add",
    "configure",
]

MAX_QUEUE_NAME_LENGTH = 100
_QUEUE_NAME = re.compile(rf"[a-zA-Z0-9-]{{1,{MAX_QUEUE_NAME_LENGTH}}}")


class _Default:
    """The client of this process, made at its first use: App Engine's functions take none."""

    def __init__(self) -> None:
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


class Added:
    """What came of an `add_async`."""

    def __init__(self, tasks: Task | list[Task], error: Error | None = None) -> None:
        self._tasks = tasks
        self._error = error

    def get_result(self) -> Task | list[Task]:
        """What `add` would have returned. Raises what it would have raised."""
        if self._error is not None:
            raise self._error
        return self._tasks


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
            self._asked().add(self.name, tasks)
        return task if isinstance(task, Task) else tasks

    def add_async(self, task: Task | Iterable[Task], transactional: bool = False) -> Added:
        """Adds at once, which takes milliseconds; what came of it is said by `get_result()`."""
        try:
            return Added(self.add(task, transactional))
        except Error as error:
            return Added([], error)

    def purge(self) -> None:
        """Deletes all tasks that wait, and all that lie buried. What runs now goes on."""
        self._asked().purge(self.name)

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
            deleted = self._asked().delete(self.name, frozenset(names))
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

    def lease_tasks(self, *_: object, **__: object) -> NoReturn:
        """Refused: a pull queue's."""
        raise InvalidQueueModeError(NO_PULL_QUEUES)

    lease_tasks_by_tag = modify_task_lease = lease_tasks

    def __repr__(self) -> str:
        return f"Queue<name={self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Queue) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def _asked(self) -> Client:
        return self._client or _default.client()
