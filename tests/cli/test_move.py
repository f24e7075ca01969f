"""`glassq move`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq.delivery import decode, encode
from glassq.errors import JobNotFound
from glassq.queues.beanstalk.protocol import JobStats
from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, evidence, put, put_bytes
from tests.conftest import wait_for

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

ASIDE = "glassq.push.aside"
STATES = frozenset({"ready", "reserved", "delayed", "buried"})


def held(queue: Queue, tube: str) -> list[JobStats]:
    """The tube's jobs, oldest first."""
    return sorted((each for each in queue.scan(STATES, tube) if isinstance(each, JobStats)), key=lambda each: each.id)


def names(queue: Queue, tube: str) -> list[str]:
    return [decode(queue.peek(each.id).body).id for each in held(queue, tube)]


@EACH_ENGINE
@pytest.mark.parametrize("state", ["ready", "delayed", "buried"])
def test_a_delivery_goes_into_the_other_tube_in_the_state_it_has(queue: Queue, cli: Cli, state: str) -> None:
    # as a pool buries: the delivery says itself that it lies buried
    told = a_delivery(evidence=(evidence(),), buried="no such photo" if state == "buried" else "")
    old = put(queue, told, state)
    said = cli("move", told.id, "--to", ASIDE, "--json")
    assert said.code == 0
    [done] = said.json["results"]
    assert (done["did"], done["id"], done["delivery"]) == ("moved", told.id, told.id)
    [moved] = held(queue, ASIDE)
    assert (str(moved.id), moved.state) == (done["job"], state)
    assert decode(queue.peek(moved.id).body) == msgspec.structs.replace(told, tube=ASIDE)
    with pytest.raises(JobNotFound):
        queue.stats_job(old)


def test_the_time_that_is_left_of_a_delay_stays_and_never_gets_shorter(queue: Queue, cli: Cli) -> None:
    job = queue.put(encode(a_delivery()), delay=5000)
    left = queue.stats_job(job).time_left
    assert cli("move", str(job), "--to", ASIDE).code == 0
    [moved] = held(queue, ASIDE)
    assert left - 60 < moved.time_left <= 5000
    assert moved.delay > left - 60


def test_whoever_reads_the_line_knows_where_it_came_from(queue: Queue, cli: Cli) -> None:
    told = a_delivery()
    job = put(queue, told, "buried")
    said = cli("move", told.id, "--to", ASIDE)
    assert (
        said.out
        == f"job {held(queue, ASIDE)[0].id}, delivery {told.id}: moved: it was job {job} of tube glassq, buried\n"
    )


@pytest.mark.parametrize("state", ["ready", "delayed", "buried"])
def test_the_bytes_of_a_damaged_job_stay_as_they_are(queue: Queue, cli: Cli, state: str) -> None:
    job = put_bytes(queue, b"\x00damaged\xff", state)
    assert cli("move", str(job), "--to", ASIDE).code == 0
    [moved] = held(queue, ASIDE)
    assert (moved.state, queue.peek(moved.id).body) == (state, b"\x00damaged\xff")


def test_attempts_that_were_lost_are_not_forgotten_with_the_job(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(lost=1))
    for _ in range(2):
        consumer = beanstalkd.queue()
        consumer.reserve_job(job)
        consumer.close()
    wait_for(lambda: queue.stats_job(job).state == "ready", "the job to be free")
    assert cli("move", str(job), "--to", ASIDE).code == 0
    moved = queue.reserve(0, [ASIDE])
    assert moved is not None
    # both consumers died before anybody wrote down the first: that is one
    assert (decode(moved.body).lost, queue.stats_job(moved.id).lost) == (2, 0)


def test_a_kicked_delivery_keeps_its_fresh_budget_though_the_new_job_was_never_kicked(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(buried="no", attempt=8, failures=8, lost=2), "buried")
    queue.kick(job)
    assert cli("move", str(job), "--to", ASIDE).code == 0
    moved = queue.reserve(0, [ASIDE])
    assert moved is not None
    told = decode(moved.body)
    assert (told.buried, told.attempt, told.failures, told.lost) == ("", 9, 0, 0)


def test_a_delivery_whose_burying_was_cut_off_lies_buried_then(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(buried="gave up"), "delayed")
    assert cli("move", str(job), "--to", ASIDE).code == 0
    assert [each.state for each in held(queue, ASIDE)] == ["buried"]


