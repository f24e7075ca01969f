"""What authors' tests are told is what the pool does: the same handlers go both ways here."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq import Bury, Drop, Retry, task
from glassq import delivery as envelope
from glassq.errors import DeadlineExceeded, SettingsError
from glassq.push.taskqueue import Task
from glassq.routes import Context, requires, retry_policy
from glassq.settings import PushSettings, Route, Settings, WorkerSettings
from glassq.testing import work
from glassq.values import Duration, HandlerName
from tests.worker.conftest import ACTS, Bench, jobs, look, only

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.routes import Result
    from tests.queues.raw import Queue

__all__ = ["look"]

# the budget of Bench
THREE = Settings(worker=WorkerSettings(max_attempts=3))


def scripted(delivery: Delivery) -> Result:
    result: Result = ACTS[json.loads(delivery.body)["do"]]()
    return result


def story(delivery: Delivery) -> dict[str, object]:
    """What two runs have in common."""
    told = [(each.attempt, each.outcome, each.error, each.message, each.detail) for each in delivery.evidence]
    counted = (delivery.attempt, delivery.failures, delivery.waits, delivery.lost)
    return {"buried": delivery.buried, "evidence": told, "counted": counted, "tried": delivery.tried is not None}


# what gives the job back, or says nothing of it, is no outcome of a handler
OUTCOMES = [do for do in ACTS if do not in ("interrupted", "lease lost")]


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("do", OUTCOMES)
def test_an_attempt_comes_to_what_it_comes_to_in_the_pool(queue: Queue, look: Queue, do: str, attempt: int) -> None:
    body, labels = json.dumps({"do": do}).encode(), {"collection": "timeline"}
    came = work(scripted, body, labels=labels, attempt=attempt, settings=THREE)

    bench = Bench(queue, handler=lambda delivery, _context: scripted(delivery))
    made = envelope.new("mirror", body, labels)
    look.put(envelope.encode(msgspec.structs.replace(made, attempt=attempt, failures=attempt - 1)))
    bench.consumer.work_one(0)
    (entry,) = bench.ledger.entries

    assert (came.state, came.reason, came.recorded) == (entry.state, entry.reason, entry.result)
    if came.state in ("done", "dropped"):
        assert jobs(look) == []
        return
    stats, following = only(look)
    assert story(came.delivery) == story(following)
    assert stats.state == ("buried" if came.state == "buried" else "delayed")
    if do.startswith(("retry", "wait")) and do != "retry" and came.state == "retrying":
        assert math.ceil(came.delay) == stats.delay


@pytest.mark.parametrize("result", ["stored", None, {"urls": ["a"]}])
def test_what_a_handler_returns_is_the_result_as_it_was_returned(result: Result) -> None:
    came = work(lambda _delivery: result)
    assert (came.state, came.reason, came.result, came.evidence, came.error) == ("done", "", result, None, None)


def test_a_result_that_the_ledger_cannot_hold_is_said_and_returned_as_it_was() -> None:
    result = {"at": object}
    came = work(lambda _delivery: result)
    assert (came.state, came.result) == ("done", result)
    assert (
        came.recorded
        == """{"at": "<class 'object'>"} (not JSON: TypeError: Object of type type is not JSON serializable)"""
    )


def test_what_a_handler_does_to_its_delivery_is_in_no_later_attempt() -> None:
    def handle(delivery: Delivery) -> None:
        delivery.labels["note"] = "x" * 1_000_000
        for each in delivery.evidence:
            each.detail["note"] = "x"
        raise Retry("busy", detail={"a": 1})

    came = work(handle, labels={"collection": "timeline"}).again()
    assert came.delivery.labels == {"collection": "timeline"}
    assert [each.detail for each in came.delivery.evidence] == [{"a": 1}, {"a": 1}]


def test_a_handler_sees_the_delivery_that_was_described_and_a_context_with_time_left() -> None:
    seen: list[tuple[Delivery, float]] = []

    def handle(delivery: Delivery, context: Context) -> None:
        seen.append((delivery, context.remaining()))

    work(handle, b"body", source="shop", labels={"kind": "order"}, attempt=2)
    ((delivery, remaining),) = seen
    assert (delivery.body, delivery.source, delivery.labels) == (b"body", "shop", {"kind": "order"})
    assert (delivery.attempt, delivery.failures) == (2, 1)
    assert 60 < remaining <= 570


def test_an_unexpected_error_is_there_with_its_traceback_and_can_be_raised_again() -> None:
    came = work(lambda delivery: delivery.labels["kind"])
    assert (came.state, came.reason) == ("retrying", "KeyError: 'kind'")
    assert came.evidence is not None
    assert "test_testing.py" in came.evidence.traceback
    with pytest.raises(KeyError):
        raise came.error or AssertionError


def test_attempts_go_on_with_their_story_until_the_budget_is_spent() -> None:
    def handle(delivery: Delivery) -> None:
        raise Retry(f"busy {delivery.attempt}", delay=5)

    first = work(handle, settings=THREE)
    assert (first.state, first.delay, first.delivery.attempt) == ("retrying", 5.0, 2)
    last = first.again().again()
    assert (last.state, last.reason) == ("buried", "busy 3 (gave up after 3 attempts)")
    assert [each.message for each in last.delivery.evidence] == ["busy 1", "busy 2", "busy 3"]
    assert first.until_over().reason == last.reason


def test_a_kick_gives_a_buried_delivery_a_fresh_budget() -> None:
    def handle(delivery: Delivery) -> str:
        if delivery.attempt == 1:
            raise Bury("no consent")
        return "stored"

    kicked = work(handle).again()
    assert (kicked.state, kicked.result, kicked.delivery.failures) == ("done", "stored", 0)
    with pytest.raises(ValueError, match="no next attempt: it is done"):
        kicked.again()


def test_a_handler_that_waits_for_ever_is_not_waited_for() -> None:
    def handle(delivery: Delivery) -> None:
        raise Retry(f"not ready, {delivery.waits} times", counts=False)

    with pytest.raises(RuntimeError, match="not over after 5 more attempts: not ready, 5 times"):
        work(handle).until_over(most=5)


def test_a_handler_that_overruns_its_deadline_is_ended_also_where_it_catches_every_exception() -> None:
    def handle(_delivery: Delivery) -> None:
        while True:
            with suppress(Exception):
                time.sleep(60)

    before = signal.getsignal(signal.SIGALRM)
    came = work(handle, deadline=0.1)
    assert (came.state, came.reason) == ("retrying", "the handler overran its deadline")
    assert isinstance(came.error, DeadlineExceeded)
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_a_handler_needs_once_can_be_given_and_is_kept_for_the_next_attempt() -> None:
    made: list[str] = []

    def client(_settings: Settings) -> str:
        made.append("made")
        return "the real one"

    @requires(client)
    def handle(delivery: Delivery, context: Context) -> str:
        if delivery.attempt == 1:
            raise Retry("once more")
        return context.resource(client)

    assert work(handle).again().result == "the real one"
    assert made == ["made"]
    context = Context(Settings())
    context.provide(client, "one of the test's own")
    assert work(handle, context=context, attempt=2).result == "one of the test's own"
    assert made == ["made"]


def test_a_pool_that_would_not_start_is_no_attempt() -> None:
    def secret(_settings: Settings) -> str:
        raise SettingsError("the secret cannot be read")

    @requires(secret)
    def handle(_delivery: Delivery, _context: Context) -> None: ...

    with pytest.raises(SettingsError, match="cannot be read"):
        work(handle)


def test_a_retry_rule_of_the_handler_counts_and_one_that_fails_does_not() -> None:
    class Twice:
        def after(self, failures: int, age: float) -> float | None:
            return None if failures >= 2 else 7.0

    @retry_policy(lambda _delivery, _context: Twice())
    def ruled(_delivery: Delivery) -> None:
        raise ValueError("no")

    @retry_policy(lambda delivery, _context: delivery.labels["missing"])
    def misruled(_delivery: Delivery) -> None:
        raise ValueError("no")

    first = work(ruled)
    assert (first.state, first.delay, first.again().state) == ("retrying", 7.0, "buried")
    assert work(misruled, settings=THREE).until_over().delivery.attempt == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_a_handler_forks_does_not_run_the_rest_of_the_tests() -> None:
    codes = []

    def handle(_delivery: Delivery) -> str:
        pid = os.fork()
        if pid == 0:
            sys.exit(int(codes != []))
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return "parent"

    assert [work(handle).result, work(handle, deadline=60).result] == ["parent", "parent"]
    assert codes == [0, 1]


def test_ctrl_c_ends_the_tests() -> None:
    def handle(_delivery: Delivery) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(handle)


# -- by name, and by the routes ------------------------------------------------------------------------------------

TOML = """
[worker]
max_attempts = 1
[push]
[[routes]]
source = "mirror"
collection = "timeline"
handler = "handlers_of_an_author:fails"
[[routes]]
source = "mirror"
collection = "locations"
handler = "http://127.0.0.1:8082/task"
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "handlers_of_an_author.py").write_text("def fails(delivery, context): 1 / 0\n")
    (tmp_path / "glassq.toml").write_text(TOML)
    before = sys.path[:]
    yield tmp_path / "glassq.toml"
    sys.path[:] = before
    sys.modules.pop("handlers_of_an_author", None)


