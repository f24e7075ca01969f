"""/v2/projects/P/locations/L/queues/QUEUE/tasks, and /tasks/QUEUE for short: what becomes of a request for tasks."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from glassq.push.http import messages, short, values
from glassq.push.http.errors import ApiError, invalid
from glassq.push.http.places import ANY, QueuePlace, checked_task_id
from glassq.push.http.reading import new_task
from glassq.push.http.search import MAX_PAGE
from glassq.push.http.showing import shown
from glassq.push.task import MAX_TASK_SIZE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import falcon

    from glassq.push.client import Client
    from glassq.push.http.adding import TaskAdder
    from glassq.push.http.reading import NewTask
    from glassq.push.http.search import FoundTask, TaskSearch
    from glassq.push.http.targets import Targets

T = TypeVar("T")

# Maximum size of a request's body in bytes: the largest task in base64, with room for headers and JSON.
MAX_REQUEST = 2 * MAX_TASK_SIZE_BYTES
JSON = "application/json"
RUN = ":run"
# Parameters of a query that all of Google's methods take; they change nothing here.
_COMMON = frozenset(
    {"$alt", "alt", "$.xgafv", "access_token", "callback", "fields", "key", "oauth_token", "prettyPrint", "quotaUser"}
    | {"uploadType", "upload_protocol"}
)


def beside(method: Callable[..., None]) -> Callable[..., None]:
    """A method that takes long: the worker's loop leaves it to a thread, where it is called again."""

    @wraps(method)
    def called(self: Any, req: falcon.Request, resp: falcon.Response, **parts: str) -> None:
        if "glassq.turn" in req.env:
            req.env["glassq.aside"] = True
        else:
            method(self, req, resp, **parts)

    return called


