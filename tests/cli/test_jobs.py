"""`glassq kick` and `glassq delete`, and how an operator names what is meant."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.cli import main as cli_main
from glassq.errors import JobNotFound, QueueUnavailable
from glassq.queues.beanstalk import scan
from tests.cli.conftest import EACH_ENGINE, a_delivery, put, put_bytes
from tests.conftest import wait_for

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

FIRST = "01990000-aaaa-7000-8000-000000000001"
SECOND = "01990000-aaaa-7000-8000-000000000002"


def state(queue: Queue, job: int) -> str:
    with suppress(JobNotFound):
        return queue.stats_job(job).state
    return "gone"


@EACH_ENGINE
def test_a_buried_delivery_is_kicked_by_its_job_id(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(), "buried")
    said = cli("kick", str(job))
    assert (said.code, state(queue, job)) == (0, "ready")
    assert "kicked" in said.out


@EACH_ENGINE
@pytest.mark.parametrize("name", [FIRST, FIRST.upper(), FIRST[:-1], "01990000"], ids=["id", "ID", "prefix", "shortest"])
def test_a_buried_delivery_is_kicked_by_its_delivery_id(queue: Queue, cli: Cli, name: str) -> None:
    put(queue, a_delivery(), "buried")
    job = put(queue, a_delivery(id=FIRST), "buried")
    said = cli("kick", name, "--json")
    assert said.code == 0
    assert said.json["results"] == [{"id": name, "job": str(job), "delivery": FIRST, "did": "kicked", "why": ""}]
    assert state(queue, job) == "ready"


def test_the_ledger_knows_the_job_but_the_job_has_the_last_word(queue: Queue, cli: Cli) -> None:
    wanted, other = a_delivery(id=FIRST), a_delivery(id=SECOND)
    others_job = put(queue, other, "buried")
    job = put(queue, wanted, "buried")
    # what a ledger says after beanstalkd gave a number again
    cli.record(wanted, "buried", job=others_job)
    assert cli("kick", FIRST).code == 0
    assert (state(queue, job), state(queue, others_job)) == ("ready", "buried")


def test_a_prefix_of_several_deliveries_is_refused_with_their_names(queue: Queue, cli: Cli) -> None:
    jobs = [put(queue, a_delivery(id=name), "buried") for name in (FIRST, SECOND)]
    said = cli("kick", "01990000")
    assert said.code == 1
    assert FIRST in said.out
    assert SECOND in said.out
    assert [state(queue, job) for job in jobs] == ["buried", "buried"]


@pytest.mark.parametrize("where", ["ready", "delayed", "reserved"])
def test_what_is_not_buried_is_not_kicked_and_its_state_is_said(queue: Queue, cli: Cli, where: str) -> None:
    job = put(queue, a_delivery(), where)
    said = cli("kick", str(job))
    assert (said.code, state(queue, job)) == (1, where)
    assert f"it is {where}" in said.out


def test_some_that_fail_do_not_keep_the_others_from_being_kicked(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(id=FIRST), "buried")
    said = cli("kick", "4711", SECOND, str(job), "--json")
    assert said.code == 1
    assert {row["id"]: row["did"] for row in said.json["results"]} == {
        str(job): "kicked", "4711": "nothing", SECOND: "nothing",
    }  # fmt: skip
    assert state(queue, job) == "ready"


@EACH_ENGINE
def test_all_kicks_everything_buried_and_nothing_else(queue: Queue, cli: Cli) -> None:
    buried = [put(queue, a_delivery(), "buried") for _ in range(5)]
    buried.append(put_bytes(queue, b"damaged", "buried"))
    delayed = put(queue, a_delivery(), "delayed")
    said = cli("kick", "--all", "--yes", "--json")
    assert said.code == 0
    assert [row["did"] for row in said.json["results"]] == ["kicked"] * 6
    assert {state(queue, job) for job in buried} == {"ready"}
    assert state(queue, delayed) == "delayed"


def test_an_operator_can_decide_while_the_queue_takes_no_jobs(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    jobs = [put(queue, a_delivery(id=name, buried="why"), "buried") for name in (FIRST, SECOND)]
    last = put(queue, a_delivery(), "buried")
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    found = cli("buried", "--json")
    assert (found.code, found.err) == (0, "")
    assert [row["job"] for row in found.json["jobs"]] == [str(job) for job in (last, *jobs[::-1])]
    assert cli("show", SECOND, "--json").json["job"]["id"] == str(jobs[1])
    assert (cli("kick", FIRST).code, state(queue, jobs[0])) == (0, "ready")
    assert (cli("kick", "--all", "--yes").code, state(queue, jobs[1]), state(queue, last)) == (0, "ready", "ready")


def test_what_cannot_be_found_while_the_queue_takes_no_jobs_is_said(
    beanstalkd: Beanstalkd,
    queue: Queue,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    near = put(queue, a_delivery(), "buried")
    for _ in range(60):
        queue.delete(queue.put(b""))
    far = put(queue, a_delivery(), "buried")
    beanstalkd.stop()
    beanstalkd.start()
    with pytest.raises(QueueUnavailable):
        queue.stats()
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    monkeypatch.setattr(scan, "MAX_SEARCH", 40)
    assert cli_main.main(["--config", str(cli.file), "buried"]) == 0
    assert "1 of 2 jobs were not found" in capfd.readouterr().err
    assert cli_main.main(["--config", str(cli.file), "kick", "--all", "--yes"]) == 1
    assert "--all: 1 of 2 jobs were not found" in capfd.readouterr().out
    assert (state(queue, near), state(queue, far)) == ("ready", "buried")


def test_all_with_nothing_buried_says_so(cli: Cli) -> None:
    assert cli("kick", "--all").out == "nothing is buried\n"


@pytest.mark.parametrize("arguments", [["kick", "--all"], ["delete", "{job}"]])
def test_nobody_to_ask_is_a_refusal_with_a_hint(queue: Queue, cli: Cli, arguments: list[str]) -> None:
    job = put(queue, a_delivery(), "buried")
    said = cli(*(each.format(job=job) for each in arguments), answer="y\n")
    assert (said.code, state(queue, job)) == (2, "buried")
    assert "--yes" in said.err


@pytest.mark.parametrize("arguments", [["kick", "--all"], ["delete", "{job}"]])
def test_an_operator_is_asked_and_may_say_no(queue: Queue, cli: Cli, arguments: list[str]) -> None:
    job = put(queue, a_delivery(), "buried")
    command = [each.format(job=job) for each in arguments]
    said = cli.at_terminal(*command, answer="n\n")
    assert (said.code, state(queue, job)) == (1, "buried")
    assert "1 delivery" in said.err
    said = cli.at_terminal(*command, answer="y\n")
    assert (said.code, state(queue, job)) == (0, "ready" if "kick" in arguments else "gone")


@pytest.mark.parametrize("arguments", [["kick", "--all"], ["kick", "{job}"], ["delete", "{job}"]])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(queue: Queue, cli: Cli, arguments: list[str]) -> None:
    job = put(queue, a_delivery(), "buried")
    said = cli(*(each.format(job=job) for each in arguments), "--dry-run")
    assert (said.code, state(queue, job)) == (0, "buried")
    assert "would be" in said.out


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--group", ("3f2a9c81d0e4", "a" * 12)),
        ("--tube", ("glassq", "glassq.push.mail")),
        ("--source", ("mirror", "cron")),
        ("--older-than", ("1h", "1m")),
        ("--newer-than", ("1h", "1m")),
        ("--limit", ("1", "2")),
    ],
)
def test_an_option_that_chooses_is_not_given_twice(
    queue: Queue, cli: Cli, option: str, values: tuple[str, str]
) -> None:
    job = put(queue, a_delivery(), "buried")
    for command in ("kick", "delete"):
        said = cli(command, option, values[0], option, values[1], "--yes")
        assert (said.code, state(queue, job)) == (2, "buried")
        assert f"glassq: {option} is given 2 times: expected it once" in said.err


@pytest.mark.parametrize("command", ["kick", "show"])
def test_the_id_of_a_cause_is_no_delivery_and_the_answer_says_where_to_look(cli: Cli, command: str) -> None:
    said = cli(command, "3f2a9c81d0e4")
    assert said.code == 1
    assert "(if it is the id of a cause: `glassq " in said.out + said.err
    assert "buried --group 3f2a9c81d0e4`)" in said.out + said.err


@pytest.mark.parametrize("arguments", [["kick"], ["kick", "--all", "7"], ["delete"], ["kick", "short"]])
def test_a_command_that_says_too_little_or_too_much_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).code == 2


@EACH_ENGINE
@pytest.mark.parametrize("where", ["ready", "delayed", "buried"])
def test_a_delivery_is_deleted_whatever_it_waits_for(queue: Queue, cli: Cli, where: str) -> None:
    job = put(queue, a_delivery(id=FIRST), where)
    said = cli("delete", FIRST, "--yes", "--json")
    assert (said.code, state(queue, job)) == (0, "gone")
    assert said.json["results"][0]["did"] == "deleted"


@EACH_ENGINE
def test_a_delivery_that_is_being_worked_is_not_deleted(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(), "reserved")
    said = cli("delete", str(job), "--yes")
    assert (said.code, state(queue, job)) == (1, "reserved")
    assert "a consumer works it right now" in said.out


def test_a_damaged_job_can_be_deleted(queue: Queue, cli: Cli) -> None:
    job = put_bytes(queue, b"damaged", "buried")
    assert cli("delete", str(job), "--yes").code == 0
    assert state(queue, job) == "gone"


def test_a_job_of_another_tube_is_left_alone(queue: Queue, cli: Cli) -> None:
    job = queue.put(b"not ours", tube="elsewhere")
    said = cli("delete", str(job), "--yes")
    assert (said.code, state(queue, job)) == (1, "ready")
    assert "it is in tube elsewhere" in said.out