def test_a_handler_by_name_is_found_beside_the_settings_and_held_to_them(file: Path) -> None:
    came = work("handlers_of_an_author:fails", settings=file)
    assert (came.state, came.reason) == ("buried", "ZeroDivisionError: division by zero (gave up after 1 attempt)")


def test_without_a_handler_the_routes_choose(file: Path) -> None:
    assert work(None, labels={"collection": "timeline"}, settings=str(file)).state == "buried"
    stray = work(None, labels={"collection": "settings"}, settings=file)
    assert (stray.state, stray.reason) == ("dropped", "no route")
    with pytest.raises(SettingsError, match=r"an endpoint is tested by a request to it"):
        work(None, labels={"collection": "locations"}, settings=file)


def pieces(_delivery: Delivery) -> Iterator[str]:
    yield "a"


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (pieces, "without yield"),
        (lambda: None, "expected a function of"),
        (lambda a, b, c: None, "expected a function of"),
        ("nowhere_at_all:handle", "cannot be imported: ModuleNotFoundError"),
        ("glassq.routes:Nothing", "cannot be imported: AttributeError"),
    ],
)
def test_what_no_pool_would_start_with_is_refused(handler: object, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        work(handler)  # type: ignore[arg-type]


def test_settings_and_a_context_are_one_too_many() -> None:
    with pytest.raises(TypeError, match="one of the two"):
        work(lambda _delivery: None, settings=Settings(), context=Context(Settings()))


def test_the_shipped_value_types_say_what_a_test_needs() -> None:
    """As docs/handlers.md has it: settings are made without a file, too."""
    settings = Settings(
        worker=WorkerSettings(max_attempts=2, backoff=Duration("1s"), backoff_cap=Duration("1s")),
        routes=(Route(source="mirror", handler=HandlerName("tests.test_testing:drops")),),
    )
    came = work(None, settings=settings)
    assert (came.state, came.reason) == ("dropped", "not ours")


def drops(_delivery: Delivery) -> None:
    raise Drop("not ours")


# -- tasks -----------------------------------------------------------------------------------------------------------


def told(delivery: Delivery) -> str:
    seen = task(delivery)
    if seen.retry_count < 2:
        raise Retry(f"not yet {seen.retry_count}")
    return f"{seen.queue} {seen.path} {seen.params}"


@pytest.fixture
def push(tmp_path: Path) -> Settings:
    yaml = tmp_path / "queue.yaml"
    yaml.write_text(
        "queue:\n- name: mail\n  rate: 1/s\n  retry_parameters: {task_retry_limit: 1, min_backoff_seconds: 7}\n"
    )
    return Settings(push=PushSettings(queue_yaml=str(yaml), names=f"sqlite:///{tmp_path}/names.db"))


def test_a_task_is_worked_as_its_queue_has_it_and_its_name_is_recorded_nowhere(push: Settings, tmp_path: Path) -> None:
    given = Task(url="/send", params={"to": "you"}, name="named")
    for handler in (told, "tests.test_testing:told"):
        came = work(handler, given, labels={"queue": "mail"}, settings=push)
        assert (came.state, came.reason, came.delay) == ("retrying", "not yet 0", 7.0)
        assert came.until_over().reason == "not yet 1 (gave up after 2 attempts)"
        last = work(handler, given, settings=push).until_over()
        assert (last.state, last.result) == ("done", "default /send {'to': 'you'}")
    assert not (tmp_path / "names.db").exists()


def test_a_task_needs_no_settings_and_is_then_retried_as_the_pool_does() -> None:
    came = work(told, Task(url="/send"), attempt=8)
    assert (came.state, came.result) == ("done", "default /send {}")
    assert work(lambda delivery: 1 // 0, Task(), attempt=8).state == "buried"


def test_what_is_no_task_needs_no_queue_yaml(push: Settings, tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").unlink()
    assert work(lambda delivery: delivery.source, settings=push).result == "mirror"
    with pytest.raises(SettingsError, match=r"queue\.yaml"):
        work(told, Task(), settings=push)
