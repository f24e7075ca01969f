"""The examples of docs/handlers.md and docs/schedules.md that no other test runs, and docs/coming-from.md's words."""

from __future__ import annotations

import inspect
import json
import logging
import re
import shutil
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest

from glassq import Delivery, Drop, deferred, taskqueue
from glassq import delivery as envelope
from glassq.cli.main import COMMANDS
from glassq.hooks import AttemptReport
from glassq.push.queue_yaml import PushQueue
from glassq.push.rule import RetryParameters
from glassq.routes import Context
from glassq.settings import Route, Settings, WorkerSettings, parse
from glassq.testing import work
from tests.conftest import ROOT
from tests.test_docs import files

if TYPE_CHECKING:
    from pathlib import Path

PAGES = {
    name: (ROOT / "docs" / name).read_text("utf-8")
    for name in (
        "handlers.md",
        "other-handlers.md",
        "schedules.md",
        "tasks-http.md",
        "coming-from.md",
        "app-engine.md",
        "glass.md",
    )
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def example(page: str, defines: str, **names: Any) -> Any:
    """The one Python block of a page that defines this, run; it finds `names` as if they were imported."""
    (code,) = [code for code in blocks(page, "python") if re.search(rf"^(def|class) {defines}\b", code, re.MULTILINE)]
    module = ModuleType("example")
    vars(module).update(names)
    exec(code, module.__dict__)
    return getattr(module, defines)


@pytest.mark.parametrize(("page", "text"), [(page, text) for page in PAGES for text in blocks(page, "toml")])
def test_settings_of_a_page_can_be_meant(page: str, text: str) -> None:
    # what the page has said before
    more = "" if "[push]" in text else "[push]\n"
    if "[[schedule]]" in text and "[[routes]]" not in text:
        more += '[[routes]]\nsource = "schedule"\nhandler = "a:b"\n'
    if named := re.search(r'^\[handlers\."(.+)"\]', text, re.MULTILINE):
        more += f'[[routes]]\nsource = "a"\nhandler = "{named[1]}"\n'
    parse(f"{text}\n{more}", "glassq.toml")


def test_a_route_for_each_event_has_its_handler() -> None:
    push = work(example("handlers.md", "push", Delivery=Delivery, Drop=Drop), b'{"commits": [1, 2], "ref": "main"}')
    assert push.result == "2 commits on main"
    ignore = example("handlers.md", "ignore", Delivery=Delivery, Drop=Drop)
    assert work(ignore, b"{}", labels={"event": "star"}).reason == "not interested in star"


def test_a_batch_is_worked_item_by_item() -> None:
    class Store(dict[str, object]):
        def __init__(self, settings: Settings) -> None: ...

        put_once = dict.setdefault

    handler = example("handlers.md", "mail_events", Delivery=Delivery, Context=Context, Store=Store)
    context = Context(Settings())
    context.provide(Store, store := Store(Settings()))
    body = json.dumps([{"sg_event_id": "a"}, {"sg_event_id": "b"}, {"sg_event_id": "a"}]).encode()
    assert work(handler, body, context=context).result == "3 events"
    assert store.keys() == {"a", "b"}


def test_a_large_body_is_copied_in_parts(tmp_path: Path) -> None:
    def there(path: str, mode: str) -> Any:
        return (tmp_path / path.rpartition("/")[2]).open(mode)

    handler = example("handlers.md", "archive", Delivery=Delivery, shutil=shutil, open=there)
    assert work(handler, b"x" * 100_000).result == "kept"
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [100_000]


def test_a_policy_of_its_own_tries_once_a_day_for_a_week() -> None:
    policy = example("handlers.md", "OnceADay")()
    assert (policy.after(3, 6 * 86_400), policy.after(3, 7 * 86_400)) == (86_400, None)


def test_the_hook_says_which_attempts_took_long(caplog: pytest.LogCaptureFixture) -> None:
    module = ModuleType("observability")
    exec(files("handlers.md")["observability.py"], module.__dict__)
    hook, delivery = module.Slow(Settings()), envelope.new("shop", b"", {})
    hook.before(delivery)
    with caplog.at_level(logging.WARNING):
        for seconds in (29.0, 31.0):
            hook.after(AttemptReport(delivery, "done", "", seconds, None))
    hook.buried(AttemptReport(delivery, "bury", "", 1.0, None))
    assert [record.getMessage() for record in caplog.records] == ["shop took 31 s: done"]


def test_the_handler_of_a_schedule_gets_its_body_and_when_it_was_due() -> None:
    write = example("schedules.md", "write")
    (schedule,) = parse(blocks("schedules.md", "toml")[0], "glassq.toml").schedule
    came = work(write, schedule.body.encode(), source="schedule", labels={"due": "2026-11-28T01:30:00Z"})
    assert came.result == "report of 1 days up to 2026-11-28T01:30:00Z"


# What the right side of docs/coming-from.md has in backticks: keys of settings and of queue.yaml, arguments, commands.
KEYS = {key for struct in (Route, WorkerSettings, PushQueue, RetryParameters) for key in struct.__struct_fields__}
ARGUMENTS = {*inspect.signature(deferred.defer).parameters, *inspect.signature(taskqueue.Task).parameters}
# Verbs of `glassq queues`, and words of App Engine that are refused.
OTHERS = {"purge", "resume", "version", "instance", "defer"}
MODULES = {"taskqueue": taskqueue, "deferred": deferred}


def is_there(word: str) -> bool:
    """Whether something has this name; True for what is more than a name."""
    if section := re.fullmatch(r"\[(\w+)\] (\w+)", word):
        of = next(field.type for field in msgspec.structs.fields(Settings) if field.name == section[1])
        structs = [kind for kind in (of, *get_args(of)) if hasattr(kind, "__struct_fields__")]
        return any(section[2] in struct.__struct_fields__ for struct in structs)
    if re.fullmatch(r"_?[a-z]+(_[a-z]+)*=?", word):
        return word.rstrip("=") in KEYS | ARGUMENTS | OTHERS | COMMANDS.keys()
    called = re.match(r"(taskqueue|deferred)\.(\w+)\(", word)
    return called is None or hasattr(MODULES[called[1]], called[2])


def test_what_coming_from_names_is_there() -> None:
    cells = re.findall(r"^\|.*?(?<!\\)\|(.*)\|$", PAGES["coming-from.md"], re.MULTILINE)
    words = {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    assert len(words) > 50
    assert [word for word in sorted(words) if not is_there(word)] == []
    assert not any(map(is_there, ["[push] names_yaml", "max_tries", "taskqueue.put(x)"]))
