"""The WSGI app: POST /hooks/<source>, GET /healthz, /readyz and /metrics.

An answer never echoes anything of the request, and a log line only escaped text. Errors are problem+json (RFC 9457).
A body is read only if its length is known and small.
"""

from __future__ import annotations

import re
import time
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
from glassq.sources.base import HookRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.intake.keeper import PingKeeper
    from glassq.intake.metrics import IntakeCounters, MetricsListenerFilter, MetricsResource
    from glassq.intake.state import IntakeState
    from glassq.intake.watcher import Watcher
    from glassq.sources import Source

log = logger("glassq.intake")

_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


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
    app: falcon.App[Any, Any] = falcon.App(middleware=[_Strict(), *filters])
    app.add_error_handler(PingRefused, partial(_on_refused, counters, LogLimiter()))
    app.add_error_handler(QueueError, partial(_on_queue_error, counters))
    app.add_error_handler(Exception, partial(_on_bug, counters))
    hooks = {f"/hooks/{source.name}": HookResource(source, keeper, max_body) for source in sources}
    app.add_error_handler(falcon.HTTPError, partial(_on_http_error, counters, MissLog(hooks)))
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
        source, request = self._source, self._request(req)
        source.admit(request)
        source.verify(request)
        told = source.describe(request)
        delivery = envelope.new(
            source.name,
            bytes(request.body),
            told.labels,
            tube=source.tube or self._keeper.tube,
            content_type=told.content_type,
            headers=told.headers,
        )
        resp.content_type = falcon.MEDIA_TEXT
        self._keeper.take(delivery, envelope.encode(delivery), req.env)

    def _request(self, req: falcon.Request) -> HookRequest:
        environ = req.env
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
        if (content_type := environ.get("CONTENT_TYPE")) is not None:
            headers["content-type"] = content_type
        peer = str(environ.get("REMOTE_ADDR", ""))
        return HookRequest(req.method, environ["RAW_URI"], headers, self._body(req), peer, time.time())

    def _body(self, req: falcon.Request) -> bytes:
        if req.env.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise PingRefused(415, "Unsupported encoding", "Send the body without Content-Encoding.")
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


class _Strict:
    """Refuses malformed requests that gunicorn's parser lets pass, whatever their path."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        # asked of the environ: Falcon's own access to a header takes a microsecond
        environ = req.env
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        if coding is not None:
            if coding.strip().lower() != "chunked":
                raise PingRefused(400, "Unsupported transfer coding", "Send the body with Content-Length.")
            raise PingRefused(411, "Length required", "Send the body with Content-Length, not chunked.")
        protocol = environ.get("SERVER_PROTOCOL")
        if protocol not in ("HTTP/1.0", "HTTP/1.1"):
            raise PingRefused(400, "Malformed request", "The request must be HTTP/1.1.")
        if req.method != "CONNECT" and not str(environ.get("RAW_URI", "/")).startswith(("/", "*")):
            raise PingRefused(400, "Malformed request", "The request target must be a path.")
        host = environ.get("HTTP_HOST")
        if host is None and protocol == "HTTP/1.0":
            return
        if host is None or not _HOST.fullmatch(host):
            raise PingRefused(400, "Malformed request", "The request needs one valid Host header.")


def _answer(resp: falcon.Response, status: int, title: str, detail: str = "") -> None:
    resp.status = status
    resp.content_type = PROBLEM_JSON
    resp.data = problem(status, title, detail)


def _on_refused(
    counters: IntakeCounters,
    limiter: LogLimiter,
    req: falcon.Request,
    resp: falcon.Response,
    error: PingRefused,
    params: dict[str, Any],
) -> None:
    counters.refused(error.status)
    if (left_out := limiter.admit()) is not None:
        log.warning("refused %s", fields(status=error.status, why=error.detail, sender=req.remote_addr, **left_out))
    _answer(resp, error.status, error.title, error.detail)


def _on_queue_error(
    counters: IntakeCounters, req: falcon.Request, resp: falcon.Response, error: QueueError, params: dict[str, Any]
) -> None:
    ping = req.method == "POST"
    if ping:
        # "not ready" answers a question; it refuses nothing
        counters.refused(503)
    log.error("%s %s", "not acknowledged" if ping else "not ready", fields(status=503, why=error))
    resp.set_header("Retry-After", str(RETRY_AFTER))
    detail = "The ping was not accepted. Send it again later." if ping else "No ping is accepted now; see the log."
    _answer(resp, 503, "Queue unavailable", detail)


def _on_http_error(
    counters: IntakeCounters,
    misses: MissLog,
    req: falcon.Request,
    resp: falcon.Response,
    error: falcon.HTTPError,
    params: dict[str, Any],
) -> None:
    """Falcon's own errors (404, 405 ...) in our form, without their details: some quote the request."""
    counters.refused(error.status_code)
    misses.log(req, error.status_code)
    if error.headers:
        resp.set_headers(error.headers)
    _answer(resp, error.status_code, HTTPStatus(error.status_code).phrase)


def _on_bug(
    counters: IntakeCounters, req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]
) -> None:
    counters.refused(500)
    log.exception("bug in intake")
    _answer(resp, 500, "Internal error", "This is a bug in glassq.")
