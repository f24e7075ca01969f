"""Names of queues and tasks: projects/P/locations/L/queues/QUEUE/tasks/ID. P and L may be anything of their form."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from glassq.push.http.errors import invalid

_PROJECT = re.compile(r"[A-Za-z0-9.:-]{1,100}")
_LOCATION = re.compile(r"[A-Za-z0-9-]{1,63}")
_QUEUE = re.compile(r"[A-Za-z0-9-]{1,100}")
_TASK = re.compile(r"[A-Za-z0-9_-]{1,500}")
# What stands for them where a path has none.
ANY = "-"


class QueuePlace(NamedTuple):
    """A queue as a client names it."""

    project: str
    location: str
    queue: str

    @classmethod
    def of(cls, project: str, location: str, queue: str) -> Self:
        """Checks the parts of a path. Raises ApiError."""
        parts = (("project", _PROJECT, project), ("location", _LOCATION, location), ("queue", _QUEUE, queue))
        for word, form, part in parts:
            if not form.fullmatch(part):
                raise invalid(f"{word}: expected {_WORDS[word]}")
        return cls(project, location, queue)

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/queues/{self.queue}"

    def task(self, task_id: str) -> str:
        """The name of a task of this queue."""
        return f"{self}/tasks/{task_id}"

    def task_id(self, field: str, name: str) -> str:
        """The id in a task's full name, which must be of this queue. Raises ApiError."""
        start, _, task_id = name.rpartition("/tasks/")
        if start != str(self) or not _TASK.fullmatch(task_id):
            raise invalid(f"{field}: expected {self}/tasks/ID, with an ID of {_WORDS['task']}")
        return task_id


def checked_task_id(field: str, task_id: str) -> str:
    """The id of a task. Raises ApiError."""
    if not _TASK.fullmatch(task_id):
        raise invalid(f"{field}: expected {_WORDS['task']}")
    return task_id


_WORDS = {
    "project": "1 to 100 of a-z A-Z 0-9 - . and :",
    "location": "1 to 63 of a-z A-Z 0-9 and -",
    "queue": "1 to 100 of a-z A-Z 0-9 and -",
    "task": "1 to 500 of a-z A-Z 0-9 _ and -",
}
