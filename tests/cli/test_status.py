"""`glassq status`."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.delivery import encode, id_of
from glassq.queues import open_inspector
from glassq.settings import Settings
from glassq.worker.collector import PoolCollector
from glassq.worker.scoreboard import Scoreboard
from tests.cli.conftest import EACH_ENGINE, Cli, a_delivery, put
from tests.conftest import wait_for
from tests.journal.conftest import fill_journal
from tests.queues.binlog import failing, fill_disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


def test_an_idle_queue_is_all_zero_and_gives_no_hint(cli: Cli) -> None:
    found = cli("status", "--json").json
    tube = found["queue"]["tubes"][0]
    assert tube == {
        "name": "glassq", "ready": 0, "reserved": 0, "delayed": 0, "buried": 0, "waiting": 0, "paused_for": 0,
        "total": 0, "deleted": 0, "pause": None,
    }  # fmt: skip
    assert found["queue"]["durable"] is True
    assert found["queue"]["oldest_ready"] is None
    assert found["hints"] == []


@EACH_ENGINE
def test_jobs_are_counted_by_state_and_the_oldest_ready_one_is_named(queue: Queue, cli: Cli) -> None:
    jobs = [put(queue, a_delivery(), state) for state in ("buried", "ready", "ready", "delayed", "buried")]
    found = cli("status", "--json").json
    tube = found["queue"]["tubes"][0]
    assert (tube["ready"], tube["delayed"], tube["buried"]) == (2, 1, 2)
    assert found["queue"]["oldest_ready"]["job"] == str(jobs[1])


def test_people_are_told_what_to_do_next(queue: Queue, cli: Cli) -> None:
    for state in ("buried", "buried", "buried", "ready"):
        put(queue, a_delivery(), state)
    said = cli("status").out
    assert f"3 deliveries are buried; for their causes: `glassq --config {cli.file} buried --by reason`" in said
    # the test's own connection has reserved, as a pool's do that pause
    assert "jobs are ready and nobody takes them: glassq-worker is connected, but pauses" in said


def test_a_consumer_that_waits_is_seen(beanstalkd: Beanstalkd, cli: Cli) -> None:
    consumer = beanstalkd.queue()
    waiting = threading.Thread(target=consumer.reserve, args=[30])
    waiting.start()
    try:
        wait_for(lambda: cli("status", "--json").json["queue"]["tubes"][0]["waiting"] == 1, "the consumer to be seen")
    finally:
        other = beanstalkd.queue()
        put(other, a_delivery())
        waiting.join(30)
        other.close()
        consumer.close()


def test_push_queues_are_in_the_table_and_the_tubes_of_others_are_a_line(queue: Queue, cli: Cli) -> None:
    for name in ("elsewhere", "elsewhere", "other", "glassq.push.mail"):
        queue.put(b"something else", tube=name)
    tubes = cli("status", "--json").json["queue"]["tubes"]
    names = {"glassq": 0, "glassq.push.mail": 1, "elsewhere": 2, "other": 1}
    assert {tube["name"]: tube["ready"] for tube in tubes} == names
    said = cli("status").out
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["glassq", "glassq.push.mail"]
    assert "and 3 jobs of other programs, in 2 tubes of theirs" in said


def test_the_oldest_ready_job_is_that_of_all_tubes_of_ours(queue: Queue, cli: Cli) -> None:
    queue.put(b"a stranger's", tube="elsewhere")
    assert cli("status", "--json").json["queue"]["oldest_ready"] is None
    job = queue.put(encode(a_delivery()), tube="glassq.push.mail")
    wait_for(lambda: queue.stats_job(job).age > 0, "the job to be older")
    put(queue, a_delivery())
    assert cli("status", "--json").json["queue"]["oldest_ready"]["job"] == str(job)
    assert f"(job {job} in tube glassq.push.mail)" in cli("status").out


def test_tasks_that_nobody_takes_are_told_and_so_are_those_that_lie_buried(queue: Queue, cli: Cli) -> None:
    ready, buried = (queue.put(encode(a_delivery()), tube="glassq.push.mail") for _ in range(2))
    assert cli("status", "--json").json["hints"] == [
        "2 ready: no pool with these settings works tube glassq.push.mail: there is no section [push]",
        "jobs are ready and nobody takes them: is glassq-worker running?",
    ]
    queue.reserve_job(buried)
    queue.bury(buried)
    assert cli("status", "--json").json["hints"][0].startswith("1 delivery is buried: `glassq ")
    queue.reserve_job(ready)
    put(queue, a_delivery())
    # somebody works: the ping is next
    assert len(cli("status", "--json").json["hints"]) == 1


def test_a_queue_that_does_not_write_to_disk_is_told_off(beanstalkd: Beanstalkd, cli: Cli) -> None:
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    said = cli("status")
    assert said.code == 0
    assert "-b DIRECTORY -f0" in said.out
    assert cli("status", "--json").json["queue"]["durable"] is False


def test_a_queue_that_drains_is_told(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    assert "takes no jobs until it is restarted" in cli("status").out


def test_a_queue_whose_disk_is_full_is_told_once_pings_wait_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(tmp_path, monkeypatch, file_size=8192) as server:
        cli = Cli(tmp_path, server.url)
        cli.configure(f'[intake]\njournal = "{tmp_path}/journal"\n')
        old = id_of(int((time.time() - 120) * 1000), 1)
        fill_journal(tmp_path / "journal", [a_delivery(id=old)])
        (hint,) = cli("status", "--json").json["hints"]
        assert hint.startswith("pings stay in the journal, though the queue takes jobs now: is glassq-web running?")
        fill_disk(server, file_size=8192)
        found = cli("status", "--json").json
        (hint,) = found["hints"]
        assert "out of memory, or its disk is full: make room on its disk" in hint
        assert "disk is full" in found["queue"]["refuses"]
        assert "on disk           yes, as far as it goes: no new job is taken" in cli("status").out
        with closing(open_inspector(Settings(queue=server.settings))) as inspector:
            look = PoolCollector(Scoreboard(1), inspector, ["glassq"])
            assert next(numbers[()] for gauge, numbers in look().items() if gauge.name == "glassq_queue_durable") == 0


def test_jobs_that_silent_connections_hold_are_told_with_what_to_do(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(), "reserved")
    assert cli("status", "--json").json["hints"] == []
    put(queue, a_delivery(), "reserved")
    (hint,) = cli("status", "--json").json["hints"]
    assert hint.startswith("more jobs are reserved (2) than connections work (1)")
    assert "restart glassq-worker" in hint


def test_the_last_day_of_the_ledger_is_counted(cli: Cli) -> None:
    for state in ("done", "done", "dropped"):
        cli.record(a_delivery(), state)
    assert cli("status", "--json").json["ledger"]["states"] == {"done": 2, "dropped": 1}
    assert "2 done, 1 dropped" in cli("status").out


def test_a_ledger_that_is_not_there_is_said_and_not_made(cli: Cli) -> None:
    found = cli("status", "--json").json["ledger"]
    assert found["states"] is None
    assert "no ledger at" in found["note"]
    assert not (cli.directory / "ledger.db").exists()


@pytest.mark.parametrize("content", [b"\0" * 4096, b"no database"], ids=["zeros", "text"])
def test_a_ledger_that_cannot_be_read_does_not_hide_the_queue(cli: Cli, content: bytes) -> None:
    (cli.directory / "ledger.db").write_bytes(content)
    said = cli("status", "--json")
    assert said.code == 0
    assert said.json["ledger"]["states"] is None


def test_what_waits_in_the_journal_is_told_queue_or_no_queue(beanstalkd: Beanstalkd, cli: Cli) -> None:
    directory = cli.directory / "journal"
    cli.configure(f'[intake]\njournal = "{directory}"\n')
    assert cli("status", "--json").json["journal"] is None
    told = a_delivery()
    fill_journal(directory, [told])
    assert "1 delivery waits for the queue" in cli("status").out
    assert cli("status", "--json").json["journal"]["count"] == 1
    # the name of the last release, for one more
    assert cli("status", "--json").json["spool"]["count"] == 1
    beanstalkd.stop()
    down = cli("status")
    assert down.code == 69
    assert "journal: 1 delivery waits for the queue" in down.err