def test_what_is_worked_or_not_ours_or_there_already_stays_and_the_rest_goes(queue: Queue, cli: Cli) -> None:
    reserved, ours = put(queue, a_delivery(), "reserved"), put(queue, a_delivery())
    foreign = queue.put(b"another program's", tube="elsewhere")
    there = queue.put(encode(a_delivery()), tube=ASIDE)
    said = cli("move", *map(str, (reserved, foreign, there, 4711, ours)), "--to", ASIDE, "--json")
    assert said.code == 1
    did = {row["id"]: (row["did"], row["why"]) for row in said.json["results"]}
    assert {each for each, (what, _) in did.items() if what == "moved"} == {str(ours)}
    assert "a consumer works it right now" in did[str(reserved)][1]
    assert "tube elsewhere, which is not ours" in did[str(foreign)][1]
    assert "in that tube already" in did[str(there)][1]
    assert "there is no job 4711" in did["4711"][1]
    assert queue.stats_job(foreign).tube == "elsewhere"


# -- many --------------------------------------------------------------------------------------------------------------


@EACH_ENGINE
def test_all_that_lies_buried_is_moved_and_nothing_else(queue: Queue, cli: Cli) -> None:
    buried = [a_delivery() for _ in range(3)]
    jobs = [put(queue, each, "buried") for each in buried]
    put(queue, a_delivery())
    task = queue.put(encode(a_delivery()), tube="glassq.push.mail")
    queue.reserve_job(task)
    queue.bury(task)
    assert cli("move", "--all", "--to", ASIDE, "--yes").code == 0
    assert names(queue, ASIDE)[:3] == [each.id for each in buried]
    assert {each.state for each in held(queue, ASIDE)} == {"buried"}
    assert (len(held(queue, ASIDE)), len(held(queue, "glassq.push.mail"))) == (4, 0)
    assert [each.state for each in held(queue, "glassq")] == ["ready"]
    assert all(job < held(queue, ASIDE)[0].id for job in jobs)


def test_a_poisoned_kind_goes_aside_by_its_reason(queue: Queue, cli: Cli) -> None:
    poisoned, other = a_delivery(buried="video: no such codec"), a_delivery(buried="503")
    put(queue, other, "buried")
    put(queue, poisoned, "buried")
    assert cli("move", "--where", "error~codec", "--to", ASIDE, "--yes").code == 0
    assert (names(queue, ASIDE), names(queue, "glassq")) == ([poisoned.id], [other.id])
    assert cli("move", "--where", "error~codec", "--to", ASIDE, "--yes").out == "no buried delivery fits\n"


def test_a_queue_that_takes_no_jobs_ends_a_move_and_does_not_say_that_nothing_waits(
    queue: Queue, cli: Cli, beanstalkd: Beanstalkd
) -> None:
    put(queue, a_delivery(), "ready")
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    said = cli("move", "--from", "glassq", "--to", ASIDE, "--yes")
    assert (said.code, said.out) == (75, "")
    assert "glassq: until then 0 of 1 were moved" in said.err


@EACH_ENGINE
def test_all_that_waits_in_a_tube_of_an_old_name_comes_in_its_order(queue: Queue, cli: Cli) -> None:
    sent = [a_delivery() for _ in range(4)]
    ready = [queue.put(encode(each), tube="old") for each in sent]
    buried = queue.put(encode(a_delivery(buried="no")), tube="old")
    queue.reserve_job(buried)
    queue.bury(buried)
    queue.put(b"damaged", delay=3000, tube="old")
    worked = queue.put(encode(a_delivery()), tube="old")
    queue.reserve_job(worked)
    said = cli("move", "--from", "old", "--to", "glassq", "--yes")
    assert said.code == 0
    assert "1 delivery of tube old at work now" in said.err
    tube = queue.stats_tube()
    assert (tube.ready, tube.delayed, tube.buried) == (4, 1, 1)
    got = [queue.reserve(0) for _ in ready]
    assert [decode(each.body).id for each in got if each] == [each.id for each in sent]
    assert [each.id for each in held(queue, "old")] == [worked]


def test_of_a_tube_the_newest_that_fit_are_moved_where_a_limit_is_given(queue: Queue, cli: Cli) -> None:
    sent = [a_delivery() for _ in range(4)]
    for each in sent:
        queue.put(encode(each), tube="old")
    queue.put(encode(msgspec.structs.replace(a_delivery(), source="cron")), tube="old")
    assert cli("move", "--from", "old", "--source", "mirror", "--limit", "2", "--to", "glassq", "--yes").code == 0
    assert names(queue, "glassq") == [each.id for each in sent[2:]]


