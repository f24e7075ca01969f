"""The WSGI app: /hooks/NAME (hook.py), GET /healthz and /readyz; and on listeners of their own /metrics and /sources.

An answer never echoes anything of the request, but a challenge that a source answers; a log line only escaped text.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import falcon

from glassq.errors import PingRefused, QueueError, QueueRefused
from glassq.http.strict import malformed
from glassq.intake.misses import MissLog
from glassq.intake.refusals import AGAIN, RefusalLog, answer_problem, answer_unavailable
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.intake.hook import HookResource
    from glassq.intake.metrics import IntakeCounters
    from glassq.intake.pages import ListenerFilter
    from glassq.intake.state import IntakeState
    from glassq.intake.watcher import Watcher

log = logger("glassq.intake")


def create_app(
    hooks: Mapping[str, HookResource],
    counters: IntakeCounters,
    refusals: RefusalLog,
    pages: Mapping[str, object],
    listener_filter: ListenerFilter,
) -> falcon.App[Any, Any]:
    """The app for these sources, by their names, and these pages, by their paths."""
    app: falcon.App[Any, Any] = falcon.App(middleware=[_Strict(), listener_filter])
    # an answer without a body has no type
    app.resp_options.default_media_type = None  # type: ignore[assignment]
    # a source says for itself which methods it takes
    app.router_options.default_to_on_request = True
    paths = [f"/hooks/{name}" for name in hooks]
    app.add_error_handler(PingRefused, partial(_on_refused, refusals))
    app.add_error_handler(QueueError, partial(_on_queue_error, counters))
    app.add_error_handler(Exception, partial(_on_bug, counters, refusals))
    app.add_error_handler(falcon.HTTPError, partial(_on_http_error, counters, MissLog(paths)))
    for name, hook in hooks.items():
        app.add_route(f"/hooks/{name}", hook)
        app.add_route(f"/hooks/{name}/{{rest}}", hook)
    for path, page in pages.items():
        app.add_route(path, page)
    return app


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
        if (found := malformed(req.env)) is not None:
            raise PingRefused(*found)


def _on_refused(
    refusals: RefusalLog, req: falcon.Request, resp: falcon.Response, error: PingRefused, params: dict[str, Any]
) -> None:
    refusals.refused(error, req.remote_addr)
    answer_problem(resp, error.status, error.title, error.detail)


def _on_queue_error(
    counters: IntakeCounters, req: falcon.Request, resp: falcon.Response, error: QueueError, params: dict[str, Any]
) -> None:
    ping = req.method == "POST"
    if ping:
        # "not ready" answers a question; it refuses nothing
        counters.refused(503)
    log.error("%s %s", "not acknowledged" if ping else "not ready", fields(status=503, why=error))
    answer_unavailable(resp, "Queue unavailable", AGAIN if ping else "No ping is accepted now; see the log.")


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
    answer_problem(resp, error.status_code, HTTPStatus(error.status_code).phrase)


def _on_bug(
    counters: IntakeCounters,
    refusals: RefusalLog,
    req: falcon.Request,
    resp: falcon.Response,
    error: Exception,
    params: dict[str, Any],
) -> None:
    """A bug of ours, or of a custom source, must not make a sender give up: not 500, but 503."""
    counters.refused(500)
    refusals.bug("bug in intake")
    answer_unavailable(resp, "Internal error")
