"""`glassq replay`: what is over is put again as a new delivery, out of a real ledger."""

from __future__ import annotations

import json
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.cli import main as cli_main
from glassq.delivery import decode
from glassq.ledger import Entry, open_ledger
from glassq.ledger.reader import LedgerReader
from glassq.operations import pace
from glassq.push.request import TaskRequest
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.queues.beanstalk.protocol import JobStats
from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, put
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.delivery import Delivery
    from glassq.errors import QueueError
    from glassq.queues.base import NewForm
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

MAIL = "glassq.push.default"
EVERY = frozenset({"ready", "delayed", "buried"})
PUSH = '[push]\nnames = "sqlite:////nowhere/names.db"\n'


def over(cli: Cli, *told: Delivery, state: str = "done", body: bool = True, **fields: Any) -> None:
    """The pool has recorded these."""
    ledger = open_ledger(cli.ledger)
    for each in told:
        entry = Entry(each.id, each.source, each.received, state, each.attempt, datetime.now(UTC), 0.5, **fields)
        ledger.record(replace(entry, body=each.body, labels=each.labels) if body else entry)
    ledger.close()


def ago(seconds: float, **fields: Any) -> Delivery:
    return a_delivery(received=datetime.now(UTC) - timedelta(seconds=seconds), **fields)


def waiting(queue: Queue, tube: str = "glassq") -> list[Delivery]:
    """The deliveries of a tube, the oldest first."""
    found = [each for each in queue.scan(EVERY, tube) if isinstance(each, JobStats)]
    return [decode(queue.peek(each.id).body) for each in found][::-1]


def repeated(queue: Queue) -> list[str]:
    return [each.labels["replay_of"] for each in waiting(queue)]


@EACH_ENGINE
def test_a_delivery_that_is_done_is_put_again_as_a_new_one(queue: Queue, cli: Cli) -> None:
    old = ago(3600, attempt=3)
    over(cli, old)
    said = cli("replay", old.id)
    assert said.code == 0
    [new] = waiting(queue)
    assert f"delivery {old.id}: replayed: as {new.id}, job " in said.out
    assert (new.source, new.body, new.attempt) == (old.source, old.body, 1)
    assert new.labels == {**old.labels, "replay_of": old.id}
    assert new.id != old.id
    assert new.received > old.received
    assert cli("show", old.id, "--json").json["ledger"]["replayed"] == new.id
    assert new.id in cli("show", old.id).out


def test_one_that_was_replayed_is_replayed_again_only_if_that_is_said(queue: Queue, cli: Cli) -> None:
    first, second = a_delivery(), a_delivery()
    over(cli, first)
    assert cli("replay", first.id).code == 0
    said = cli("replay", first.id)
    assert (said.code, len(waiting(queue))) == (1, 1)
    assert "it was replayed before, as " in said.out
    over(cli, second)
    said = cli("replay", "--state", "done", "--yes")
    assert (said.code, repeated(queue)) == (0, [first.id, second.id])
    assert "1 left out: replayed before (--again replays them once more)" in said.out
    assert cli("replay", first.id, "--again").code == 0
    assert cli("replay", "--state", "done", "--again", "--yes").code == 0
    assert repeated(queue) == [first.id, second.id, first.id, first.id, second.id]


def test_filters_choose_and_the_oldest_come_first(queue: Queue, cli: Cli) -> None:
    old, newer, newest = ago(7200), ago(1800), ago(60)
    # written in another order than they were received
    over(cli, newest, old, newer, result="stored file:///a")
    other, dropped = ago(1800, source="other"), ago(1800)
    over(cli, other, result="stored file:///b")
    over(cli, dropped, state="dropped", reason="no route")

    def chosen(*arguments: str) -> list[str]:
        said = cli("replay", *arguments, "--dry-run", "--json")
        assert said.code == 0
        return [each["delivery"] for each in said.json["results"]]

    assert chosen("--source", "mirror") == [old.id, newer.id, newest.id]
    assert chosen("--source", "mirror", "--limit", "2") == [old.id, newer.id]
    assert chosen("--newer-than", "1h", "--older-than", "10m", "--source", "mirror") == [newer.id]
    assert chosen("--where", "result~file:///b$") == [other.id]
    assert chosen("--where", "result~stored", "--where", "result~a$", "--older-than", "1h") == [old.id]
    assert chosen("--state", "dropped", "--where", "reason~no route") == [dropped.id]
    assert waiting(queue) == []
    assert cli("replay", "--source", "mirror", "--yes").code == 0
    assert repeated(queue) == [old.id, newer.id, newest.id]


def test_what_was_dropped_is_looked_for_only_if_that_is_said(cli: Cli) -> None:
    over(cli, a_delivery(), state="dropped", reason="no route")
    said = cli("replay", "--where", "reason~no route")
    assert said.code == 0
    assert "nothing that is done is left to replay; --state dropped looks among those that were dropped" in said.out


