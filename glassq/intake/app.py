"""The WSGI app: POST /hooks/<source>, GET /healthz, /readyz and /metrics.

An answer never echoes anything of the request, and a log line only escaped text. Errors are problem+json (RFC 9457).
A body is read only if its length is known and small.
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import falcon

from glassq import delivery as envelope
from glassq.errors import PingRefused, QueueError, QueueRefused
from glassq.http.log_limiter import LogLimiter
from glassq.http.problem import PROBLEM_JSON, RETRY_AFTER, problem
from glassq.intake.misses import MissLog
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.intake.keeper import PingKeeper
    from glassq.intake.metrics import IntakeCounters, MetricsListenerFilter, MetricsResource
    from glassq.intake.state import IntakeState
    from glassq.intake.watcher import Watcher
    from glassq.sources import Source

log = logger("glassq.intake")

_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_JSON = re.compile(r"application/json\s*(?:;\s*charset\s*=\s*(\"?)([\w.-]+)\1\s*)?", re.ASCII | re.IGNORECASE)


def create_app(
    sources: Iterable[Source],
    keeper: PingKeeper,
    readiness: ReadinessResource,
    counters: IntakeCounters,
    metrics: MetricsResource | None = None,
    listener_filter: MetricsListenerFilter | None = None,
    *,
    max_body: int,
) -> falcon.App[Any, Any]:
    """The app for these sources. `keeper` has their pings kept; `max_body` is in bytes.

    With `metrics` it serves /metrics; `listener_filter` limits that to the metrics listener.
    """
    filters = [listener_filter] if listener_filter else []
    app: falcon.App[Any, Any] = falcon.App(middleware=[_Counted(counters), _Strict(), *filters])
    app.add_error_handler(PingRefused, partial(_on_refused, LogLimiter()))
    app.add_error_handler(QueueError, _on_queue_error)
    app.add_error_handler(Exception, _on_bug)
    hooks = {f"/hooks/{source.name}": HookResource(source, keeper, max_body) for source in sources}
    app.add_error_handler(falcon.HTTPError, partial(_on_http_error, MissLog(hooks)))
    for path, hook in hooks.items():
        app.add_route(path, hook)
    app.add_route("/healthz", LivenessResource())
    app.add_route("/readyz", readiness)
    if metrics is not None:
        app.add_route("/metrics", metrics)
    return app


class HookResource:
    """POST /hooks/NAME: takes one source's pings."""

    def __init__(self, source: Source, keeper: PingKeeper, max_body: int) -> None:
        self._source = source
        self._keeper = keeper
        self._max_body = max_body

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200. The answer goes out once the ping is stored durably, and never before."""
        body = self._body(req)
        labels = self._source.check(body)
        delivery = envelope.new(self._source.name, body, labels)
        resp.content_type = falcon.MEDIA_TEXT
        self._keeper.take(delivery, envelope.encode(delivery), req.env)

    def _body(self, req: falcon.Request) -> bytes:
        if req.get_header("Content-Encoding", default="identity").lower() != "identity":
            raise PingRefused(415, "Unsupported encoding", "Send the body without Content-Encoding.")
        _check_content_type(req.content_type)
        length = req.content_length
        if length is None:
            raise PingRefused(411, "Length required", "Send the body with Content-Length.")
        if length > self._max_body:
            raise PingRefused(413, "Body too large", f"A ping is at most {self._max_body}.")
        if length == 0:
            raise PingRefused(400, "Malformed ping", "The body is empty.")
        body = req.stream.read(length)
        if len(body) < length:
            raise PingRefused(400, "Malformed ping", "The body ended before its Content-Length.")
        return body


class LivenessResource:
    """GET /healthz: is the process alive?"""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200, also while the queue is down."""
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = "ok\n"


