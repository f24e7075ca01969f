"""A task as JSON of Cloud Tasks: from its delivery, and from the job that holds it."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from glassq.push.http.values import duration_text, time_text
from glassq.push.request import from_labels

if TYPE_CHECKING:
    from glassq.delivery import Delivery, Evidence
    from glassq.push.http.places import QueuePlace
    from glassq.push.http.targets import Targets
    from glassq.push.request import TaskRequest
    from glassq.push.rule import RetryParameters
    from glassq.queues.base import Job

# From HTTP to google.rpc.Code (google/rpc/code.proto); others are UNKNOWN.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}
_UNKNOWN = 2


def shown(
    place: QueuePlace, delivery: Delivery, targets: Targets, *, full: bool, job: Job | None = None
) -> dict[str, Any]:
    """The task in this delivery. `full`: with its payload. `job` None: it has just been made.

    `glassq` in it is ours: the delivery's id, by which operators name it, and the state of its job.
    Raises ValueError where the delivery is none of a task.
    """
    request = from_labels(delivery.labels)
    received = delivery.received.timestamp()
    document: dict[str, Any] = {
        "name": place.task(request.name),
        **_call(request, delivery, targets, full=full),
        "scheduleTime": time_text(_due(request, received, job)),
        "createTime": time_text(received),
        "dispatchCount": delivery.attempt - 1 + (job is not None and job.state == "reserved"),
        "responseCount": sum("status" in evidence.detail for evidence in delivery.evidence),
        "view": "FULL" if full else "BASIC",
    }
    if request.dispatch_deadline:
        document["dispatchDeadline"] = duration_text(request.dispatch_deadline)
    if request.retry is not None:
        document["retryConfig"] = retry_shown(request.retry)
    if delivery.tried is not None:
        document["firstAttempt"] = {"dispatchTime": time_text(delivery.tried.timestamp())}
    if delivery.evidence:
        document["lastAttempt"] = _attempt(delivery.evidence[-1])
    document["glassq"] = {"delivery": delivery.id, "state": job.state if job is not None else "added"}
    return document


def _call(request: TaskRequest, delivery: Delivery, targets: Targets, *, full: bool) -> dict[str, Any]:
    call: dict[str, Any] = {"httpMethod": request.method, "headers": request.headers}
    if full and delivery.body:
        call["body"] = base64.b64encode(delivery.body).decode()
    if request.form == "http":
        return {"httpRequest": {"url": targets.url(request.target, request.url), **call}}
    routing = {"appEngineRouting": {"service": request.target}} if request.target else {}
    return {"appEngineHttpRequest": {"relativeUri": request.url, **routing, **call}}


def _due(request: TaskRequest, received: float, job: Job | None) -> float:
    if job is not None and job.state == "delayed":
        return time.time() + job.time_left
    return request.eta or received


def retry_shown(rule: RetryParameters) -> dict[str, Any]:
    """A retry rule, as RetryConfig."""
    limits: dict[str, Any] = {
        "maxAttempts": -1 if rule.task_retry_limit is None else rule.task_retry_limit + 1,
        "minBackoff": duration_text(rule.min_backoff_seconds),
        "maxBackoff": duration_text(rule.max_backoff_seconds),
        "maxDoublings": rule.max_doublings,
    }
    if rule.task_age_limit is not None:
        limits["maxRetryDuration"] = duration_text(rule.task_age_limit)
    return limits


def _attempt(evidence: Evidence) -> dict[str, Any]:
    ended = evidence.at.timestamp()
    answered = evidence.detail.get("status")
    return {
        "dispatchTime": time_text(ended - evidence.duration),
        "responseTime": time_text(ended),
        "responseStatus": {"code": _CODES.get(answered or 0, _UNKNOWN), "message": evidence.message},
    }
