"""`glassq queues`, with tasks that a program added and real states of their jobs."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from glassq import taskqueue
from glassq.delivery import Delivery, decode, encode
from glassq.operations import Operations, purge
from glassq.operations.progress import Silent
from glassq.operations.push_queues import planned
from glassq.push.request import tube_of
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.settings import load
from glassq.values import is_postgres
from tests.cli.conftest import EACH_ENGINE, a_delivery
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.push.client import Client
    from tests.cli.conftest import Cli, Said
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

QUEUES = """
queue:
- name: mail
  rate: 0.5/m
  bucket_size: 3
  max_concurrent_requests: 2
- name: photos
  rate: 20/s
- name: off
  rate: 0
"""


@dataclass
class Push:
    """A [push] section, the program that adds tasks, and what an operator sees of them."""

    cli: Cli
    queue: Queue
    client: Client
    yaml: Path

    def add(self, queue: str, count: int = 1, **task: Any) -> list[int]:
        """Adds so many tasks; returns their jobs."""
        before = self.jobs(queue)
        for _ in range(count):
            taskqueue.Queue(queue, client=self.client).add(taskqueue.Task(url="/work", **task))
        return sorted(self.jobs(queue) - before)

    def jobs(self, name: str) -> set[int]:
        states = frozenset({"ready", "delayed", "buried", "reserved"})
        return {job.id for job in self.queue.scan(states, self.tube(name)) if not isinstance(job, tuple)}

    def tube(self, name: str) -> str:
        return tube_of(self.queue.tube, name)

    def bury(self, job: int) -> None:
        self.queue.reserve_job(job)
        self.queue.bury(job)

    def delivery(self, job: int) -> Delivery:
        return decode(self.queue.peek(job).body)

    def seen(self) -> dict[str, dict[str, Any]]:
        return {row["queue"]: row for row in self.cli("queues", "--json").json["queues"]}

    def counts(self, name: str) -> tuple[int, int, int]:
        """Ready, delayed, buried."""
        tube = self.queue.stats_tube(self.tube(name))
        return tube.ready, tube.delayed, tube.buried


@pytest.fixture
def push(cli: Cli, queue: Queue) -> Iterator[Push]:
    yaml = cli.directory / "queue.yaml"
    yaml.write_text(QUEUES)
    # on PostgreSQL the names are in the queue's database
    names = "" if is_postgres(cli.url) else f'names = "sqlite:///{cli.directory}/names.db"\n'
    cli.configure(f'[push]\nqueue_yaml = "{yaml}"\n{names}[push.targets]\ndefault = "http://127.0.0.1:9"\n')
    client = taskqueue.Client(load(str(cli.file), {}))
    yield Push(cli, queue, client, yaml)
    client.close()


# -- the list ----------------------------------------------------------------------------------------------------------


def test_every_queue_of_queue_yaml_is_listed_with_its_limits(push: Push) -> None:
    rows = push.seen()
    assert list(rows) == ["default", "mail", "photos", "off"]
    assert rows["mail"] == {
        "queue": "mail", "tube": "glassq.push.mail", "in_queue_yaml": True, "rate": 0.5 / 60, "bucket": 3, "at_once": 2,
        "at_once_is_default": False, "in_flight": 0, "backlog": 0, "oldest": None, "delayed": 0, "retrying": 0,
        "scheduled": 0, "parked": 0, "buried": 0, "paused_for": 0,
    }  # fmt: skip
    assert (rows["photos"]["rate"], rows["photos"]["bucket"]) == (20, 5)
    assert (rows["photos"]["at_once"], rows["photos"]["at_once_is_default"]) == (3, True)


def test_people_see_a_table_with_a_line_for_each_queue(push: Push) -> None:
    push.add("mail", 3)
    header, *lines = push.cli("queues").out.splitlines()
    names = "queue|rate|bucket|at once|in flight|backlog|oldest|retrying|scheduled|parked|buried|paused"
    assert re.split(" {2,}", header.strip()) == names.split("|")
    cells = {line.split()[0]: line.split()[1:] for line in lines[:4]}
    assert cells["default"] == ["5/s", "5", "3", "0", "0", "-", "0", "0", "-", "0", "-"]
    assert lines[4] == "at once 3: where no max_concurrent_requests is set, one child less than all"
    assert cells["mail"][:5] == ["30/h", "3", "2", "0", "3"]
    assert cells["off"][0] == "paused"


def test_tasks_are_counted_by_what_they_wait_for(push: Push) -> None:
    running, buried, *_ = push.add("photos", 4)
    push.add("photos", 2, countdown=600)
    push.queue.reserve_job(running)
    push.queue.reserve_job(buried)
    push.queue.bury(buried)
    row = push.seen()["photos"]
    assert (row["in_flight"], row["backlog"], row["delayed"], row["buried"]) == (1, 2, 2, 1)
    assert row["oldest"] is not None
    assert push.seen()["mail"]["backlog"] == 0


def test_a_task_that_is_tried_again_is_told_from_one_that_was_scheduled(push: Push) -> None:
    jobs = push.add("photos", 5, countdown=600)
    push.add("mail", 1, countdown=600)
    deliveries = {job: push.delivery(job) for job in jobs}
    for job in jobs[:3]:
        push.cli.record(deliveries[job], "retrying", job, tube=push.tube("photos"))
    push.queue.kick(jobs[0])
    push.queue.delete(jobs[1])
    rows = push.seen()
    assert (rows["photos"]["backlog"], rows["photos"]["retrying"], rows["photos"]["scheduled"]) == (1, 1, 2)
    assert (rows["mail"]["retrying"], rows["mail"]["scheduled"]) == (0, 1)


@pytest.mark.parametrize("trouble", ["absent", "no database"])
def test_without_the_ledger_nobody_can_say_what_is_tried_again(push: Push, trouble: str) -> None:
    if trouble == "no database":
        (push.cli.directory / "ledger.db").write_text("not a database, but long enough to be looked at as one" * 20)
    push.add("photos", 2, countdown=600)
    rows = push.seen()
    assert (rows["photos"]["delayed"], rows["photos"]["retrying"], rows["photos"]["scheduled"]) == (2, None, None)
    # none is delayed there, so none is tried again
    assert rows["mail"]["retrying"] == 0
    said = push.cli("queues")
    assert said.code == 0
    assert "ledger" in said.out
    assert [line.split()[7:9] for line in said.out.splitlines() if line.startswith("photos")] == [["?", "?"]]


def test_a_queue_that_is_not_in_queue_yaml_any_more_is_shown_with_what_to_do(push: Push) -> None:
    push.add("photos", 2)
    push.yaml.write_text(QUEUES.replace("photos", "pictures"))
    row = push.seen()["photos"]
    assert (row["in_queue_yaml"], row["rate"], row["backlog"]) == (False, None, 2)
    said = push.cli("queues").out
    assert f"queue photos is not in {push.yaml}: nobody works it" in said
    assert f"`glassq --config {push.cli.file} queues purge photos`" in said


def test_other_tubes_are_no_queues(push: Push) -> None:
    push.queue.put(b"a ping")
    push.queue.put(b"another program's", tube="glassq.pushed")
    assert list(push.seen()) == ["default", "mail", "photos", "off"]


def test_tasks_that_nothing_delivers_are_told(push: Push) -> None:
    push.add("off")
    push.add("photos")
    hints = push.cli("queues", "--json").json["hints"]
    assert hints == [
        f"queue off is not worked: its rate is 0 in {push.yaml}",
        "tasks are ready and nobody takes them: is glassq-worker running?",
    ]


def test_a_mistake_in_queue_yaml_is_told_and_takes_no_command_away(push: Push) -> None:
    push.add("mail", 2)
    push.yaml.write_text(QUEUES.replace("20/s", "20/w"))
    for command in ([], ["pause", "mail"], ["resume", "mail"], ["purge", "mail", "--yes"]):
        said = push.cli("queues", *command)
        assert said.code == 0
        assert f"glassq: {push.yaml}:8: " in said.err
        assert "mail" in said.out
    assert push.counts("mail") == (0, 0, 0)


def test_of_a_queue_yaml_that_cannot_be_used_nothing_is_claimed(push: Push) -> None:
    push.add("mail")
    push.yaml.write_text("queue: [")
    found = push.cli("queues", "--json").json
    assert [row["queue"] for row in found["queues"]] == ["mail"]
    assert (found["queues"][0]["in_queue_yaml"], found["queues"][0]["at_once"]) == (None, None)
    assert found["hints"] == ["tasks are ready and nobody takes them: is glassq-worker running?"]
    said = push.cli("queues", "pause", "photos")
    assert (said.code, "there is no queue photos; there are: mail" in said.err) == (2, True)


def test_a_queue_that_has_all_children_while_others_wait_is_told(push: Push, beanstalkd: Beanstalkd) -> None:
    jobs = push.add("photos", 2)
    push.add("off")
    children = [beanstalkd.queue() for _ in jobs]
    for child, job in zip(children, jobs, strict=True):
        child.reserve_job(job)
    has_all = (
        f"queue photos has all 2 children at work, and others wait: set its max_concurrent_requests in {push.yaml}"
    )
    assert not any(has_all in hint for hint in push.cli("queues", "--json").json["hints"])
    push.add("mail")
    assert any(has_all in hint for hint in push.cli("queues", "--json").json["hints"])
    for child in children:
        child.close()


def test_a_beanstalkd_that_drains_is_told(push: Push, beanstalkd: Beanstalkd) -> None:
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: push.queue.stats().draining, "beanstalkd to drain")
    assert push.cli("queues", "--json").json["hints"] == [
        "beanstalkd is draining: it takes no jobs until it is restarted"
    ]


@pytest.mark.parametrize("command", [["queues"], ["queues", "pause", "mail"], ["queues", "purge", "mail"]])
def test_without_push_it_is_said_how_to_switch_it_on(cli: Cli, command: list[str]) -> None:
    said = cli(*command)
    assert (said.code, said.out) == (1, "")
    assert "add it, with queue_yaml = " in said.err
    assert "[push.targets]" in said.err


def test_a_queue_that_is_not_there_is_exit_69(push: Push, beanstalkd: Beanstalkd) -> None:
    beanstalkd.stop()
    commands = (["queues"], ["queues", "pause", "mail"], ["queues", "purge", "mail", "--yes"])
    assert [push.cli(*command).code for command in commands] == [69, 69, 69]


# -- pausing -----------------------------------------------------------------------------------------------------------


def test_a_paused_queue_gives_no_task_until_it_is_resumed(push: Push) -> None:
    for name in ("mail", "photos"):
        push.add(name)
    said = push.cli("queues", "pause", "mail")
    assert said.code == 0
    assert "queue mail is paused" in said.out
    assert f"rate: 0 in {push.yaml}" in said.out
    assert "restarted" in said.out
    assert push.queue.reserve(0, [push.tube("mail")]) is None
    assert push.queue.reserve(0, [push.tube("photos")]) is not None
    assert push.seen()["mail"]["paused_for"] > 100 * 365 * 86_400
    listed = push.cli("queues").out
    assert [line.split()[-1] for line in listed.splitlines()[1:4]] == ["-", "paused", "-"]
    assert f"`glassq --config {push.cli.file} queues resume mail`" in listed
    assert push.cli("queues", "resume", "mail").out == "queue mail goes on\n"
    assert push.queue.reserve(0, [push.tube("mail")]) is not None


def test_a_second_pause_keeps_it_paused_and_one_resume_is_enough(push: Push) -> None:
    push.add("mail")
    for _ in range(2):
        assert push.cli("queues", "pause", "mail", "--json").json == {"queues": [{"queue": "mail", "paused": True}]}
    assert push.cli("queues", "resume", "mail", "--json").json == {"queues": [{"queue": "mail", "resumed": True}]}
    assert push.seen()["mail"]["paused_for"] == 0
    assert push.cli("queues", "resume", "mail").out == "queue mail was not paused\n"


def test_another_ones_short_pause_is_shown_with_how_long_it_lasts(push: Push) -> None:
    push.add("mail")
    push.queue.pause(7200, push.tube("mail"))
    assert " 1h 59m" in next(line for line in push.cli("queues").out.splitlines() if line.startswith("mail"))


def test_a_queue_that_beanstalkd_does_not_know_yet_cannot_be_paused_and_what_can_be_done_is_said(push: Push) -> None:
    push.add("photos")
    said = push.cli("queues", "pause", "mail", "photos")
    assert said.code == 1
    assert "queue photos is paused" in said.out
    assert "queue mail: the queue has nothing to pause: it holds no task, and no glassq-worker waits on it" in said.err
    assert f"rate: 0 in {push.yaml}" in said.err


def test_a_resumed_queue_whose_rate_is_0_is_told_to_wait_all_the_same(push: Push) -> None:
    assert f"its rate is 0 in {push.yaml}" in push.cli("queues", "resume", "off").out


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["purge", "--yes"]])
def test_an_unknown_queue_is_refused_with_those_that_are_known(push: Push, command: list[str]) -> None:
    push.add("mail")
    names = ["mial"] if command[0] == "purge" else ["mail", "mial"]
    said = push.cli("queues", *command, *names)
    assert said.code == 2
    assert "there is no queue mial; did you mean mail?" in said.err
    # nor was the one before it touched
    assert (push.counts("mail"), push.seen()["mail"]["paused_for"]) == ((1, 0, 0), 0)
    assert "there are: default, mail, photos, off" in push.cli("queues", *command, "xxxxxxxx").err


# -- purging -----------------------------------------------------------------------------------------------------------


def filled(push: Push) -> int:
    """Puts 5 ready, 2 delayed, 1 buried, 1 damaged and 1 running task into photos; returns the running one's job."""
    running, buried, *_ = push.add("photos", 7)
    push.add("photos", 2, countdown=600)
    push.queue.reserve_job(running)
    push.bury(buried)
    push.queue.put(b"damaged", tube=push.tube("photos"))
    return running