def test_a_task_goes_into_the_tube_of_its_queue(queue: Queue, cli: Cli) -> None:
    cli.configure(PUSH)
    request = TaskRequest(queue="default", name="t-1", url="/work", headers={"X-A": "ü"}, eta=12.5)
    task = envelope.new("push", bytes(range(256)), request.labels())
    over(cli, task)
    assert cli("replay", task.id).code == 0
    [new] = waiting(queue, MAIL)
    assert (new.source, new.body, new.labels) == ("push", task.body, {**request.labels(), "replay_of": task.id})
    assert waiting(queue) == []


def test_a_task_whose_queue_nobody_works_is_not_put_where_nobody_looks(queue: Queue, cli: Cli) -> None:
    task = envelope.new("push", b"", TaskRequest(queue="mail", name="t-1", url="/").labels())
    over(cli, task)
    said = cli("replay", task.id)
    assert (said.code, queue.stats_tube("glassq.push.mail").ready) == (1, 0)
    assert "no pool with these settings works tube glassq.push.mail" in said.out


IN_QUEUE = [
    ("delayed", "retrying", "it is in the queue, delayed, in tube glassq (job {job}): it is tried again by itself"),
    ("ready", "retrying", "it is in the queue, ready, in tube glassq (job {job}): a consumer works it next"),
    ("reserved", "retrying", "it is in the queue, being worked, in tube glassq (job {job}): "),
    (
        "buried",
        "buried",
        "it is in the queue, buried, in tube glassq (job {job}): `glassq --config {config} kick` has it worked again",
    ),
]


@pytest.mark.parametrize(("state", "recorded", "says"), IN_QUEUE)
def test_what_the_queue_holds_is_refused_with_what_to_do(
    queue: Queue, cli: Cli, state: str, recorded: str, says: str
) -> None:
    told = a_delivery()
    job = put(queue, told, state)
    cli.record(told, recorded, job=job)
    said = cli("replay", told.id)
    assert said.code == 1
    assert says.format(job=job, config=cli.file) in said.out


def test_what_is_archived_is_refused_with_what_to_do(queue: Queue, cli: Cli) -> None:
    told = a_delivery()
    over(cli, told, state="archived", body=False)
    said = cli("replay", told.id)
    assert (said.code, waiting(queue)) == (1, [])
    assert " restore` puts it back" in said.out


def test_some_that_cannot_be_replayed_are_said_and_the_others_are_replayed(queue: Queue, cli: Cli) -> None:
    bare, whole = a_delivery(), a_delivery()
    over(cli, bare, body=False)
    over(cli, whole)
    said = cli("replay", bare.id, whole.id, "01990000-0000", "4711")
    assert (said.code, repeated(queue)) == (1, [whole.id])
    assert f"delivery {bare.id}: not done: its body was not kept: " in said.out
    assert "01990000-0000: not done: the ledger does not know it; it keeps entries for 30d" in said.out
    assert "4711: not done: a job's id" in said.out
    said = cli("replay", "--state", "done", "--yes")
    assert said.code == 1
    assert "1 delivery: not done: its body was not kept" in said.out


def test_bodies_that_are_not_to_be_kept_are_not(queue: Queue, cli: Cli) -> None:
    cli.file.write_text(cli.file.read_text().replace("[ledger]", "[ledger]\nkeep_bodies = false"))
    told = a_delivery()
    settings = msgspec.structs.replace(cli.ledger, keep_bodies=False)
    ledger = open_ledger(settings)
    ledger.record(replace(Entry(told.id, "mirror", told.received, "done", 1, told.received, 0.1), body=told.body))
    ledger.close()
    assert told.body not in b"".join(file.read_bytes() for file in cli.directory.glob("ledger.db*"))
    said = cli("replay", told.id)
    assert (said.code, waiting(queue)) == (1, [])
    assert "[ledger] keep_bodies is false" in said.out


def test_a_ledger_of_an_older_version_is_said(queue: Queue, cli: Cli) -> None:
    told = a_delivery()
    over(cli, told, body=False)
    with closing(sqlite3.connect(cli.directory / "ledger.db", isolation_level=None)) as database:
        for column in ("body", "labels", "replayed"):
            database.execute(f"ALTER TABLE deliveries DROP COLUMN {column}")
        database.execute("UPDATE meta SET value = 3 WHERE name = 'schema'")
    for arguments in ([told.id], ["--state", "done"]):
        said = cli("replay", *arguments)
        assert (said.code, waiting(queue)) == (1, [])
        assert "of an older version, which keeps no bodies" in said.out


def test_no_ledger_is_said(cli: Cli) -> None:
    for state in ("done", "lost"):
        said = cli("replay", "--state", state)
        assert (said.code, said.out) == (74, "")
        assert said.err == f"glassq: no ledger at {cli.directory}/ledger.db yet\n"


