"""Deferred calls: what may be deferred, what a forged one can do, and what comes of those that run."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq import deferred, taskqueue
from glassq.delivery import decode
from glassq.errors import GlassqError, SettingsError
from glassq.push.request import from_labels
from glassq.push.taskqueue import Task
from glassq.settings import PushSettings, Settings
from glassq.testing import work
from glassq.values import ModuleName
from tests.push import calls
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.testing import Worked
    from tests.conftest import Beanstalkd

MODULE = "tests.push.calls"
SETTINGS = Settings(file="glassq.toml", push=PushSettings(deferred=(ModuleName(MODULE),)))


def worked(task: Task, settings: Settings = SETTINGS, **more: Any) -> Worked:
    return work(None, task, settings=settings, **more)


def ran(function: Any, *args: Any, **kwargs: Any) -> Worked:
    return worked(Task(deferred.serialize(function, *args, **kwargs), url=deferred.URL))


def forged(**call: Any) -> Worked:
    return worked(Task(json.dumps(call), url=deferred.URL))


# -- what may be deferred --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (calls.instance.method, "defer a function that is given a key to find the object by"),
        (calls.Class.of_class, "defer a function that is given a key to find the object by"),
        (calls.Class.method, "is not defined at the top of its module"),
        (calls.Class.static, "is not defined at the top of its module"),
        (calls.Class, "defer a function that makes the object"),
        (calls.instance, "is not a function of a module"),
        (calls.partly, "is not a function of a module"),
        (calls.system, "is not a function of a module"),
        (print, "is not a function of a module"),
        ("tests.push.calls:resize", "is not a function of a module"),
        (None, "is not a function of a module"),
        (calls.anonymous, "is not defined at the top of its module"),
        (calls.nested(), "is not defined at the top of its module"),
        (calls.bare, "functools.wraps"),
        (calls.__getattr__, "is for Python to call"),
        (calls.later, "expected a plain function, without async and yield"),
        (calls.pieces, "expected a plain function, without async and yield"),
        (calls.pieces_later, "expected a plain function, without async and yield"),
    ],
    ids=range(18),
)
def test_what_has_no_name_to_call_it_by_is_refused_with_what_to_do(function: Any, says: str) -> None:
    with pytest.raises(deferred.NotDeferrable, match=says) as caught:
        deferred.serialize(function)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, deferred.Error)
    assert isinstance(caught.value, GlassqError)


def test_a_function_of_the_program_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.resize, "__module__", "__main__")
    with pytest.raises(deferred.NotDeferrable, match="move it to a module that the pool can import"):
        deferred.serialize(calls.resize)


def test_a_function_that_its_module_has_no_longer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = calls.resize
    monkeypatch.setattr(calls, "resize", lambda photo: photo)
    with pytest.raises(deferred.NotDeferrable, match="is not what its module has by this name"):
        deferred.serialize(before, "a")


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), (("a",), {"wdith": 1}), (("a", 1, 2), {}), (("a",), {"_x": 1})])
def test_arguments_that_the_function_does_not_take_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(deferred.NotDeferrable, match="calls:resize cannot be called with these arguments: "):
        deferred.serialize(calls.resize, *args, **kwargs)


class Pair(NamedTuple):
    left: int


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
DEEP: Any = "end"
for _ in range(150):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((1, 2), "argument 1 is a tuple .* give a list"),
        (Pair(1), "argument 1 is a Pair"),
        ({1}, "give a list"),
        (frozenset({1}), "give a list"),
        (b"x", "JSON has no bytes"),
        (bytearray(b"x"), "argument 1 is a bytearray"),
        (datetime.now(UTC), "isoformat"),
        (date(2026, 1, 31), "isoformat"),
        (timedelta(1), "argument 1 is a timedelta"),
        (Decimal(1), "argument 1 is a Decimal"),
        (1j, "argument 1 is a complex"),
        (Number.ONE, "argument 1 is a Number"),
        (Text("x"), "argument 1 is a Text"),
        (OrderedDict(a=1), "argument 1 is a OrderedDict"),
        (object(), "argument 1 is a object"),
        (calls.resize, "argument 1 is a function"),
        (float("nan"), "argument 1 is nan, which JSON does not have"),
        (float("-inf"), "argument 1 is -inf, which JSON does not have"),
        (1 << 63, "more than 64 bits: give it as text"),
        (-(1 << 63) - 1, "more than 64 bits: give it as text"),
        (10**5000, "more than 64 bits: give it as text"),
        ("\ud800", "half of a surrogate pair"),
        ({1: "a"}, r"argument 1 is a dict with the key a int \(1\): JSON's keys are texts"),
        ({None: "a"}, "JSON's keys are texts"),
        ({Text("a"): "a"}, "JSON's keys are texts"),
        ({"\ud800": "a"}, "JSON's keys are texts"),
        ([{"a": [0, (1,)]}], r"argument 1\[0\]\['a'\]\[1\] is a tuple"),
        (ENDLESS, "nested more than 100 deep, or holds itself"),
        (DEEP, "nested more than 100 deep, or holds itself"),
    ],
    ids=range(29),
)
def test_what_json_would_change_is_refused_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(deferred.NotDeferrable, match=says):
        deferred.serialize(calls.told, value)
    with pytest.raises(deferred.NotDeferrable, match=says.replace("argument 1", "named")):
        deferred.serialize(calls.told, named=value)


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(args=st.lists(values, max_size=3), kwargs=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), values))
def test_what_is_taken_arrives_exactly_as_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    came = ran(calls.told, *args, **kwargs)
    # repr tells 1 from True, 1.0 and -0.0
    assert repr(came.result) == repr({"args": args, "kwargs": kwargs})


def test_too_much_is_refused_with_the_limit() -> None:
    doubled: list[Any] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    for value in ("x" * 102_401, [0] * 200_000, doubled):
        with pytest.raises(taskqueue.TaskTooLargeError, match=r"more than the 102400 bytes .* give a key"):
            deferred.serialize(calls.told, value)


# -- what is put -----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, beanstalkd: Beanstalkd) -> Iterator[Path]:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: photos\n  rate: 1/s\n")
    file = tmp_path / "glassq.toml"
    file.write_text(
        f'{queue_section(beanstalkd.url)}[push]\nqueue_yaml = "{tmp_path}/queue.yaml"\n'
        f'names = "sqlite:///{tmp_path}/names.db"\ndeferred = ["{MODULE}"]\n'
    )
    taskqueue.configure(str(file))
    yield file
    taskqueue.configure(None)


def test_a_deferred_call_is_a_task_with_app_engines_options(config: Path, beanstalkd: Beanstalkd) -> None:
    options = taskqueue.TaskRetryOptions(task_retry_limit=3)
    task = deferred.defer(
        calls.resize, "a", width=320,
        _countdown=100, _name="resize-a", _queue="photos", _headers={"X-Own": "1"}, _retry_options=options,
    )  # fmt: skip
    assert (task.was_enqueued, task.name, task.queue_name) == (True, "resize-a", "photos")
    queue = beanstalkd.queue()
    job = queue.peek_first("delayed", "glassq.push.photos")
    queue.close()
    assert job is not None
    delivery = decode(job.body)
    assert json.loads(delivery.body) == {"call": f"{MODULE}:resize", "args": ["a"], "kwargs": {"width": 320}}
    request = from_labels(delivery.labels)
    assert (request.url, request.retry) == ("/_ah/queue/deferred", options.parameters)
    assert request.headers == {"Content-Type": "application/json", "X-Own": "1"}
    assert request.eta == task.eta_posix
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        deferred.defer(calls.resize, "a", _name="resize-a", _queue="photos")


def test_options_that_a_task_cannot_have_are_refused_as_those_of_a_task(config: Path) -> None:
    with pytest.raises(taskqueue.BadTransactionStateError):
        deferred.defer(calls.resize, "a", _transactional=True)
    with pytest.raises(taskqueue.UnknownQueueError):
        deferred.defer(calls.resize, "a", _queue="nowhere")
    with pytest.raises(taskqueue.InvalidTaskError, match=r"not in \[push.targets\]"):
        deferred.defer(calls.resize, "a", _target="nowhere")
    with pytest.raises(taskqueue.InvalidTaskError):
        deferred.defer(calls.resize, "a", _countdown=1, _eta=datetime.now(UTC))


def test_another_url_is_for_another_route(config: Path, beanstalkd: Beanstalkd) -> None:
    with pytest.raises(taskqueue.InvalidTaskError, match='only a task that a route with source = "push" takes'):
        deferred.defer(calls.resize, "a", _url="/mine")
    text = config.read_text()
    config.write_text(f'{text}[[routes]]\nsource = "push"\nurl = "/mine"\nhandler = "glassq.push.deferred:handle"\n')
    taskqueue.configure(str(config))
    task = deferred.defer(calls.resize, "a", _url="/mine")
    assert task.url == "/mine"
    came = work(None, task, settings=config)
    assert (came.state, came.result) == ("done", "a at 640")


def test_a_module_that_the_settings_do_not_name_is_refused_when_it_is_deferred(config: Path) -> None:
    config.write_text(config.read_text().replace(MODULE, "tests.push"))
    taskqueue.configure(str(config))
    with pytest.raises(
        deferred.NotDeferrable,
        match=r"calls:resize: module 'tests.push.calls' is not in \[push\] deferred of .*: tests.p",
    ):
        deferred.defer(calls.resize, "a")


# -- what runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        (calls.resize, ("a", 320), "a at 320"),
        (calls.alias, ("a",), "a at 640"),
        (calls.decorated, ("a",), "a!"),
        (calls._private, (), "private"),
    ],
)
def test_a_deferred_call_is_made(function: Any, args: tuple[Any, ...], result: str) -> None:
    came = ran(function, *args)
    assert (came.state, came.result) == ("done", result)


@pytest.mark.parametrize(
    ("args", "state", "reason"),
    [
        (("for ever", "no such photo"), "buried", f"{MODULE}:fails: no such photo"),
        (("for ever",), "buried", f"{MODULE}:fails: PermanentTaskFailure"),
        (("once", "busy"), "retrying", f"{MODULE}:fails: busy"),
        (("once",), "retrying", f"{MODULE}:fails: SingularTaskFailure"),
        (("drop", "gone"), "dropped", "gone"),
        (("else", "broken"), "retrying", "ValueError: broken"),
    ],
)
def test_what_a_deferred_function_raises_decides(args: tuple[str, ...], state: str, reason: str) -> None:
    came = ran(calls.fails, *args)
    assert (came.state, came.reason) == (state, reason)
    if came.evidence is not None:
        # only what nobody expected needs a traceback
        assert bool(came.evidence.traceback) == (args[0] == "else")


def test_a_call_that_overruns_its_deadline_is_ended() -> None:
    came = worked(Task(deferred.serialize(calls.sleeps), url=deferred.URL), deadline=0.2)
    assert (came.state, came.reason) == ("retrying", "the handler overran its deadline")


def test_a_call_keeps_the_retry_rule_of_its_task() -> None:
    options = taskqueue.TaskRetryOptions(task_retry_limit=2, min_backoff_seconds=7)
    payload = deferred.serialize(calls.fails, "else")
    came = worked(Task(payload, url=deferred.URL, retry_options=options))
    assert came.delay == 7
    last = came.until_over()
    assert (last.state, last.reason) == ("buried", "ValueError (gave up after 3 attempts)")


FORGED = [
    ({"call": "os:system", "args": ["true"]}, "module 'os' is not in"),
    ({"call": "tests.push:calls", "args": []}, "module 'tests.push' is not in"),
    ({"call": "tests.push.calls.os:system"}, "module 'tests.push.calls.os' is not in"),
    ({"call": "builtins:eval", "args": ["1"]}, "module 'builtins' is not in"),
    ({"call": f"{MODULE}:system", "args": ["true"]}, "is not called"),
    ({"call": f"{MODULE}:made_up", "args": ["true"]}, "no such function any more"),
    ({"call": f"{MODULE}:imported"}, "that is tests.ports:free_port"),
    ({"call": f"{MODULE}:functools.partial"}, "no such function any more"),
    ({"call": f"{MODULE}:resize.__globals__"}, "no such function any more"),
    ({"call": f"{MODULE}:__getattr__", "args": ["made_up"]}, "is for Python to call"),
    ({"call": f"{MODULE}:__builtins__"}, "is not called"),
    ({"call": f"{MODULE}:__import__", "args": ["os"]}, "no such function any more"),
    ({"call": f"{MODULE}:Class"}, "is not called"),
    ({"call": f"{MODULE}:instance"}, "is not called"),
    ({"call": f"{MODULE}:text"}, "is not called"),
    ({"call": f"{MODULE}:alias", "args": ["a"]}, f"that is {MODULE}:resize"),
    ({"call": f"{MODULE}:anonymous"}, "is not called"),
    ({"call": f"{MODULE}:bare", "args": ["a"]}, "is not called"),
    ({"call": f"{MODULE}:later"}, "without async and yield"),
    ({"call": f"{MODULE}:"}, "no such function any more"),
    ({"call": MODULE}, "no such function any more"),
    ({"call": ""}, "module '' is not in"),
    ({"call": f"{MODULE}:resize\n", "args": ["a"]}, "no such function any more"),
    ({"call": f"{MODULE}:resize"}, "cannot be called with these arguments: missing a required argument: 'photo'"),
    ({"call": f"{MODULE}:resize", "args": ["a"], "kwargs": {"x": 1}}, "cannot be called with these arguments"),
    ({"call": f"{MODULE}:resize", "args": "a"}, "not a deferred call"),
    ({"call": f"{MODULE}:resize", "more": 1}, "not a deferred call"),
    ({"call": 7}, "not a deferred call"),
    ({}, "not a deferred call"),
]


@pytest.mark.parametrize(("call", "says"), FORGED, ids=range(len(FORGED)))
def test_a_forged_task_calls_nothing(call: dict[str, Any], says: str) -> None:
    came = forged(**call)
    assert came.state == "buried"
    assert says in came.reason
    assert "\n" not in came.reason


@pytest.mark.parametrize("payload", [b"", b"\x80\x04\x95", b"[]", b"null", b"\xff", b"[" * 50_000, b'{"call": "a:b"'])
def test_a_payload_that_is_no_call_is_buried(payload: bytes) -> None:
    came = worked(Task(payload, url=deferred.URL))
    assert (came.state, came.reason[:20]) == ("buried", "not a deferred call:")


def test_a_module_that_cannot_be_imported_stops_the_start() -> None:
    push = PushSettings(deferred=(ModuleName("tests.push.nowhere"),))
    with pytest.raises(SettingsError, match=r'\[push\] deferred: module "tests.push.nowhere" cannot be imported: Mod'):
        worked(Task(url="/work"), msgspec.structs.replace(SETTINGS, push=push))


def test_without_modules_deferred_calls_go_where_all_tasks_go() -> None:
    came = worked(Task(b"", url=deferred.URL), Settings(push=PushSettings()))
    assert came.reason == 'no target "default": add it to [push.targets] in , reload the pool, then kick this'