@EACH_ENGINE
def test_a_purge_deletes_all_that_waits_or_lies_buried_but_not_what_runs(push: Push) -> None:
    running = filled(push)
    push.add("mail")
    said = push.cli("queues", "purge", "photos", "--yes")
    assert said.code == 0
    assert said.out == "queue photos: 9 tasks deleted, 1 of them damaged; 1 at work now, which goes on\n"
    assert push.counts("photos") == (0, 0, 0)
    push.queue.delete(running, held=True)
    assert push.counts("mail") == (1, 0, 0)


def test_a_dry_run_says_what_would_go_and_touches_nothing(push: Push) -> None:
    filled(push)
    said = push.cli("queues", "purge", "photos", "--dry-run")
    assert said.code == 0
    assert "9 tasks would be deleted (6 ready, 2 delayed, 1 buried); 1 at work" in said.out
    assert push.counts("photos") == (6, 2, 1)
    found = push.cli("queues", "purge", "photos", "--dry-run", "--json").json
    assert found == {
        "queue": "photos", "dry_run": True, "waiting": {"ready": 6, "delayed": 2, "buried": 1},
        "deleted": 0, "damaged": 0, "taken": 0, "untold": 0, "running": 1,
    }  # fmt: skip


def test_a_purge_beside_a_running_task_says_how_to_hold_the_others(push: Push) -> None:
    push.add("mail", 2)
    assert push.cli("queues", "purge", "mail", "--dry-run").err == ""
    push.queue.reserve(0, [push.tube("mail")])
    said = push.cli("queues", "purge", "mail", "--dry-run")
    pause = f"`glassq --config {push.cli.file} queues pause mail` first holds them"
    assert f"1 task at work, and more may begin: {pause}" in said.err
    push.queue.pause(600, push.tube("mail"))
    assert push.cli("queues", "purge", "mail", "--dry-run").err == ""


