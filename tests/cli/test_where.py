"""Which buried deliveries are meant: all tubes of ours, and filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from glassq.delivery import encode
from tests.cli.conftest import a_delivery, put, put_bytes

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

MAIL = "glassq.push.mail"


def bury(queue: Queue, delivery: Delivery, tube: str) -> int:
    job = queue.put(encode(delivery), tube=tube)
    queue.reserve_job(job)
    queue.bury(job)
    return job


def listed(cli: Cli, *arguments: str) -> list[int]:
    return [int(row["job"]) for row in cli("buried", "--json", *arguments).json["jobs"]]


def states(queue: Queue, *jobs: int) -> list[str]:
    return [queue.stats_job(job).state for job in jobs]


def test_buried_tasks_of_push_queues_are_listed_with_their_tube(queue: Queue, cli: Cli) -> None:
    main = put(queue, a_delivery(), "buried")
    task = bury(queue, a_delivery(buried="404 from the target"), MAIL)
    foreign = bury(queue, a_delivery(), "glassq.pushed")
    found = cli("buried", "--json").json
    assert found["total"] == 2
    assert [(int(row["job"]), row["tube"]) for row in found["jobs"]] == [(task, MAIL), (main, "glassq")]
    assert MAIL in cli("buried").out
    assert str(foreign) not in cli("buried").out.split()
    assert "tube" not in cli("buried", "--tube", MAIL).out


def test_a_tube_narrows_and_a_foreign_one_is_refused(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(), "buried")
    task = bury(queue, a_delivery(), MAIL)
    assert listed(cli, "--tube", MAIL) == [task]
    assert listed(cli, "--tube", "glassq.push.unused") == []
    said = cli("buried", "--tube", "elsewhere")
    assert said.code == 2
    assert "is not ours: expected glassq, glassq.queue.NAME, glassq.route.NAME or glassq.push.QUEUE" in said.err


def test_the_ledger_need_not_be_right_or_complete(queue: Queue, cli: Cli) -> None:
    known, unknown = a_delivery(), a_delivery()
    jobs = [put(queue, known, "buried"), put_bytes(queue, b"damaged", "buried"), put(queue, unknown, "buried")]
    ready = put(queue, a_delivery())
    cli.record(known, "buried", job=jobs[0])
    cli.record(a_delivery(), "buried", job=ready)
    cli.record(a_delivery(), "buried", job=4_711)
    cli.record(a_delivery(), "buried", job=jobs[0])
    assert sorted(listed(cli)) == jobs


def test_filters_combine(queue: Queue, cli: Cli) -> None:
    days_ago = datetime.now(UTC) - timedelta(days=3)
    old = put(queue, a_delivery(buried="503 from the API", received=days_ago), "buried")
    new = put(queue, a_delivery(buried="503 from the API"), "buried")
    other = put(queue, a_delivery(buried="consent taken back", received=days_ago, source="push"), "buried")
    assert listed(cli, "--where", "error~50[0-9] from") == [new, old]
    assert listed(cli, "--older-than", "2d") == [other, old]
    assert listed(cli, "--source", "push") == [other]
    assert listed(cli, "--older-than", "2d", "--where", "error~503", "--where", "error~API") == [old]
    assert listed(cli, "--source", "push", "--where", "error~503") == []
    assert "none of 3 fits" in cli("buried", "--where", "error~nowhere").out


@pytest.mark.parametrize(
    "arguments", [["--where", "503"], ["--where", "error~("], ["--where", "colour~red"], ["--older-than", "2"]]
)
def test_a_filter_that_says_nothing_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    assert cli("buried", *arguments).code == 2


def test_what_fits_is_kicked_and_deleted_and_nothing_else(queue: Queue, cli: Cli) -> None:
    first, second, task = (
        put(queue, a_delivery(buried="503"), "buried"),
        put(queue, a_delivery(buried="404"), "buried"),
        bury(queue, a_delivery(buried="503"), MAIL),
    )
    assert "would be kicked" in cli("kick", "--where", "error~503", "--dry-run").out
    assert states(queue, first, second, task) == ["buried"] * 3
    assert cli("kick", "--where", "error~503", "--tube", MAIL, "--yes").code == 0
    assert states(queue, first, second, task) == ["buried", "buried", "ready"]
    assert cli("delete", "--where", "error~404").code == 2
    assert cli("delete", "--where", "error~404", "--yes").code == 0
    assert queue.stats_tube().buried == 1
    assert cli("kick", "--where", "error~404", "--yes").out == "no buried delivery fits\n"


def test_all_kicks_in_all_tubes_of_ours_and_in_no_other(queue: Queue, cli: Cli) -> None:
    main, task = put(queue, a_delivery(), "buried"), bury(queue, a_delivery(), MAIL)
    foreign = bury(queue, a_delivery(), "elsewhere")
    assert cli("kick", "--all", "--yes").code == 0
    assert states(queue, main, task, foreign) == ["ready", "ready", "buried"]


def test_a_limit_kicks_the_newest(queue: Queue, cli: Cli) -> None:
    jobs = [put(queue, a_delivery(), "buried") for _ in range(3)]
    assert cli("kick", "--all", "--limit", "2", "--yes").code == 0
    assert states(queue, *jobs) == ["buried", "ready", "ready"]


def test_a_task_of_a_push_queue_is_kicked_by_its_ids(queue: Queue, cli: Cli) -> None:
    wanted = a_delivery()
    job = bury(queue, wanted, MAIL)
    assert cli("kick", wanted.id[:13]).code == 0
    assert states(queue, job) == ["ready"]


def test_status_and_doctor_count_all_tubes_of_ours(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(), "buried")
    bury(queue, a_delivery(), MAIL)
    bury(queue, a_delivery(), "elsewhere")
    assert any(hint.startswith("2 deliveries are buried") for hint in cli("status", "--json").json["hints"])
    checks = cli("doctor", "--json").json["checks"]
    assert [each["said"] for each in checks if each["name"] == "buried"] == ["2 wait for a decision"]
