"""Hooks for error trackers and tracing: put this file beside glassq.toml, and name what you want in [worker] hooks.

    [worker]
    hooks = ["observability:Sentry", "observability:OpenTelemetry"]

They need the packages sentry-sdk and opentelemetry-sdk (with the exporter of your collector) in glassq's environment:
/opt/glassq/bin/pip install sentry-sdk opentelemetry-sdk opentelemetry-exporter-otlp
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq import Delivery
    from glassq.hooks import AttemptReport
    from glassq.settings import Settings


class Sentry:
    """Reports what was buried, and every error that no handler expected. SENTRY_DSN is read from the environment."""

    def __init__(self, settings: Settings) -> None:
        import sentry_sdk

        # no integrations: in a pool nothing but this hook reports
        sentry_sdk.init(default_integrations=False)
        self._sdk = sentry_sdk

    def after(self, report: AttemptReport) -> None:
        if report.error is None or report.outcome not in ("retry", "bury"):
            return
        with self._sdk.new_scope() as scope:
            # a ping's body is not sent: it may hold what a stranger must not see
            scope.set_tag("glassq.source", report.delivery.source)
            scope.set_tag("glassq.outcome", report.outcome)
            scope.set_context("delivery", {"id": report.delivery.id, "attempt": report.delivery.attempt})
            scope.set_level("error" if report.outcome == "bury" else "warning")
            self._sdk.capture_exception(report.error)


class OpenTelemetry:
    """One span an attempt. Where spans go is said by the usual OTEL_... variables, or by a provider set before."""

    def __init__(self, settings: Settings) -> None:
        from opentelemetry import trace

        self._trace = trace
        self._tracer = trace.get_tracer("glassq")
        # in lanes, several threads are at work
        self._local = threading.local()

    def before(self, delivery: Delivery) -> None:
        facts = {"messaging.system": "glassq", "messaging.message.id": delivery.id, "glassq.source": delivery.source}
        self._local.span = self._tracer.start_span(
            f"{delivery.source} process", kind=self._trace.SpanKind.CONSUMER, attributes=facts
        )

    def after(self, report: AttemptReport) -> None:
        span = getattr(self._local, "span", None)
        if span is None:
            return
        self._local.span = None
        span.set_attribute("glassq.outcome", report.outcome)
        span.set_attribute("glassq.attempt", report.delivery.attempt)
        if report.error is not None:
            span.record_exception(report.error)
            span.set_status(self._trace.StatusCode.ERROR, report.reason)
        span.end()