def test_an_operator_is_asked_and_nobody_to_ask_is_a_refusal(queue: Queue, cli: Cli) -> None:
    over(cli, a_delivery(), a_delivery())
    assert cli("replay", "--state", "done", answer="y\n").code == 2
    said = cli.at_terminal("replay", "--state", "done", answer="n\n")
    assert (said.code, waiting(queue)) == (1, [])
    assert "replay 2 deliveries?" in said.err
    assert cli.at_terminal("replay", "--state", "done", answer="y\n").code == 0
    assert len(waiting(queue)) == 2


WRONG = [
    [],
    ["--limit", "5"],
    ["01990000-0000", "--state", "done"],
    ["01990000-0000", "--limit", "5"],
    ["short"],
    ["--where", "cause=0123456789ab"],
    ["--where", "reason~("],
    ["--newer-than", "soon"],
    ["--rate", "fast", "--state", "done"],
    ["--state", "buried"],
]


@pytest.mark.parametrize("arguments", WRONG)
def test_a_command_line_that_is_wrong_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    said = cli("replay", *arguments)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_an_interrupt_says_how_far_it_was_and_the_same_command_goes_on(
    queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = [ago(60 - number) for number in range(5)]
    over(cli, *told)
    real, puts = BeanstalkInspector.insert_all, []

    def interrupted(inspector: BeanstalkInspector, forms: Sequence[NewForm]) -> list[str | QueueError]:
        puts.append(1)
        if len(puts) == 2:
            # The packet at hand is replayed before the signal is obeyed.
            signal.raise_signal(signal.SIGINT)
        return real(inspector, forms)

    command = ["--config", str(cli.file), "replay", "--state", "done", "--yes"]
    with monkeypatch.context() as patched:
        patched.setattr(pace, "PACKET", 1)
        patched.setattr(BeanstalkInspector, "insert_all", interrupted)
        assert cli_main.main(command) == 130
    assert "interrupted: 2 of 5 were looked at; the same command goes on with the rest" in capfd.readouterr().out
    assert cli_main.main(command) == 0
    assert repeated(queue) == [each.id for each in told]


def test_a_queue_that_takes_no_jobs_is_exit_75_and_nothing_is_marked(
    beanstalkd: Beanstalkd, queue: Queue, cli: Cli
) -> None:
    over(cli, a_delivery(), a_delivery())
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    said = cli("replay", "--state", "done", "--yes", "--json")
    assert said.code == 75
    [row] = said.json["results"]
    assert "0 of 2 were looked at" in row["why"]
    with LedgerReader(cli.ledger) as ledger:
        assert {each.replayed for each in ledger.finished("done")} == {""}


def test_a_ledger_that_is_locked_cannot_mark_and_that_is_said_once(queue: Queue, cli: Cli) -> None:
    over(cli, a_delivery(), a_delivery())
    with closing(sqlite3.connect(cli.directory / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = cli("replay", "--state", "done", "--yes")
        other.execute("ROLLBACK")
    assert (said.code, len(waiting(queue))) == (0, 2)
    assert said.err.count("the same command would replay it again") == 1
    assert "locked" in said.err


def test_what_a_sender_wrote_moves_no_cursor_and_comes_back_as_it_was(queue: Queue, cli: Cli) -> None:
    nasty = a_delivery(NASTY.encode(), labels={"collection": NASTY, "\x1b[2J": "\0"})
    over(cli, nasty, result=NASTY)
    said = cli("replay", nasty.id)
    assert said.code == 0
    assert not any(ord(each) < 32 and each != "\n" for each in said.out + said.err)
    [new] = waiting(queue)
    assert (new.body, new.labels) == (nasty.body, {**nasty.labels, "replay_of": nasty.id})


def test_json_names_the_new_delivery(queue: Queue, cli: Cli) -> None:
    told = a_delivery()
    over(cli, told)
    said = cli("replay", told.id, "--rate", "1000/s", "--json")
    [new] = waiting(queue)
    [row] = json.loads(said.out)["results"]
    assert (row["delivery"], row["did"], row["replayed_as"]) == (told.id, "replayed", new.id)


def test_a_replay_is_not_replayed_by_a_filter_as_its_original_stands_for_it(queue: Queue, cli: Cli) -> None:
    first = ago(600)
    over(cli, first)
    assert cli("replay", "--state", "done", "--yes").code == 0
    [again] = waiting(queue)
    over(cli, again)
    said = cli("replay", "--state", "done", "--yes")
    assert (said.code, repeated(queue)) == (0, [first.id])
    # by its id whoever asks has it
    assert cli("replay", again.id).code == 0
    assert repeated(queue) == [first.id, again.id]


def test_two_operators_who_replay_at_once_put_each_delivery_once(queue: Queue, cli: Cli) -> None:
    told = [ago(600 - number) for number in range(20)]
    over(cli, *told)
    with ThreadPoolExecutor(2) as operators:
        said = list(operators.map(lambda _: cli("replay", "--state", "done", "--rate", "20/s", "--yes"), range(2)))
    assert [each.code for each in said] == [0, 0]
    assert sorted(repeated(queue)) == sorted(each.id for each in told)
