"""Push queues and their purge, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq import settings
from glassq.delivery import encode
from glassq.errors import Conflict, InvalidRequest, QueueUnavailable, Stopped
from glassq.operations import Operations, purge, push_queues
from glassq.operations.progress import Silent
from tests.cli.conftest import a_delivery

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.operations.purge import PurgePlan
    from glassq.queues.base import Inspector
    from tests.conftest import Beanstalkd


@pytest.fixture
def operations(operations: Operations, tmp_path: Path) -> Operations:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n- name: photos\n  rate: 0\n")
    file = tmp_path / "glassq.toml"
    push = f'[push]\nqueue_yaml = "{tmp_path}/queue.yaml"\nnames = "sqlite:///{tmp_path}/names.db"\n'
    file.write_text(f'{file.read_text()}{push}[push.targets]\ndefault = "http://127.0.0.1:9"\n')
    return Operations(settings.load(str(file), {}), actor="ada")


class Warnings(Silent):
    """Keeps what an operator is warned of."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def warn(self, words: str) -> None:
        self.words.append(words)


class StopsAfter(Silent):
    """Stops an operation after so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def advance(self, done: int, total: int, words: str) -> None:
        if not self._left:
            raise Stopped
        self._left -= 1


def fill(inspector: Inspector, count: int = 3) -> None:
    for _ in range(count):
        inspector.insert(encode(a_delivery()), tube="glassq.push.mail", state="ready")


def planned(operations: Operations, inspector: Inspector) -> PurgePlan:
    return purge.plan(operations, inspector, push_queues.planned(operations), "mail")


def test_a_queue_has_what_its_file_says_and_what_its_tube_holds(operations: Operations, inspector: Inspector) -> None:
    fill(inspector)
    inspector.insert(b"?", tube="glassq.push.gone", state="delayed", delay=600)
    found = push_queues.snapshot(operations, inspector, push_queues.planned(operations))
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["default", "mail", "photos", "gone"]
    mail, gone = rows["mail"], rows["gone"]
    assert (mail.tube.ready, mail.in_queue_yaml, mail.at_once, mail.at_once_is_default) == (
        3,
        True,
        found.default_at_once,
        True,
    )
    assert (gone.in_queue_yaml, gone.planned, gone.at_once, gone.scheduled) == (False, None, None, None)
    assert "no ledger" in found.note
    [hint] = push_queues.hints(operations, inspector, push_queues.planned(operations))
    assert (hint.command, hint.words.startswith("queue gone is not in ")) == ("queues purge gone", True)
    assert [str(hint) for hint in found.hints][1:] == [
        "tasks are ready and nobody takes them: is glassq-worker running?"
    ]


def test_a_file_with_a_mistake_warns_and_shows_the_tubes_that_exist(
    operations: Operations, inspector: Inspector, tmp_path: Path
) -> None:
    fill(inspector)
    (tmp_path / "queue.yaml").write_text("queue: [")
    told = Warnings()
    plan = push_queues.planned_or_warn(operations, told)
    assert "without what the file says of them" in told.words[-1]
    [row] = push_queues.snapshot(operations, inspector, plan).rows
    assert (row.name, row.in_queue_yaml, row.tube.ready) == ("mail", None, 3)


def test_without_push_queues_it_is_said_how_to_have_some(operations: Operations, tmp_path: Path) -> None:
    file = tmp_path / "glassq.toml"
    file.write_text(file.read_text().partition("[push]")[0])
    with pytest.raises(Conflict, match="there are no push queues without a section"):
        push_queues.planned(Operations(settings.load(str(file), {}), actor="ada"))


def test_of_two_names_none_is_chosen_where_one_is_wrong(operations: Operations, inspector: Inspector) -> None:
    with pytest.raises(InvalidRequest, match=r"there is no queue mial; did you mean mail\?"):
        push_queues.chosen(operations, inspector, push_queues.planned(operations), ["mail", "mial"])


def test_a_purge_deletes_what_its_plan_says(operations: Operations, inspector: Inspector) -> None:
    fill(inspector)
    plan = planned(operations, inspector)
    assert plan.preview().document() == {
        "queue": "mail", "dry_run": True, "waiting": {"ready": 3, "delayed": 0, "buried": 0},
        "deleted": 0, "damaged": 0, "taken": 0, "untold": 0, "running": 0,
    }  # fmt: skip
    fill(inspector, 2)
    report = purge.carry_out(operations, inspector, plan, Silent())
    assert (report.purged.deleted, report.error) == (3, None)
    assert inspector.counts(["glassq.push.mail"])[0].ready == 2


def test_a_purge_that_is_stopped_says_how_many_are_gone(operations: Operations, inspector: Inspector) -> None:
    fill(inspector)
    report = purge.carry_out(operations, inspector, planned(operations, inspector), StopsAfter(2))
    assert (report.purged.deleted, isinstance(report.error, Stopped)) == (2, True)
    assert inspector.counts(["glassq.push.mail"])[0].ready == 1


def test_a_purge_whose_queue_goes_away_says_how_many_are_gone(
    operations: Operations, inspector: Inspector, beanstalkd: Beanstalkd
) -> None:
    fill(inspector)

    class Ends(Silent):
        def advance(self, done: int, total: int, words: str) -> None:
            if done == 2:
                beanstalkd.stop()

    report = purge.carry_out(operations, inspector, planned(operations, inspector), Ends())
    assert (report.purged.deleted, isinstance(report.error, QueueUnavailable)) == (2, True)
