"""`glassq activity`, and that commands which change something are in it; the others are not."""

from __future__ import annotations

import ast
import getpass
import importlib
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import pytest

from glassq.cli.app import App
from glassq.cli.main import COMMANDS
from glassq.errors import QueueUnavailable, Stopped
from glassq.operations import activity
from tests.cli.conftest import a_delivery, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli, Said
    from tests.queues.raw import Queue


def done_by(said: Said) -> list[tuple[str, str, str, int, int]]:
    return [
        (each["did"], each["state"], each["filter"], each["chosen"], each["done"]) for each in said.json["activities"]
    ]


def test_every_change_is_recorded_and_nothing_else(queue: Queue, cli: Cli) -> None:
    deliveries = [a_delivery() for _ in range(4)]
    first, second, third, _ = [put(queue, each, "buried") for each in deliveries]
    cli.record(deliveries[0], "buried", job=first)
    # looks, dry runs and refusals
    for words in (
        ("status",),
        ("kick", "--all", "--dry-run"),
        ("kick", "nobody"),
        ("kick", "--where", "error~nothing like it", "--yes"),
        ("delete", str(first)),
        ("bury", str(first)),
        ("put", "--source", "new", "--no-check", "--dry-run"),
        ("resume",),
    ):
        cli(*words, answer="{}")
    nothing = cli("activity")
    assert (nothing.code, nothing.out) == (0, "nothing was done that the ledger knows of\n")

    assert cli("kick", str(first), str(second), "999999").code == 1
    assert cli("delete", str(third), "--yes").code == 0
    assert cli("pause", "glassq", "--for", "10m").code == 0
    assert cli("resume", "glassq").code == 0
    made = cli("put", "--source", "new", "--no-check", "--label", "token=Xk3kd8w2mPq9", answer="{}")
    assert made.code == 0, made.err
    assert cli("forget", "label.collection=timeline", "--yes").code == 0
    assert cli("archive", "--all", "--yes").code == 0

    told = cli("activity", "--json")
    assert done_by(told) == [
        ("forget", "done", "label.collection=***", 3, 3),
        ("put", "done", made.out.strip(), 1, 1),
        ("resume", "done", "glassq", 1, 1),
        ("pause", "done", "glassq", 1, 1),
        ("delete", "done", str(third), 1, 1),
        ("kick", "done", f"{first} {second} 999999", 2, 2),
    ]
    kicked = told.json["activities"][-1]
    assert (kicked["failed"], kicked["left"], kicked["via"]) == (1, 0, "cli")
    assert kicked["ended"] >= kicked["at"]
    assert kicked["command"].startswith("glassq --config ") and kicked["command"].endswith(
        f"kick {first} {second} 999999"
    )
    assert "timeline" not in told.out and "Xk3kd8w2mPq9" not in told.out

    who = kicked["actor"]
    assert getpass.getuser() in who
    assert [name for name, *_ in done_by(cli("activity", "--did", "kick", "--who", who.split()[0], "--json"))] == [
        "kick"
    ]
    assert done_by(cli("activity", "--since", "0s", "--json")) == []
    table = cli("activity", "--limit", "2").out
    assert [word in table for word in ("forget", "put", "resume", "3 of 3", "label.collection=***")] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_a_ledger_that_is_not_there_stops_no_command_and_is_told_once(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(), "buried")
    said = cli("kick", str(job))
    assert said.code == 0
    assert said.err == f"glassq: `glassq --config {cli.file} activity` will not know of this: no ledger at " + (
        f"{cli.directory}/ledger.db yet\n"
    )
    assert queue.stats_job(job).state == "ready"
    assert cli("activity", "--json").json == {"activities": []}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, [("done", "")]),
        (Stopped(), [("stopped", "interrupted")]),
        (KeyboardInterrupt(), [("stopped", "interrupted")]),
        (QueueUnavailable("it is gone"), [("failed", "it is gone")]),
        (ZeroDivisionError("in our code"), [("failed", "ZeroDivisionError")]),
    ],
)
def test_whatever_ends_a_command_ends_its_activity(
    offline: Cli, error: BaseException | None, expected: list[tuple[str, str]]
) -> None:
    offline.record(a_delivery(), "done")
    app = App(str(offline.file), {})
    with suppress(*([type(error)] if error else [])), app.acting("kick", chosen=3):
        assert [each.state for each in activity.newest(app.operations)] == ["running"]
        if error is not None:
            raise error
    assert [(each.state, each.note) for each in activity.newest(app.operations)] == expected
    with app.acting("kick", chosen=0):
        assert len(activity.newest(app.operations)) == 1


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--limit", "0")])
def test_a_request_that_cannot_be_right_is_refused(offline: Cli, words: tuple[str, ...]) -> None:
    assert offline("activity", *words).code == 2


# Every command decides: what changes an installation is recorded, as what stands behind it; what only looks is not.
CHANGES = {
    "archive": "archive",
    "bodies sweep": "bodies sweep",
    "bury": "bury",
    "config reload": "reload",
    "delete": "delete",
    "forget": "forget",
    "journal drain": "journal move-on",
    "journal move-on": "journal move-on",
    "kick": "kick",
    "move": "move",
    "pause": "pause",
    "ping": "ping",
    "put": "put",
    "queue init": "queue init",
    "queue upgrade": "queue upgrade",
    "queues pause": "pause",
    "queues purge": "purge",
    "queues resume": "resume",
    "replay": "replay",
    "restore": "restore",
    "resume": "resume",
    "schedules pause": "schedules pause",
    "schedules resume": "schedules resume",
    "schedules run": "schedules run",
    "subscribe": "subscribe",
    "users add": "users add",
    "users new-key": "users new-key",
    "users remove": "users remove",
}
LOOKS = {
    "activity",
    "bodies",
    "buried",
    "completion",
    "config check",
    # what is done in it, it records itself
    "console",
    "doctor",
    # installations of their own, for trying out
    "demo",
    "dev",
    "journal",
    "journal check",
    "queue check",
    "queues",
    "routes",
    "routes test",
    "schedules",
    "show",
    "sources",
    "sources kinds",
    "sources test",
    "status",
    "tail",
    "top",
    "users list",
}
RECORDS = frozenset({"acting", "has_done"})


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command
        if isinstance(command, click.Group):
            for each, below in command.commands.items():
                yield from walk(f"{name} {each}", below)

    for name, (place, _) in COMMANDS.items():
        module, _, function = place.partition(":")
        yield from walk(name, getattr(importlib.import_module(module), function))


def recorded_by(command: click.Command) -> set[str]:
    """The words under which a command is recorded; an f-string's are those before its first value."""
    assert command.callback is not None
    module = ast.parse(inspect.getsource(inspect.getmodule(command.callback)))
    functions = {each.name: each for each in module.body if isinstance(each, ast.FunctionDef)}
    seen: set[str] = set()
    found: set[str] = set()
    waiting = [inspect.unwrap(command.callback).__name__]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                waiting.append(node.func.id)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RECORDS:
                (did, *_) = node.args
                found.add(str(ast.literal_eval(did if isinstance(did, ast.Constant) else did.values[0])))  # type: ignore[attr-defined]
    return found


def test_every_command_says_whether_it_changes_something_and_records_it_then() -> None:
    there = dict(commands())
    assert set(there) == CHANGES.keys() | LOOKS
    assert not CHANGES.keys() & LOOKS
    for name, command in there.items():
        did = recorded_by(command)
        if name in LOOKS:
            assert not did, f"{name} records {did}"
        else:
            assert any(CHANGES[name].startswith(each) for each in did), f"{name} records {did or 'nothing'}"
