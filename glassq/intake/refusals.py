"""Refused requests: their answers, what is counted, and a line in the log.

Answers are problem+json (RFC 9457) with fixed texts: nothing of a request is echoed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.http.log_limiter import LogLimiter
from glassq.http.problem import PROBLEM_JSON, RETRY_AFTER, problem
from glassq.log import fields, logger

if TYPE_CHECKING:
    import falcon

    from glassq.errors import PingRefused
    from glassq.intake.metrics import IntakeCounters
    from glassq.sources.base import Source

log = logger("glassq.intake")

# RFC 9110 wants a challenge with each 401. No sender reads it, and no browser asks its user for anything.
_AUTHENTICATE = "Webhook"
AGAIN = "The ping was not accepted. Send it again later."


def answer_problem(resp: falcon.Response, status: int, title: str, detail: str = "") -> None:
    """Makes the answer an error."""
    resp.status = status
    resp.content_type = PROBLEM_JSON
    resp.data = problem(status, title, detail)
    if status == 401:
        resp.set_header("WWW-Authenticate", _AUTHENTICATE)


def answer_unavailable(resp: falcon.Response, title: str, detail: str = AGAIN) -> None:
    """Makes the answer 503: the fault is ours, and the sender does right to try again."""
    answer_problem(resp, 503, title, detail)
    resp.set_header("Retry-After", str(RETRY_AFTER))


class RefusalLog:
    """Counts and logs refused requests; for all threads of one process."""

    def __init__(self, counters: IntakeCounters) -> None:
        self._counters = counters
        self._limiter = LogLimiter()

    def refused(self, refusal: PingRefused, sender: str, source: Source | None = None) -> None:
        """A request got a 4xx: of this source, if it was for one."""
        self._counters.refused(refusal.status)
        if (left_out := self._limiter.admit()) is None:
            return
        about: dict[str, object] = {"status": refusal.status}
        if source is not None:
            about |= {"source": source.name, "kind": source.kind, "reason": refusal.reason or "other"}
        if refusal.skew is not None:
            about["skew"] = f"{refusal.skew:+.0f}s"
        log.warning("refused %s", fields(**about, why=_why(refusal), sender=sender, **left_out))

    def unready(self, source: Source, error: Exception) -> None:
        """A request got a 503, as its source cannot tell now whether it is genuine."""
        self._counters.refused(503)
        if (left_out := self._limiter.admit()) is not None:
            log.error("not acknowledged %s", fields(status=503, source=source.name, why=error, **left_out))

    def bug(self, words: str, *arguments: object) -> None:
        """Logs the exception that is handled now, which nobody expected."""
        if self._limiter.admit() is not None:
            log.exception(words, *arguments)


def _why(refusal: PingRefused) -> str:
    if refusal.skew is not None and refusal.reason in ("too old", "too new"):
        return f"{refusal.reason} by {abs(refusal.skew):.0f} s: the sender's or this host's clock is wrong"
    return refusal.detail
