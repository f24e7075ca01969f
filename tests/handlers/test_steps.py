"""Handlers of several steps: what each gets, and where a retry goes on."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import msgspec
import pytest

from glassq import Retry
from glassq import delivery as envelope
from glassq.bodies import DirectoryBodies
from glassq.bodies.results import StepResults
from glassq.delivery import StepResult, StoredBody, decode, encode, result_key
from glassq.errors import Bury, DeadlineExceeded, Interrupted, SettingsError
from glassq.handlers.steps import in_steps
from glassq.loading import Part
from glassq.routes import Context
from glassq.settings import Settings, as_toml, parse
from glassq.testing import work
from glassq.values import Step
from tests.conftest import ROOT
from tests.push.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.delivery import Delivery

HANDLERS = """
from glassq import Bury, Retry
from pathlib import Path

CALLS = Path(__file__).with_name("calls")

def told(name):
    with CALLS.open("a") as file:
        file.write(name + "\\n")

def fetch(delivery):
    told("fetch")
    return {"picture": delivery.text()}

def told_of(delivery, context):
    return f"{delivery.text()}: {context.results['upload']}"

def store(delivery, context):
    told("store")
    if not CALLS.with_name("open").exists():
        CALLS.with_name("open").touch()
        raise Retry("the store is shut")
    return f"{delivery.text()}: {context.results['fetch']['picture']}, {context.results['upper'].strip()}"