class TasksResource:
    """The tasks of a queue: GET lists, POST adds one."""

    def __init__(self, client: Client, adder: TaskAdder, search: TaskSearch, targets: Targets) -> None:
        self._client = client
        self._adder = adder
        self._search = search
        self._targets = targets

    def on_post(
        self, req: falcon.Request, resp: falcon.Response, queue: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Adds a task; 200 once the queue has proven to keep it."""
        place = QueuePlace.of(project, location, queue)
        query(req)
        message = messages.read(messages.CreateMessage, body(req))
        full = is_full("responseView", message.response_view)
        new = new_task(place, message.task, self._targets)
        item = self._client.item(*new)
        if self._adder.add(item, req.env):
            answer(resp, shown(place, item.delivery, self._targets, full=full))

    @beside
    def on_get(
        self, req: falcon.Request, resp: falcon.Response, queue: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Lists tasks, newest first."""
        place = QueuePlace.of(project, location, queue)
        given = query(req, "pageSize", "pageToken", "responseView")
        full = is_full("responseView", given.get("responseView"))
        found, token = self._search.page(queue, _page_size(given.get("pageSize", "0")), given.get("pageToken", ""))
        tasks = [document for task in found if (document := self._shown(place, task, full=full))]
        answer(resp, {"tasks": tasks, **({"nextPageToken": token} if token else {})})

    def _shown(self, place: QueuePlace, task: FoundTask, *, full: bool) -> dict[str, Any] | None:
        """None for what was put by hand and is no task that can be sent."""
        try:
            return shown(place, task.delivery, self._targets, full=full, job=task.job)
        except ValueError:
            return None


class TaskResource:
    """One task: GET shows it, DELETE deletes it, POST with :run makes it due."""

    def __init__(self, search: TaskSearch, targets: Targets) -> None:
        self._search = search
        self._targets = targets

    @beside
    def on_get(
        self, req: falcon.Request, resp: falcon.Response, queue: str, task: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Shows the task."""
        place = QueuePlace.of(project, location, queue)
        full = is_full("responseView", query(req, "responseView").get("responseView"))
        self._answer(resp, place, self._search.get(queue, checked_task_id("task", task)), full=full)

    @beside
    def on_delete(
        self, req: falcon.Request, resp: falcon.Response, queue: str, task: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Deletes the task, unless it is running."""
        QueuePlace.of(project, location, queue)
        query(req)
        self._search.delete(queue, checked_task_id("task", task))
        answer(resp, {})

    @beside
    def on_post(
        self, req: falcon.Request, resp: falcon.Response, queue: str, task: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Makes the task due now."""
        place = QueuePlace.of(project, location, queue)
        if not task.endswith(RUN):
            raise ApiError(404, f"expected {place.task('ID')}{RUN}")
        query(req)
        full = is_full("responseView", messages.read(messages.RunMessage, body(req)).response_view)
        task_id = checked_task_id("task", task.removesuffix(RUN))
        self._answer(resp, place, self._search.run(queue, task_id), full=full)

    def _answer(self, resp: falcon.Response, place: QueuePlace, task: FoundTask, *, full: bool) -> None:
        try:
            answer(resp, shown(place, task.delivery, self._targets, full=full, job=task.job))
        except ValueError as error:
            raise ApiError(404, f"the job of this name is no task that can be sent: {error}") from None


class ShortTasksResource(TasksResource):
    """/tasks/QUEUE: GET lists as its parent does, POST takes a few words of JSON."""

    def on_post(
        self, req: falcon.Request, resp: falcon.Response, queue: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Adds the task that the body describes."""
        place = QueuePlace.of(project, location, queue)
        query(req)
        self._add(req, resp, place, short.described(queue, body(req), self._targets))

    def _add(self, req: falcon.Request, resp: falcon.Response, place: QueuePlace, new: NewTask) -> None:
        item = self._client.item(*new)
        if self._adder.add(item, req.env):
            answer(resp, {"name": item.label, "queue": place.queue, "delivery": item.delivery.id})


class ShortTaskResource(TaskResource):
    """/tasks/QUEUE/ID: GET and DELETE as its parent; and POST /tasks/QUEUE/PATH, whose body is the payload."""

    def __init__(self, tasks: ShortTasksResource, search: TaskSearch, targets: Targets) -> None:
        super().__init__(search, targets)
        self._tasks = tasks

    def on_post(
        self, req: falcon.Request, resp: falcon.Response, queue: str, task: str, project: str = ANY, location: str = ANY
    ) -> None:
        """Adds a task with this payload for this path."""
        place = QueuePlace.of(project, location, queue)
        # as it came: the decoded one could be another path
        url = "/" + str(req.env["RAW_URI"]).split("/", 3)[3]
        self._tasks._add(req, resp, place, short.raw(queue, req.env, url, body(req)))


def answer(resp: falcon.Response, document: object) -> None:
    """Answers 200 with this document."""
    resp.content_type = JSON
    resp.data = msgspec.json.encode(document) + b"\n"


def body(req: falcon.Request) -> bytes:
    """The body of the request. Raises ApiError where it is too large, or has not come whole."""
    length = req.content_length or 0
    if length > MAX_REQUEST:
        raise invalid(f"the request has {length} bytes, of {MAX_REQUEST}; a task has at most {MAX_TASK_SIZE_BYTES}")
    data: bytes = req.stream.read(length) if length else b""
    if len(data) < length:
        raise invalid("the body ended before its Content-Length")
    return data


def query(req: falcon.Request, *known: str) -> dict[str, str]:
    """The parameters in the query, by their names in camelCase. Raises ApiError for one that is not known."""
    given = {}
    for name, value in req.params.items():
        word = "".join(part.title() if index else part for index, part in enumerate(name.split("_")))
        if name in _COMMON:
            continue
        if word not in known:
            raise invalid(f'Invalid query. Unknown name "{name[:100]}": no such parameter')
        given[word] = value if isinstance(value, str) else value[-1]
    return given


def is_full(field: str, view: str | int | None) -> bool:
    """Whether the view is FULL. Raises ApiError for one that does not exist."""
    number = int(view) if isinstance(view, str) and view.isdecimal() and len(view) < 3 else view
    return values.one_of(field, number, values.VIEWS) == "FULL"


def _page_size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise invalid(f"pageSize: expected a number from 0 to {MAX_PAGE}")
    return min(int(text) or MAX_PAGE, MAX_PAGE)
