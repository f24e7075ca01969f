"""/v2/.../queues: what can be seen and done of queues, and what of Cloud Tasks glassq does not have, by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from glassq.push.http import messages
from glassq.push.http.errors import ApiError
from glassq.push.http.places import QueuePlace
from glassq.push.http.resources import answer, beside, body, query
from glassq.push.http.showing import retry_shown

if TYPE_CHECKING:
    import falcon

    from glassq.push.client import Client
    from glassq.push.queue_yaml import PushQueue
    from glassq.queues.base import TubeCounts

# Time for a look at a queue, in seconds.
LOOK_WITHIN = 5.0
_IN_YAML = "the queues are those of queue.yaml ([push] queue_yaml): edit it and reload the pool"
_BATCH = "glassq has no long-running operations: add or delete the tasks one by one, on one connection"
_NO_IAM = "glassq has no IAM: the mode of the socket, or the tokens of [tasks] token_file, say who may come in"
_LOCATION = "/v2/projects/[^/]+/locations/[^/]+"
_QUEUES = f"{_LOCATION}/queues"
# Methods of Cloud Tasks that there are not, and what to do instead.
_MISSING = (
    (re.compile(rf"POST {_QUEUES}|(?:PATCH|DELETE) {_QUEUES}/[^/]+"), _IN_YAML),
    (re.compile(rf"POST {_QUEUES}/[^/]+/tasks:batch(?:Create|Delete)"), _BATCH),
    (re.compile(rf"POST {_QUEUES}/[^/]+:(?:getIamPolicy|setIamPolicy|testIamPermissions)"), _NO_IAM),
    (re.compile(rf"(?:GET|PATCH) {_LOCATION}/cmekConfig"), "glassq has no keys of customers: encrypt the queue's disk"),
    (re.compile(rf"GET {_LOCATION}/operations(?:/.*)?"), _BATCH),
    (
        re.compile(r"(?:GET|PATCH) /v2/projects/[^/]+/locations(?:/.*)?"),
        "glassq has no locations: any will do in a name",
    ),
)


class QueueResource:
    """One queue: GET shows it; POST with :pause, :resume or :purge."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @beside
    def on_get(self, req: falcon.Request, resp: falcon.Response, project: str, location: str, queue: str) -> None:
        """Shows the queue: its rule in queue.yaml, and whether it is paused."""
        place = QueuePlace.of(project, location, queue)
        query(req, "readMask")
        self._answer(resp, place)

    @beside
    def on_post(self, req: falcon.Request, resp: falcon.Response, project: str, location: str, queue: str) -> None:
        """Pauses, resumes or purges the queue."""
        name, _, verb = queue.partition(":")
        if verb not in ("pause", "resume", "purge"):
            absent(req, resp)
        place = QueuePlace.of(project, location, name)
        query(req)
        messages.read(messages.QueueMessage, body(req))
        if verb == "purge":
            self._client.purge(name)
        else:
            self._pause(name, paused=verb == "pause")
        self._answer(resp, place)

    def on_patch(self, req: falcon.Request, resp: falcon.Response, **_: str) -> None:
        """Raises ApiError."""
        absent(req, resp)

    on_delete = on_patch

    def _pause(self, queue: str, *, paused: bool) -> None:
        tube = self._client.tube(queue)
        with self._client.inspector(LOOK_WITHIN) as inspector:
            can = inspector.capabilities
            if not can.pause:
                raise ApiError(501, f"{inspector.engine} cannot pause a queue; stop glassq-worker instead")
            if not inspector.pause(tube, can.max_delay if paused else 0) and paused:
                words = "has no tasks, and no pool waits for any: there is nothing to pause"
                raise ApiError(400, f"queue {queue}: {words}", "FAILED_PRECONDITION")

    def _answer(self, resp: falcon.Response, place: QueuePlace) -> None:
        counts, _, queue = self._client.snapshot(place.queue, LOOK_WITHIN)
        answer(resp, _shown(place, queue, counts))


class QueuesResource:
    """All queues."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @beside
    def on_get(self, req: falcon.Request, resp: falcon.Response, project: str, location: str) -> None:
        """Lists the queues of queue.yaml, all on one page."""
        query(req, "filter", "pageSize", "pageToken", "readMask")
        queues = self._client.queues()
        tubes = [self._client.tube(queue.name) for queue in queues]
        with self._client.inspector(LOOK_WITHIN) as inspector:
            counts = inspector.counts(tubes)
        places = [QueuePlace.of(project, location, queue.name) for queue in queues]
        answer(resp, {"queues": [_shown(*row) for row in zip(places, queues, counts, strict=True)]})

    def on_post(self, req: falcon.Request, resp: falcon.Response, **_: str) -> None:
        """Raises ApiError."""
        absent(req, resp)


def absent(req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
    """Raises ApiError for a method that there is not: 501 that says what to do instead, where Cloud Tasks has it."""
    for pattern, instead in _MISSING:
        if pattern.fullmatch(f"{req.method} {req.path}"):
            raise ApiError(501, instead)
    raise ApiError(404, "no such method: expected one of Cloud Tasks' REST API, v2, or /tasks/QUEUE")


def _shown(place: QueuePlace, queue: PushQueue, counts: TubeCounts) -> dict[str, Any]:
    limits: dict[str, Any] = {"maxDispatchesPerSecond": float(queue.rate), "maxBurstSize": queue.bucket_size}
    if queue.max_concurrent_requests is not None:
        limits["maxConcurrentDispatches"] = queue.max_concurrent_requests
    paused = counts.paused_for > 0 or not queue.rate
    return {
        "name": str(place),
        "state": "PAUSED" if paused else "RUNNING",
        "rateLimits": limits,
        "retryConfig": retry_shown(queue.retry),
    }