def test_nobody_to_ask_is_a_refusal_with_a_hint(push: Push) -> None:
    push.add("mail", 2)
    said = push.cli("queues", "purge", "mail", answer="y\n")
    assert (said.code, push.counts("mail")) == (2, (2, 0, 0))
    assert "delete 2 tasks of queue mail for good (2 ready, 0 delayed, 0 buried)?" in said.err
    assert "--yes" in said.err


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2)])
def test_an_operator_is_asked_and_may_say_no(push: Push, answer: str, code: int, left: int) -> None:
    push.add("mail", 2)
    said: Said = push.cli.at_terminal("queues", "purge", "mail", answer=answer)
    assert (said.code, push.counts("mail")) == (code, (left, 0, 0))


def test_an_empty_queue_is_purged_without_a_question(push: Push) -> None:
    assert push.cli("queues", "purge", "mail").out == "queue mail: 0 tasks deleted\n"


@EACH_ENGINE
def test_the_names_of_purged_tasks_are_tombstones(push: Push) -> None:
    push.add("mail", name="once")
    push.add("mail")
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        push.add("mail", name="once")
    assert push.cli("queues", "purge", "mail", "--yes").code == 0
    with pytest.raises(taskqueue.TombstonedTaskError):
        push.add("mail", name="once")
    push.add("mail", name="twice")


