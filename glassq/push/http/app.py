"""The WSGI app of glassq-tasks: which path is whose, and what is answered to what goes wrong."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import falcon

from glassq.errors import QueueError, SettingsError
from glassq.http.liveness import LivenessResource
from glassq.http.log_limiter import LogLimiter
from glassq.http.problem import RETRY_AFTER
from glassq.log import fields, logger
from glassq.push.http.errors import ApiError, of_task
from glassq.push.http.queues import QueueResource, QueuesResource, absent
from glassq.push.http.resources import (
    JSON,
    ShortTaskResource,
    ShortTasksResource,
    TaskResource,
    TasksResource,
    beside,
)
from glassq.push.task_errors import Error, InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.push.client import Client
    from glassq.push.http.adding import TaskAdder
    from glassq.push.http.door import Doorkeeper
    from glassq.push.http.metrics import TaskCounters
    from glassq.push.http.search import TaskSearch
    from glassq.push.http.targets import Targets

log = logger("glassq.push")

# Time for the queue to say whether it would keep a task, in seconds.
READY_WITHIN = 2.0
_QUEUES = "/v2/projects/{project}/locations/{location}/queues"


def create_app(
    client: Client,
    adder: TaskAdder,
    search: TaskSearch,
    targets: Targets,
    counters: TaskCounters,
    door: Doorkeeper,
    pages: Mapping[str, object],
) -> falcon.App[Any, Any]:
    """The app; `pages` are more paths."""
    app: falcon.App[Any, Any] = falcon.App(middleware=[door])
    answers = _ErrorAnswers(counters)
    app.add_error_handler(Exception, answers.bug)
    app.add_error_handler(falcon.HTTPError, answers.http)
    app.add_error_handler(QueueError, answers.ours)
    app.add_error_handler(SettingsError, answers.ours)
    app.add_error_handler(Error, answers.task)
    app.add_error_handler(ApiError, answers.api)
    short = ShortTasksResource(client, adder, search, targets)
    app.add_route(_QUEUES, QueuesResource(client))
    app.add_route(f"{_QUEUES}/{{queue}}", QueueResource(client))
    app.add_route(f"{_QUEUES}/{{queue}}/tasks", TasksResource(client, adder, search, targets))
    app.add_route(f"{_QUEUES}/{{queue}}/tasks/{{task}}", TaskResource(search, targets))
    app.add_route("/tasks/{queue}", short)
    app.add_route("/tasks/{queue}/{task:path}", ShortTaskResource(short, search, targets))
    app.add_route("/healthz", LivenessResource())
    app.add_route("/readyz", ReadyResource(client))
    for path, page in pages.items():
        app.add_route(path, page)
    app.add_sink(absent, "/v2/")
    return app


class ReadyResource:
    """GET /readyz: would a task be kept now?"""

    def __init__(self, client: Client) -> None:
        self._client = client

    @beside
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200 if the queue would prove to keep a task; else 503, and logs why."""
        self._client.check(READY_WITHIN)
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = "ready\n"


class _ErrorAnswers:
    """Answers errors with Google's JSON, counts them, and writes a line for each, unless there are too many."""

    def __init__(self, counters: TaskCounters) -> None:
        self._counters = counters
        self._limiter = LogLimiter()

    def api(
        self, req: falcon.Request, resp: falcon.Response, error: ApiError, params: dict[str, Any], **_: Any
    ) -> None:
        self._counters.refused(error.code)
        if (left_out := self._limiter.admit()) is not None:
            write = log.error if error.code == HTTPStatus.SERVICE_UNAVAILABLE else log.warning
            write("refused %s", fields(status=error.code, why=error, sender=req.remote_addr, **left_out))
        resp.status = error.code
        resp.content_type = JSON
        resp.data = error.body()
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            resp.set_header("Retry-After", str(RETRY_AFTER))
        if error.code == HTTPStatus.UNAUTHORIZED:
            resp.set_header("WWW-Authenticate", "Bearer")

    def task(self, req: falcon.Request, resp: falcon.Response, error: Error, params: dict[str, Any]) -> None:
        words = ApiError(503, "the queue gave an unexpected answer") if isinstance(error, InternalError) else None
        self.api(req, resp, words or of_task(error), params)

    def ours(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
        """The queue or the names cannot be used now."""
        self.api(req, resp, ApiError(503, str(error)), params)

    def http(self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
        """Falcon's own errors (404, 405 ...), without their details: some quote the request."""
        if error.headers:
            resp.set_headers(error.headers)
        self.api(req, resp, ApiError(error.status_code, HTTPStatus(error.status_code).phrase), params)

    def bug(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
        """A bug of ours: the client does right to try again."""
        log.error("bug in glassq-tasks", exc_info=error)
        self.api(req, resp, ApiError(503, "internal error"), params)