"""
ROUTE = """
[[routes]]
source = "shop"
steps = [{ name = "fetch", handler = "step_handlers:fetch" }, { name = "upper", handler = "exec:./upper" }, \
"step_handlers:store"]
"""


@pytest.fixture
def bodies(tmp_path: Path) -> DirectoryBodies:
    store = DirectoryBodies(tmp_path / "bodies")
    store.prepare()
    return store


def test_a_retry_goes_on_at_the_step_that_failed_and_has_the_results_before_it(tmp_path: Path) -> None:
    (tmp_path / "step_handlers.py").write_text(HANDLERS)
    (tmp_path / "glassq.toml").write_text(ROUTE)
    program = tmp_path / "upper"
    program.write_text(
        f'#!/bin/sh\necho upper >> {tmp_path}/calls\necho "$GLASSQ_STEP $GLASSQ_CONTENT_TYPE"\ntr a-z A-Z\n'
    )
    program.chmod(0o755)

    first = work(None, b"cat", source="shop", settings=tmp_path / "glassq.toml")
    assert (first.state, first.reason) == ("retrying", "step step_handlers:store: the store is shut")
    assert first.evidence is not None
    assert (first.evidence.step, first.evidence.message) == ("step_handlers:store", "the store is shut")
    assert [result.step for result in first.delivery.done] == ["fetch", "upper"]
    second = first.again()
    assert (second.state, second.recorded) == ("done", 'cat: cat, upper application/json\n{"PICTURE":"CAT"}')
    assert (tmp_path / "calls").read_text().split() == ["fetch", "upper", "store", "store"]


def test_a_url_gets_the_result_before_it_and_its_response_goes_on(tmp_path: Path) -> None:
    (tmp_path / "step_handlers.py").write_text(HANDLERS)
    with Target() as target:
        upload = f"{target.url}/upload?body=kept%20as%207&then=close"
        (tmp_path / "glassq.toml").write_text(
            f'[push]\nnames = "sqlite:///{tmp_path}/names.db"\n[[routes]]\nsource = "shop"\n'
            f'steps = ["step_handlers:fetch", {{ name = "upload", handler = "{upload}" }}, "step_handlers:told_of"]\n'
        )
        came = work(None, b"cat", source="shop", settings=tmp_path / "glassq.toml")
    assert (came.state, came.recorded) == ("done", "cat: kept as 7")
    (asked,) = target.asked
    assert (asked.body, asked.headers["content-type"]) == (b'{"picture":"cat"}', "application/json")


# -- one handler of steps, without a pool ------------------------------------------------------------------------------


class Rig:
    """Steps named by letters. Each gives its letter in capitals, unless `fails` has it; `ran` are those that ran."""

    def __init__(self, bodies: DirectoryBodies | None = None, fails: str = "") -> None:
        self.context = Context(Settings(), bodies=bodies)
        self.fails = fails
        self.ran: list[str] = []

    def run(self, names: str, delivery: Delivery) -> object:
        self.context.done = delivery.done
        self.ran.clear()
        return in_steps([Part(Step({"name": name, "handler": "m:f"}), self._step(name), {}) for name in names])(
            delivery, self.context
        )

    def _step(self, name: str) -> Callable[[Delivery, Context], str]:
        def step(_delivery: Delivery, _context: Context) -> str:
            self.ran.append(name)
            if name in self.fails:
                raise Retry("no")
            return name.upper()

        return step

    def fail(self, names: str, delivery: Delivery) -> Delivery:
        """The delivery as it is put again."""
        with pytest.raises(Retry):
            self.run(names, delivery)
        return decode(encode(msgspec.structs.replace(delivery, done=self.context.done)))


@pytest.mark.parametrize(
    ("now", "ran", "result"),
    [
        ("abc", "c", "C"),
        # a step that was done and is gone leaves its result behind
        ("bc", "c", "C"),
        ("ac", "c", "C"),
        # one that is new runs, wherever it stands
        ("xabc", "xc", "C"),
        ("axbc", "xc", "C"),
        ("abxc", "xc", "C"),
        # in another order, what was done is done
        ("cba", "c", "A"),
        ("bac", "c", "C"),
        ("ba", "", "A"),
        ("xyz", "xyz", "Z"),
    ],
)
def test_steps_that_are_done_are_found_by_name_when_the_settings_change(now: str, ran: str, result: str) -> None:
    rig = Rig(fails="c")
    delivery = rig.fail("abc", envelope.new("shop", b"", {}))
    rig.fails = ""
    assert rig.run(now, delivery) == result
    assert "".join(rig.ran) == ran


def test_between_two_steps_an_attempt_can_be_interrupted() -> None:
    rig = Rig()
    rig.context.pending = lambda: Interrupted if rig.ran else None
    with pytest.raises(Interrupted):
        rig.run("abc", envelope.new("shop", b"", {}))
    rig.context.pending, rig.context.deadline = lambda: None, 0.0
    with pytest.raises(DeadlineExceeded):
        rig.run("abc", envelope.new("shop", b"", {}))
    assert rig.ran == []


def test_a_result_that_the_store_has_lost_has_its_step_run_again(bodies: DirectoryBodies) -> None:
    rig = Rig(bodies, fails="c")
    large = envelope.new("shop", b"x" * 40_000, {})
    delivery = rig.fail("abc", large)
    assert [result.stored is not None for result in delivery.done] == [True, True]
    assert delivery.stored_keys == [result_key(large.id, "a"), result_key(large.id, "b")]
    bodies.delete(result_key(large.id, "a"))
    (bodies.directory / "live" / result_key(large.id, "b")).write_bytes(b"changed")
    rig.fail("abc", delivery)
    assert rig.ran == ["a", "b", "c"]


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body", "content_type", "read"),
    [
        ("text", b"text", "text/plain; charset=utf-8", "text"),
        (b"plain", b"plain", "text/plain; charset=utf-8", "plain"),
        (b"\xff\x00", b"\xff\x00", "application/octet-stream", b"\xff\x00"),
        ({"a": [1]}, b'{"a":[1]}', "application/json", {"a": [1]}),
        ([1, "b"], b'[1,"b"]', "application/json", [1, "b"]),
        ("", b"", "text/plain; charset=utf-8", ""),
        ("\udce9", b"\\udce9", "text/plain; charset=utf-8", "\\udce9"),
        (None, b"the ping", "a/b", None),
    ],
)
def test_a_result_is_what_was_returned_and_the_next_programs_body(
    bodies: DirectoryBodies, value: object, body: bytes, content_type: str, read: object
) -> None:
    delivery = envelope.new("shop", b"the ping", {}, content_type="a/b")
    results = StepResults(delivery, bodies)
    results.keep("one", value)
    later = StepResults(decode(encode(msgspec.structs.replace(delivery, done=results.done))), bodies)
    given = later.given_to(delivery, "one")
    with given.open() as file:
        assert (file.read(), given.body, given.content_type) == (body, body, content_type)
    assert later["one"] == read
    assert later.given_to(delivery, "two") is delivery


def test_what_the_job_has_no_room_for_goes_to_the_store(bodies: DirectoryBodies) -> None:
    delivery = envelope.new("shop", b"", {})
    results = StepResults(delivery, bodies)
    for name, size in (("a", 5_000), ("b", 5_000), ("c", 2_000), ("d", 90_000)):
        results.keep(name, name * size)
    assert [result.step for result in results.done if result.stored] == ["b", "d"]
    carried = msgspec.structs.replace(delivery, done=results.done)
    assert len(encode(carried)) < 9_000
    later = StepResults(decode(encode(carried)), bodies)
    assert {name: len(later[name]) for name in later} == {"a": 5_000, "b": 5_000, "c": 2_000, "d": 90_000}
    with later.given_to(delivery, "d").open() as file:
        assert file.read(3) == b"ddd"


def test_what_cannot_be_kept_buries_the_delivery() -> None:
    with pytest.raises(Bury, match="step one returned what is no text, bytes or JSON"):
        StepResults(envelope.new("shop", b"", {}), None).keep("one", {"a": object()})


def test_jobs_of_older_releases_have_no_steps() -> None:
    delivery = envelope.new("shop", b"", {})
    assert b"done" not in encode(delivery)
    assert decode(encode(delivery)).done == ()
    done = (StepResult("a"), StepResult("b", "text", "x"), StepResult("c", "json", stored=StoredBody(1, "0")))
    assert decode(encode(msgspec.structs.replace(delivery, done=done))).done == done


# -- settings ----------------------------------------------------------------------------------------------------------


def test_steps_are_written_as_they_were_read() -> None:
    settings = parse('[sources.shop]\nkind = "generic"\n' + ROUTE, "glassq.toml", uses={"routes"})
    (route,) = settings.routes
    assert route.steps is not None
    assert [(step.name, str(step)) for step in route.steps] == [
        ("fetch", "step_handlers:fetch"),
        ("upper", "exec:./upper"),
        ("step_handlers:store", "step_handlers:store"),
    ]
    assert route.work == "step_handlers:fetch > exec:./upper > step_handlers:store"
    (written,) = parse(as_toml(settings), "glassq.toml").routes
    assert written.steps is not None
    assert [step.name for step in written.steps] == [step.name for step in route.steps]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ('["m:f", "m:f"]', "expected a name of its own for each"),
        ('[{ name = "a" }]', "expected a handler, or { name = "),
        ('[{ name = "", handler = "m:f" }]', "expected a name of 1 to 100 characters"),
        ('[{ name = 5, handler = "m:f" }]', "expected a name of 1 to 100 characters"),
        ("[5]", 'expected "package.module:function"'),
    ],
)
def test_steps_that_cannot_be_meant_are_refused(steps: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(f'[[routes]]\nsource = "shop"\nsteps = {steps}\n', "glassq.toml")
    assert says in str(caught.value)


def test_the_steps_of_the_documents_can_be_meant_and_fetch() -> None:
    page = (ROOT / "docs" / "other-handlers.md").read_text("utf-8").partition("\n## Steps\n")[2].partition("\n## ")[0]
    (toml,) = re.findall(r"```toml\n(.+?)```", page, re.DOTALL)
    (route,) = parse(f"{toml}\n[push]\n", "glassq.toml").routes
    assert [step.name for step in route.steps or ()] == [
        "handlers:fetch",
        "shrink",
        "https://photos.example.com/upload",
    ]
    example: dict[str, Any] = {"urlopen": urlopen}
    (code,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    exec(f"from __future__ import annotations\n{code}", example)
    with Target() as target:
        url = json.dumps({"url": f"{target.url}/photo?body=pixels"}).encode()
        assert example["fetch"](envelope.new("photos", url, {})) == b"pixels"
