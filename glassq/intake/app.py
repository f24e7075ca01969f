"""The WSGI app: POST /hooks/<source>, GET /healthz, /readyz and /metrics.

An answer never holds anything out of the request, and a log line only what is escaped. Errors are problem+json
(RFC 9457). A body is read only when its length is known and small.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import falcon

from glassq import delivery as envelope
from glassq.errors import PingRefused, QueueError, QueueRefused
from glassq.intake.line_budget import LineBudget
from glassq.intake.misses import Misses
from glassq.intake.problem import PROBLEM_JSON, RETRY_AFTER, problem
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.intake.metrics import Doors, Meter, Metrics
    from glassq.intake.safekeeping import Safekeeping
    from glassq.sources import Source

log = logger("glassq.intake")

_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_JSON = re.compile(r"application/json\s*(?:;\s*charset\s*=\s*(\"?)([\w.-]+)\1\s*)?", re.ASCII | re.IGNORECASE)


def create_app(
    sources: Iterable[Source],
    keeping: Safekeeping,
    meter: Meter,
    metrics: Metrics | None = None,
    doors: Doors | None = None,
    *,
    max_body: int,
) -> falcon.App[Any, Any]:
    """The app on these sources and this way to disk; `max_body` is in bytes.

    With `metrics` it tells them, with `doors` only to those who come by theirs.
    """
    app: falcon.App[Any, Any] = falcon.App(middleware=[_Counted(meter), _Strict(), *([doors] if doors else [])])
    app.add_error_handler(PingRefused, partial(_on_refused, LineBudget()))
    app.add_error_handler(QueueError, _on_queue_error)
    app.add_error_handler(Exception, _on_bug)
    hooks = {f"/hooks/{source.name}": Hook(source, keeping, meter, max_body) for source in sources}
    app.add_error_handler(falcon.HTTPError, partial(_on_http_error, Misses(hooks)))
    for path, hook in hooks.items():
        app.add_route(path, hook)
    app.add_route("/healthz", Health())
    app.add_route("/readyz", Ready(keeping))
    if metrics is not None:
        app.add_route("/metrics", metrics)
    return app


class Hook:
    """Where one source sends its pings."""

    def __init__(self, source: Source, keeping: Safekeeping, meter: Meter, max_body: int) -> None:
        self._source = source
        self._keeping = keeping
        self._meter = meter
        self._max_body = max_body

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 when the ping is kept durably, and never before."""
        body = self._body(req)
        labels = self._source.check(body)
        delivery = envelope.new(self._source.name, body, labels)
        where = self._keeping.keep(delivery.id, envelope.encode(delivery))
        self._meter.acknowledged(where, req.env["glassq.arrived"])
        # a line for every ping would cost a fifth of all that is done for it
        if log.isEnabledFor(logging.DEBUG):
            log.debug("acknowledged %s", fields(delivery=delivery.id, source=delivery.source, kept=where))
        resp.content_type = falcon.MEDIA_TEXT

    def _body(self, req: falcon.Request) -> bytes:
        if req.get_header("Content-Encoding", default="identity").lower() != "identity":
            raise PingRefused(415, "Unsupported encoding", "Send the body as it is, without Content-Encoding.")
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


class Health:
    """The process lives."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, whatever the queue does."""
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = "ok\n"


class Ready:
    """A ping would be taken now."""

    def __init__(self, keeping: Safekeeping) -> None:
        self._keeping = keeping

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 when a ping would be kept durably, in the queue or in the spool; else 503. The log says why."""
        found = self._keeping.readiness()
        if not found.ready:
            raise QueueRefused(found.trouble)
        resp.content_type = falcon.MEDIA_TEXT
        why = "does not write to disk" if found.volatile else "takes nothing now"
        resp.text = f"ready, by the spool: the queue {why}\n" if found.trouble else "ready\n"


class _Counted:
    """Whatever is refused, by whom ever, is counted here."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, _succeeded: bool) -> None:
        # "not ready" is what was asked for
        if resp.status_code >= 400 and not isinstance(resource, Ready):
            self._meter.refused(resp.status_code)


class _Strict:
    """What every request must be, whatever it asks for; gunicorn's parser lets these pass."""

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
    """Raises PingRefused for what is no JSON. A missing type passes: the body itself is checked to the letter."""
    if content_type is None:
        return
    match = _JSON.fullmatch(content_type.strip())
    if not match:
        raise PingRefused(415, "Unsupported media type", "Send the body as application/json.")
    if (match[2] or "utf-8").lower() not in ("utf-8", "utf8"):
        raise PingRefused(400, "Malformed ping", "JSON is UTF-8; no other charset is taken.")


def _answer(resp: falcon.Response, status: int, title: str, detail: str = "") -> None:
    resp.status = status
    resp.content_type = PROBLEM_JSON
    resp.data = problem(status, title, detail)


def _on_refused(
    budget: LineBudget, req: falcon.Request, resp: falcon.Response, error: PingRefused, params: dict[str, Any]
) -> None:
    if (left_out := budget.admit()) is not None:
        log.warning("refused %s", fields(status=error.status, why=error.detail, sender=req.remote_addr, **left_out))
    _answer(resp, error.status, error.title, error.detail)


def _on_queue_error(req: falcon.Request, resp: falcon.Response, error: QueueError, params: dict[str, Any]) -> None:
    ping = req.method == "POST"
    log.error("%s %s", "not acknowledged" if ping else "not ready", fields(status=503, why=error))
    resp.set_header("Retry-After", str(RETRY_AFTER))
    detail = (
        "The ping was not taken. Send it again later." if ping else "A ping would not be taken now; the log says why."
    )
    _answer(resp, 503, "Queue unavailable", detail)


def _on_http_error(
    misses: Misses, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    """Falcon's own (404, 405 ...), in our form and without its details, some of which quote the request."""
    misses.tell(req, error.status_code)
    if error.headers:
        resp.set_headers(error.headers)
    _answer(resp, error.status_code, HTTPStatus(error.status_code).phrase)


def _on_bug(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    log.exception("bug in intake")
    _answer(resp, 500, "Internal error", "This is a bug in glassq.")