def test_a_tube_that_no_pool_of_these_settings_works_is_told(queue: Queue, cli: Cli) -> None:
    for tube, why in (
        ("old", "expected glassq, glassq.queue.NAME, glassq.route.NAME or glassq.push.QUEUE"),
        (ASIDE, "there is no section [push]"),
    ):
        said = cli("move", str(put(queue, a_delivery())), "--to", tube)
        assert said.code == 0
        assert f"no pool with these settings works tube {tube}: {why}" in said.err
    yaml = cli.directory / "queue.yaml"
    yaml.write_text("queue:\n- name: aside\n  rate: 1/s\n")
    cli.configure(f'[push]\nqueue_yaml = "{yaml}"\n')
    assert "no pool" not in cli("move", str(put(queue, a_delivery())), "--to", ASIDE).err
    other = cli("move", str(put(queue, a_delivery())), "--to", "glassq.push.other")
    assert "queue.yaml has no queue other" in other.err


def test_a_dry_run_moves_nothing_and_says_what_would_go(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(), "buried")
    for which in ([str(job)], ["--all"], ["--from", "glassq"]):
        said = cli("move", *which, "--to", ASIDE, "--dry-run", "--json")
        assert (said.code, [row["did"] for row in said.json["results"]]) == (0, ["would be moved"])
    assert queue.stats_job(job).state == "buried"
    assert held(queue, ASIDE) == []


def test_many_are_asked_about_and_nobody_to_ask_is_a_refusal(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(), "buried")
    said = cli("move", "--all", "--to", ASIDE)
    assert (said.code, queue.stats_job(job).tube) == (2, "glassq")
    assert f"move 1 delivery to tube {ASIDE}?" in said.err
    assert cli.at_terminal("move", "--all", "--to", ASIDE, answer="n\n").code == 1
    assert queue.stats_job(job).tube == "glassq"
    assert cli.at_terminal("move", "--all", "--to", ASIDE, answer="y\n").code == 0
    assert len(held(queue, ASIDE)) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--to", "a b", "--all"], "expected a tube name"),
        (["--to", NASTY, "--all"], "expected a tube name"),
        (["--to", "glassq\r\ndelete 1", "--all"], "expected a tube name"),
        (["--to", "x", "--from", "-x"], "expected a tube name"),
        (["--to", "x" * 201, "--all"], "expected a tube name"),
        (["--to", "x", "--from", "x"], "name the same tube"),
        (["--to", "x", "--from", "y", "--all"], "without --all and --tube"),
        (["--to", "x", "--from", "y", "--tube", "glassq"], "without --all and --tube"),
        (["--to", "x"], "expected either ids"),
        (["--to", "x", "1", "--all"], "expected either ids"),
        (["--to", "x", "1", "--from", "y"], "expected either ids"),
        (["--to", "x", "1", "--limit", "2"], "--limit goes with"),
        (["--all"], "--to"),
        (["--to", "x", "--all", "--follow"], "--follow goes with"),
        (["--to-engine", "postgres:/x"], "--to-engine: expected"),
        (["--to-engine", "beanstalk://h:1", "--all"], "moves everything"),
        (["--to-engine", "beanstalk://h:1", "--to", "x"], "moves everything"),
        (["--to-engine", "beanstalk://h:1", "--from-engine", "beanstalk://h:2"], "moves everything"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(offline: Cli, arguments: list[str], why: str) -> None:
    said = offline("move", *arguments)
    assert (said.code, said.out) == (2, "")
    assert why in said.err
    assert "\x1b" not in said.err


def test_a_queue_that_takes_no_puts_leaves_everything_as_it_is_and_is_exit_75(
    beanstalkd: Beanstalkd, queue: Queue, cli: Cli
) -> None:
    jobs = [put(queue, a_delivery(), state) for state in ("ready", "delayed", "buried")]
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    said = cli("move", *map(str, jobs), "--to", ASIDE)
    assert said.code == 75
    assert "0 of 3 were moved" in said.err
    assert "both tubes" not in said.err
    assert [queue.stats_job(job).state for job in jobs] == ["ready", "delayed", "buried"]


def test_one_that_was_buried_without_a_word_says_so_from_then_on(queue: Queue, cli: Cli) -> None:
    told = a_delivery(evidence=(evidence("503 from the API"),))
    put(queue, told, "buried")
    assert cli("move", told.id, "--to", ASIDE).code == 0
    [moved] = held(queue, ASIDE)
    # a pool that finds it after a crash between two steps buries it, and does not work it
    assert decode(queue.peek(moved.id).body).buried == "503 from the API"
