"""Who did what is recorded whatever the ledger says, and ends no operation."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueUnavailable, Stopped
from glassq.ledger import Entry, open_ledger
from glassq.ledger.activity import Activity
from glassq.operations import Operations, activity
from glassq.operations.activity import CameTo
from glassq.operations.result import Did, Report, Result, not_done, remark
from glassq.settings import LedgerSettings, load
from tests.operations.conftest import Heard

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.errors import GlassqError

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerSettings:
    made = LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db")
    opened = open_ledger(made)
    opened.record(Entry("d-1", "mirror", NOW, "done", 1, NOW, 0.5))
    opened.close()
    return made


def operations_on(tmp_path: Path, **more: str) -> Operations:
    file = tmp_path / "glassq.toml"
    file.write_text(f'[queue]\nurl = "beanstalk://127.0.0.1:1"\n[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n')
    return Operations(load(str(file), {}), actor="anna", clock=lambda: NOW, **more)  # type: ignore[arg-type]


@pytest.mark.usefixtures("ledger")
def test_what_is_begun_is_seen_at_once_and_ends_with_what_came_of_it(tmp_path: Path) -> None:
    operations, heard = operations_on(tmp_path, via="console"), Heard()
    log = operations.activities(heard)
    begun = log.begin("kick", command="glassq kick --all --label token=Xk3kd8w2mPq9", filter_="all", chosen=9, run="7")
    expected = {"actor": "anna", "via": "console", "did": "kick", "filter": "all", "chosen": 9, "run": "7"}
    expected["command"] = "glassq kick --all --label token=***"
    assert activity.newest(operations) == [Activity(id=begun, at=NOW, state="running", **expected)]  # type: ignore[arg-type]
    log.update(begun, CameTo(done=4))
    assert [(each.state, each.done, each.ended) for each in activity.newest(operations)] == [("running", 4, None)]
    log.end(begun, CameTo("stopped", failed=1, left=4))
    ended = Activity(id=begun, at=NOW, ended=NOW, state="stopped", done=4, failed=1, left=4, **expected)  # type: ignore[arg-type]
    assert activity.found(operations, begun) == ended
    assert (activity.found(operations, "another"), heard.warnings) == (None, [])
    assert activity.words(ended) == "stopped: 4 of 9, 1 not done"
    assert activity.document([ended])["activities"][0]["left"] == 4


@pytest.mark.parametrize("trouble", ["absent", "no ledger"])
def test_a_ledger_that_cannot_know_is_told_once_and_ends_nothing(
    tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "glassq.activity")
    if trouble == "no ledger":
        (tmp_path / "ledger.db").write_text("something else" * 500)
    before = sorted(path.name for path in tmp_path.iterdir())
    heard = Heard()
    log = operations_on(tmp_path).activities(heard)
    log.end(log.begin("kick", chosen=1))
    log.record("pause")
    log.note("cause", "words")
    assert len(heard.warnings) == 1
    assert heard.warnings[0].startswith("`glassq activity` will not know of this: ")
    # the log knows
    assert [record.message.split()[1] for record in caplog.records if "did=" in record.message]
    assert "did=kick" in caplog.text and "did=pause" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "glassq.toml"})


@pytest.mark.usefixtures("ledger")
def test_the_newest_note_of_a_cause_counts_and_an_empty_one_takes_it_back(tmp_path: Path) -> None:
    operations = operations_on(tmp_path)
    log = operations.activities(Heard())
    clock = iter(NOW + timedelta(seconds=second) for second in range(100))
    operations.clock = lambda: next(clock)
    for cause, words in (("c-1", "first"), ("c-1", "rolled back"), ("c-2", "mine"), ("c-3", "x"), ("c-3", "")):
        log.note(cause, words)
    told = activity.notes(operations)
    assert {cause: each.note for cause, each in told.items()} == {"c-1": "rolled back", "c-2": "mine"}
    assert activity.notes(operations, ["c-2", "c-9"]).keys() == {"c-2"}
    assert [each.cause for each in activity.newest(operations, did="note", seconds=3600, limit=2)] == ["c-3", "c-3"]


def results(*did: Did) -> list[Result]:
    return [Result(f"{number}", None, None, each) for number, each in enumerate(did)]


@pytest.mark.parametrize(
    ("report", "chosen", "expected"),
    [
        (Report(results(Did.KICKED, Did.KICKED)), 2, CameTo("done", 2, 0, 0, "")),
        (Report(results(Did.KICKED, Did.LEFT_OUT, Did.NOTHING)), 3, CameTo("done", 1, 1, 1, "")),
        (Report(results(Did.KICKED), words=["canary: 1 ok"]), 9, CameTo("done", 1, 0, 8, "canary: 1 ok")),
        (
            Report([*results(Did.KICKED), remark("--canary", "stopped: 1 failed")]),
            9,
            CameTo("stopped", 1, 0, 8, "stopped: 1 failed"),
        ),
        (Report([not_done("x", "no such job")]), 1, CameTo("done", 0, 1, 0, "")),
    ],
)
def test_what_a_report_comes_to(report: Report, chosen: int, expected: CameTo) -> None:
    assert CameTo.of_report(report, chosen) == expected


@pytest.mark.parametrize(
    ("error", "state", "note"),
    [(Stopped(), "stopped", "until then 1"), (QueueUnavailable("gone"), "failed", "gone; until then 1")],
)
def test_what_ended_a_report_early_is_in_its_activity(error: GlassqError, state: str, note: str) -> None:
    report = Report(results(Did.DELETED), words=["until then 1"], error=error)
    assert CameTo.of_report(report, 5) == CameTo(state, 1, 0, 4, note)  # type: ignore[arg-type]
