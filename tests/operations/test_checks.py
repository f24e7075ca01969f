"""What is wrong with an installation, as values, with the progress of looking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.errors import SettingsError, Stopped
from glassq.in_effect import CONSOLE, InEffect, Record
from glassq.operations.checks import examine as examining
from glassq.operations.checks import in_effect, system
from glassq.operations.checks import queue as queue_checks
from glassq.operations.checks.examine import examine, without_settings
from glassq.operations.progress import Silent
from glassq.operations.status import snapshot
from glassq.settings import POOL, SECTIONS, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.operations import Operations
    from glassq.operations.checks.base import Check
    from glassq.queues.base import Inspector
    from tests.conftest import Beanstalkd


class Looks(Silent):
    """Keeps what was looked at."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.numbers: list[tuple[int, int]] = []

    def advance(self, done: int, total: int, words: str) -> None:
        self.numbers.append((done, total))
        self.words.append(words)


@pytest.fixture
def only_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is left alone: its checks have tests of their own, and start processes."""
    for name in ("MACHINE", "DATABASES", "PROGRAMS", "SYSTEM"):
        monkeypatch.setattr(examining, name, [])


RELOADS = [
    ("/etc/glassq.toml: other addresses (a:1, b:2) need a restart of glassq-web", "systemctl restart glassq-web"),
    ("[queu]: unknown key", "systemctl reload glassq-web"),
]


@pytest.mark.parametrize(("error", "todo"), RELOADS, ids=["a restart", "a reload"])
def test_a_reload_that_only_a_restart_can_do_is_not_advised_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, todo: str
) -> None:
    file = tmp_path / "queue.yaml"
    file.touch()
    record = Record(
        program="glassq-web", pid=1, file=str(file), uses=(), since=0.0, parts={str(file): "before"}, error=error
    )
    monkeypatch.setattr(in_effect, "records", lambda file: [(record, True)])
    (found,) = in_effect.not_in_effect(file)
    assert found.todo == f"`glassq config check`, then {todo}"


@pytest.mark.parametrize(
    ("program", "uses", "counts"),
    [(CONSOLE, SECTIONS, ["glassq.toml"]), ("glassq-worker", POOL, ["glassq.toml", "handlers.py", "queue.yaml"])],
)
def test_handlers_that_change_concern_the_pool_and_not_the_console(
    tmp_path: Path, program: str, uses: frozenset[str], counts: list[str]
) -> None:
    route = '[[routes]]\nsource = "push"\nhandler = "handlers:handle"\n'
    for name, text in (("glassq.toml", f'{route}[push]\nqueue_yaml = "queue.yaml"\n'), ("handlers.py", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "queue.yaml").write_text("queue: []\n")
    read = InEffect(program, uses).read(load(str(tmp_path / "glassq.toml"), {}))
    assert sorted(Path(path).name for path in read.parts) == counts


@pytest.mark.usefixtures("only_queue")
def test_checks_come_one_by_one_and_name_commands_that_a_face_can_adapt(
    operations: Operations, inspector: Inspector
) -> None:
    inspector.insert(b"?", tube="glassq", state="buried")
    looks = Looks()
    checks = list(examine(operations, looks))
    names = [check.name for check in checks]
    assert names[:4] == ["queue", "durability", "job size", "reserved"]
    assert ", up " in checks[0].said
    [buried] = [check for check in checks if check.name == "buried"]
    assert (buried.ok, buried.todo) == (None, "look with `glassq buried`")
    assert looks.words[0] == "looking at: engine"
    assert {total for _, total in looks.numbers} == {len(queue_checks.QUEUE)}


@pytest.mark.usefixtures("only_queue")
def test_a_queue_that_ends_meanwhile_is_the_last_check(
    operations: Operations, inspector: Inspector, beanstalkd: Beanstalkd
) -> None:
    checks: Iterator[Check] = examine(operations, Silent())
    assert next(checks).ok is True
    beanstalkd.stop()
    *_, last = checks
    assert (last.name, last.ok, last.code) == ("queue", False, 69)
    assert "systemctl start glassq-beanstalkd" in last.todo


@pytest.mark.usefixtures("only_queue")
def test_an_operator_can_stop_it(operations: Operations) -> None:
    class Stops(Silent):
        def advance(self, done: int, total: int, words: str) -> None:
            raise Stopped

    with pytest.raises(Stopped):
        list(examine(operations, Stops()))


def test_what_this_user_may_not_look_at_is_one_line_and_hides_no_other(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd_place(_: Operations) -> Iterator[Check]:
        yield from ()
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(examining, "MACHINE", [odd_place])
    for name in ("DATABASES", "PROGRAMS", "SYSTEM", "QUEUE"):
        monkeypatch.setattr(examining, name, [])
    [check] = examine(operations, Silent())
    assert (check.name, check.ok) == ("odd place", False)
    assert check.said == "cannot be looked at: [Errno 13] Permission denied"


def test_without_settings_little_can_be_said(tmp_path: Path) -> None:
    settings, clock = without_settings(tmp_path / "glassq.toml", SettingsError("glassq.toml: wrong"))
    assert (settings.ok, settings.code, settings.said) == (False, 78, "glassq.toml: wrong")
    assert clock.name == "clock"
    assert [check.name for check in without_settings(None, SettingsError("none"))] == ["settings", "clock"]


def test_a_queue_without_disk_has_intake_keep_pings_in_its_journal(
    operations: Operations, inspector: Inspector, beanstalkd: Beanstalkd
) -> None:
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    [found] = [check for check in queue_checks.engine(operations, inspector, Silent()) if check.name == "durability"]
    assert (found.ok, found.said.endswith(", so intake keeps pings in its journal")) == (False, True)


def test_a_disk_that_fills_up_is_a_hint_of_the_status(
    operations: Operations, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "MIN_FREE", 1 << 60)
    hints = [str(hint) for hint in snapshot(operations, inspector, Silent()).hints]
    assert any(" MiB free, for " in hint and hint.endswith(": make room there") for hint in hints)