class ReadinessResource:
    """GET /readyz: would a ping be accepted now?"""

    def __init__(self, state: IntakeState, watcher: Watcher) -> None:
        self._state = state
        self._watcher = watcher

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200 if a ping would be stored durably, in the queue or in the journal; else 503, and logs why."""
        self._watcher.ask()
        state = self._state
        if not state.ready:
            raise QueueRefused(f"{state.queue_trouble}; {state.journal_trouble}")
        resp.content_type = falcon.MEDIA_TEXT
        if state.queue_trouble:
            why = "does not write to disk" if state.volatile else "takes nothing now"
            resp.text = f"ready, by the journal: the queue {why}\n"
        elif state.journal_trouble:
            resp.text = "ready, by the queue alone: the journal takes nothing now\n"
        else:
            resp.text = "ready\n"


class _Counted:
    """Counts the refused requests, whichever part refused them."""

    def __init__(self, counters: IntakeCounters) -> None:
        self._counters = counters

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, _succeeded: bool) -> None:
        # "not ready" answers the question; it refuses nothing
        if resp.status_code >= 400 and not isinstance(resource, ReadinessResource):
            self._counters.refused(resp.status_code)


class _Strict:
    """Refuses malformed requests that gunicorn's parser lets pass, whatever their path."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        coding = req.get_header("Transfer-Encoding")
        if coding is not None:
            if coding.strip().lower() != "chunked":
                raise PingRefused(400, "Unsupported transfer coding", "Send the body with Content-Length.")
            raise PingRefused(411, "Length required", "Send the body with Content-Length, not chunked.")
        if req.env.get("SERVER_PROTOCOL") not in ("HTTP/1.0", "HTTP/1.1"):
            raise PingRefused(400, "Malformed request", "The request must be HTTP/1.1.")
        if req.method != "CONNECT" and not str(req.env.get("RAW_URI", "/")).startswith(("/", "*")):
            raise PingRefused(400, "Malformed request", "The request target must be a path.")
        host = req.env.get("HTTP_HOST")
        if host is None and req.env.get("SERVER_PROTOCOL") == "HTTP/1.0":
            return
        if host is None or not _HOST.fullmatch(host):
            raise PingRefused(400, "Malformed request", "The request needs one valid Host header.")


def _check_content_type(content_type: str | None) -> None:
    """Raises PingRefused unless the type is JSON. It may be missing: the body itself is checked strictly."""
    if content_type is None:
        return
    match = _JSON.fullmatch(content_type.strip())
    if not match:
        raise PingRefused(415, "Unsupported media type", "Send the body as application/json.")
    if (match[2] or "utf-8").lower() not in ("utf-8", "utf8"):
        raise PingRefused(400, "Malformed ping", "The charset must be UTF-8.")


def _answer(resp: falcon.Response, status: int, title: str, detail: str = "") -> None:
    resp.status = status
    resp.content_type = PROBLEM_JSON
    resp.data = problem(status, title, detail)


def _on_refused(
    limiter: LogLimiter, req: falcon.Request, resp: falcon.Response, error: PingRefused, params: dict[str, Any]
) -> None:
    if (left_out := limiter.admit()) is not None:
        log.warning("refused %s", fields(status=error.status, why=error.detail, sender=req.remote_addr, **left_out))
    _answer(resp, error.status, error.title, error.detail)


def _on_queue_error(req: falcon.Request, resp: falcon.Response, error: QueueError, params: dict[str, Any]) -> None:
    ping = req.method == "POST"
    log.error("%s %s", "not acknowledged" if ping else "not ready", fields(status=503, why=error))
    resp.set_header("Retry-After", str(RETRY_AFTER))
    detail = "The ping was not accepted. Send it again later." if ping else "No ping is accepted now; see the log."
    _answer(resp, 503, "Queue unavailable", detail)


def _on_http_error(
    misses: MissLog, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    """Falcon's own errors (404, 405 ...) in our form, without their details: some quote the request."""
    misses.log(req, error.status_code)
    if error.headers:
        resp.set_headers(error.headers)
    _answer(resp, error.status_code, HTTPStatus(error.status_code).phrase)


def _on_bug(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    log.exception("bug in intake")
    _answer(resp, 500, "Internal error", "This is a bug in glassq.")
