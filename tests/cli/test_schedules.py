"""`glassq schedules`: what is due, what became of the last delivery, run now, pause, resume."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq.delivery import Delivery, decode
from glassq.schedules.table import ScheduleTable, read_states

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

SETTINGS = """
[[routes]]
source = "schedule"
handler = "handlers:handle"
[[schedule]]
name = "nightly"
cron = "30 2 * * *"
zone = "Europe/Berlin"
labels = { kind = "report" }
[[schedule]]
name = "often"
cron = "*/5 * * * *"
[push]
cron_yaml = "FILE"
targets.default = "http://127.0.0.1:9"
"""


@pytest.fixture
def scheduled(cli: Cli, tmp_path: Path) -> Cli:
    file = tmp_path / "cron.yaml"
    file.write_text("cron:\n- url: /tasks/summary\n  schedule: every monday 09:00\n")
    cli.configure(SETTINGS.replace("FILE", str(file)))
    return cli


def test_the_list_says_when_each_is_due_and_how_the_last_went(scheduled: Cli) -> None:
    rows = scheduled("schedules", "--json").json["schedules"]
    assert [row["schedule"] for row in rows] == ["nightly", "often", "/tasks/summary"]
    assert [row["when"] for row in rows] == ["30 2 * * *", "*/5 * * * *", "every monday 09:00"]
    assert all(row["next"] and row["last"] is None and row["outcome"] is None for row in rows)
    now = datetime.now(UTC)
    table = ScheduleTable(scheduled.ledger.url)
    state = table.enter(["nightly", "often"], now)["often"]
    claim = msgspec.structs.replace(
        state, last=now - timedelta(hours=4), state="claimed", delivery="0199-x", host="a", claimed=now
    )
    assert table.claim(state, claim)
    assert table.confirm(claim)
    table.close()
    said = scheduled("schedules")
    assert said.code == 0
    assert re.search(r"often +\*/5 \* \* \* \* +UTC +in .*? +4h.* ago +waiting +0199-x", said.out), said.out
    assert "! often is late: a running glassq-worker puts what is due" in said.out
    assert re.search(r"nightly +30 2 \* \* \* +Europe/Berlin +in .* never by the clock +- +-", said.out), said.out


def _reserved(queue: Queue) -> Delivery:
    job = queue.reserve(timeout=0)
    assert job is not None
    return decode(job.body)


def test_run_puts_a_delivery_now(scheduled: Cli, queue: Queue) -> None:
    said = scheduled("schedules", "run", "nightly", "--json").json
    delivery = _reserved(queue)
    assert delivery.id == said["delivery"]
    assert (delivery.source, delivery.labels["schedule"], delivery.labels["kind"]) == ("schedule", "nightly", "report")
    assert scheduled("schedules", "run", "/tasks/summary").code == 0
    task = _reserved(queue)
    assert (task.source, task.labels["url"], task.labels["queue"]) == ("push", "/tasks/summary", "__cron")


def test_pause_and_resume_hold_for_all_hosts(scheduled: Cli) -> None:
    assert scheduled("schedules", "pause", "often").out == (
        "schedule often is paused: nothing is put until `glassq schedules resume often`\n"
    )
    assert read_states(scheduled.ledger.url)["often"].paused is not None
    assert re.search(r"often .* paused ", scheduled("schedules").out)
    assert scheduled("schedules", "resume", "often", "--json").json == {
        "schedules": [{"schedule": "often", "resumed": True}]
    }
    assert read_states(scheduled.ledger.url)["often"].paused is None


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["run", "nihgtly"], 1, "no schedule nihgtly; did you mean nightly?"),
        (["pause", "x"], 1, "no schedule x; there are: /tasks/summary, nightly, often"),
        (["puase", "often"], 2, "schedules pause`?"),
    ],
)
def test_a_mistake_is_named(scheduled: Cli, arguments: list[str], code: int, why: str) -> None:
    said = scheduled("schedules", *arguments)
    assert (said.code, why in said.err) == (code, True), said.err


def test_without_schedules_it_says_how_to_make_one(cli: Cli) -> None:
    cli.configure()
    assert "[[schedule]]" in cli("schedules").out
    assert "there are no schedules" in cli("schedules", "run", "x").err
