"""Hooks: what they see of attempts, and that they decide nothing; the examples with the real libraries."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq import hooks
from glassq.errors import Bury, DeadlineExceeded, SettingsError
from glassq.hooks import AttemptReport, Hooks
from glassq.settings import Settings, WorkerSettings
from glassq.values import HandlerName
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HOOKS = """
class Seen:
    def __init__(self, settings):
        self.seen = settings.file

    def before(self, delivery):
        pass

class Broken:
    def __init__(self, settings):
        raise ValueError("no DSN")

    def buried(self, report):
        pass

class Exiting:
    def __init__(self, settings):
        raise SystemExit(2)

    def after(self, report):
        pass

class Blind:
    def __init__(self, settings):
        pass

    def befor(self, delivery):
        pass

def of_nothing(settings):
    return None

word = "x"
"""


def settings_with(directory: Path, *names: str) -> Settings:
    (directory / "hooks_of_a_test.py").write_text(HOOKS)
    worker = WorkerSettings(hooks=tuple(map(HandlerName, names)))
    return Settings(file=str(directory / "glassq.toml"), worker=worker)


def report_of(outcome: str, error: BaseException | None = None) -> AttemptReport:
    return AttemptReport(envelope.new("shop", b"{}", {}), outcome, "why", 0.5, error)


class Recorder:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def before(self, delivery: object) -> None:
        self.seen.append("before")

    def after(self, report: AttemptReport) -> None:
        self.seen.append(f"after {report.outcome}")

    def buried(self, report: AttemptReport) -> None:
        self.seen.append("buried")


class Failing:
    def before(self, delivery: object) -> None:
        raise ValueError("not my day")

    after = buried = before


class Exiting:
    def before(self, delivery: object) -> None:
        raise SystemExit(1)

    after = buried = before


def test_all_hooks_see_an_attempt_even_if_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    four = [("m:Failing", Failing()), ("m:Exiting", Exiting()), ("m:Recorder", recorder), ("m:Nothing", object())]
    both = Hooks(four)
    both.before(envelope.new("shop", b"", {}))
    both.after(report_of("retry"))
    both.after(report_of("bury"))
    assert recorder.seen == ["before", "after retry", "after bury", "buried"]
    assert caplog.messages[0] == 'a hook failed; the work goes on hook=m:Failing.before why="ValueError: not my day"'
    assert caplog.messages[1] == 'a hook failed; the work goes on hook=m:Exiting.before why="SystemExit: 1"'
    assert len(caplog.messages) == 8


def test_what_interrupts_an_attempt_passes_through_a_hook() -> None:
    class Slow:
        def before(self, delivery: object) -> None:
            raise DeadlineExceeded

    with pytest.raises(DeadlineExceeded):
        Hooks([("m:Slow", Slow())]).before(envelope.new("shop", b"", {}))


def test_no_hook_costs_nothing() -> None:
    assert not Hooks().watch
    assert Hooks([("m:R", Recorder())]).watch


def test_hooks_are_found_beside_the_settings(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "hooks_of_a_test:Seen")
    [(name, make)] = hooks.load(settings)
    made: Any = make(settings)
    assert (name, made.seen) == ("hooks_of_a_test:Seen", settings.file)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hooks_of_a_test:Nobody", "cannot be imported"),
        ("hooks_nowhere:Seen", "cannot be imported"),
        ("hooks_of_a_test:Broken", "cannot be made: ValueError: no DSN"),
        ("hooks_of_a_test:Exiting", "cannot be made: SystemExit: 2"),
        ("hooks_of_a_test:word", "expected a class"),
        ("hooks_of_a_test:Blind", "expected at least one of the methods before, after, buried"),
        ("hooks_of_a_test:of_nothing", "expected at least one of the methods before, after, buried"),
        ("https://shop.example/hook", "expected"),
    ],
)
def test_a_hook_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        hooks.open_hooks(settings_with(tmp_path, name))
    assert "[worker] hooks" in str(caught.value)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "observability"))
    import observability

    yield observability
    sys.modules.pop("observability", None)


def test_the_example_for_sentry_reports_what_fails(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentry_sdk

    sent: list[Any] = []

    class Kept(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.append(envelope.get_event())

    monkeypatch.setenv("SENTRY_DSN", "http://key@127.0.0.1:9/1")
    seen = Hooks([("observability:Sentry", example.Sentry(Settings()))])
    sentry_sdk.get_client().transport = Kept()
    seen.after(report_of("done"))
    seen.after(report_of("retry", OSError("away")))
    seen.after(report_of("bury", Bury("no such order")))
    sentry_sdk.flush(2.0)
    assert [event["exception"]["values"][-1]["type"] for event in sent] == ["OSError", "Bury"]
    assert [event["level"] for event in sent] == ["warning", "error"]
    assert sent[0]["tags"]["glassq.source"] == "shop"
    assert "body" not in str(sent[0]["contexts"])


def test_the_example_for_opentelemetry_makes_a_span_of_each_attempt(example: Any) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    seen = Hooks([("observability:OpenTelemetry", example.OpenTelemetry(Settings()))])
    for outcome, error in (("done", None), ("bury", Bury("no such order"))):
        report = report_of(outcome, error)
        seen.before(report.delivery)
        seen.after(report)
    done, buried = exporter.get_finished_spans()
    assert (done.name, done.attributes and done.attributes["glassq.outcome"]) == ("shop process", "done")
    assert buried.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in buried.events] == ["exception"]