def test_what_a_queue_left_behind_when_it_was_taken_out_of_queue_yaml_can_be_purged(push: Push) -> None:
    push.add("photos", 2)
    push.yaml.write_text(QUEUES.replace("photos", "pictures"))
    assert push.cli("queues", "purge", "photos", "--yes").out == "queue photos: 2 tasks deleted\n"
    assert list(push.seen()) == ["default", "mail", "pictures", "off"]


def test_pings_that_were_moved_into_a_queue_are_purged_with_it(push: Push) -> None:
    push.queue.put(encode(a_delivery()), tube=push.tube("mail"))
    found = push.cli("queues", "purge", "mail", "--yes", "--json").json
    assert (found["deleted"], found["damaged"]) == (1, 0)


def test_a_purge_ends_though_others_go_on_putting_and_working(push: Push, beanstalkd: Beanstalkd) -> None:
    """`Busy` puts a task for each that is looked at, and works each second one before it can be deleted."""
    first = push.add("mail", 20)
    others = beanstalkd.queue()

    class Busy(BeanstalkInspector):
        looks = 0

        def first(self, state: Any, tube: str) -> Any:
            found = super().first(state, tube)
            if found is not None:
                self.looks += 1
                others.put(b"new", tube=tube)
                if self.looks % 2:
                    others.delete(int(found.ref))
            return found

    operations = Operations(load(str(push.cli.file), {}), actor="ada")
    busy = Busy(beanstalkd.queue(), beanstalkd.url)
    plan = purge.plan(operations, busy, planned(operations), "mail")
    done = purge.carry_out(operations, busy, plan, Silent()).purged
    busy.close()
    others.close()
    assert (done.deleted, done.taken) == (10, 10)
    assert not push.jobs("mail") & set(first)
    assert push.counts("mail") == (20, 0, 0)


def test_names_that_stay_taken_as_their_database_cannot_be_written_are_counted(push: Push) -> None:
    push.add("photos", name="kept")
    push.add("photos")
    for left in push.cli.directory.glob("names.db*"):
        left.write_bytes(b"this is no database" * 100)
    said = push.cli("queues", "purge", "photos", "--yes")
    assert said.code == 1
    assert said.out == (
        "queue photos: 2 tasks deleted; 1 name stays taken as that of a living task: [push] names cannot be written\n"
    )


# -- queues of pings ---------------------------------------------------------------------------------------------------


@EACH_ENGINE
def test_queues_of_pings_are_listed_and_paused_without_push_queues(cli: Cli, queue: Queue) -> None:
    cli.configure('[sources.stripe]\nqueue = "payments"\n[worker.queues.payments]\nweight = 3\nchildren = 1\n')
    tube = f"{queue.tube}.queue.payments"
    queue.put(encode(a_delivery(tube=tube)), tube=tube)
    said = cli("queues")
    assert said.code == 0
    assert re.search(r"^payments +stripe +3 +1 +0 +1 ", said.out, re.MULTILINE)
    document = cli("queues", "--json").json
    assert document["queues"] == []
    assert [(row["queue"], row["backlog"]) for row in document["worker_queues"]] == [("default", 0), ("payments", 1)]
    assert cli("queues", "pause", "payments").code == 0
    assert queue.stats_tube(tube).paused_for > 0
    assert cli("queues", "resume", "payments").code == 0
    assert queue.stats_tube(tube).paused_for == 0
