"""What a queue has lost is seen, told and put again; what went another way does not pass for lost."""

from __future__ import annotations

import shutil
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from glassq.delivery import decode, encode
from glassq.operations import Operations, missing, status
from glassq.operations.checks import queue as queue_checks
from glassq.operations.progress import Silent
from glassq.queues.beanstalk.protocol import SYNCER_TUBE
from glassq.settings import load
from tests.cli.conftest import a_delivery, evidence, put
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.delivery import Delivery
    from glassq.operations.checks.base import Check
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector
    from tests.cli.conftest import Cli, Said
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

ROUTE = '[[routes]]\nsource = "mirror"\nhandler = "ours:handle"\n'


@pytest.fixture
def cli(cli: Cli) -> Cli:
    (cli.directory / "ours.py").write_text("def handle(delivery): ...\n")
    cli.configure(ROUTE)
    return cli


def known(queue: Queue, cli: Cli, state: str = "buried", **fields: Any) -> tuple[Delivery, int]:
    """A delivery that the pool has buried, or tries again, as queue and ledger have it then; and its job."""
    buried = "gave up" if state == "buried" else ""
    told = a_delivery(buried=buried, attempt=2, evidence=(evidence(),), **fields)
    job = put(queue, told, state if state == "buried" else "delayed")
    cli.record(told, state, job=job, reason="gave up", body=told.body, labels=told.labels, tube="glassq")
    return told, job


def empty(server: Beanstalkd) -> None:
    """The server comes back without the files that it had."""
    server.stop()
    shutil.rmtree(server.dir)
    server.dir.mkdir()
    server.start()


def operations_of(cli: Cli) -> Operations:
    return Operations(load(str(cli.file), {}), actor="ada")


def asked(cli: Cli, look: Callable[[Operations, Inspector, Progress], Iterator[Check]]) -> list[Check]:
    """What one of doctor's checks says."""
    operations = operations_of(cli)
    with operations.queue() as queue:
        return list(look(operations, queue, Silent()))


def lost(cli: Cli) -> Check:
    (check,) = asked(cli, queue_checks.lost)
    return check


def hints(cli: Cli) -> list[str]:
    said: list[str] = cli("status", "--json").json["hints"]
    return [hint for hint in said if "the ledger has as" in hint]


def find_missing(cli: Cli, seconds: float = 5.0) -> missing.Missing:
    operations = operations_of(cli)
    with operations.queue() as queue:
        return missing.find_missing(operations, queue, seconds, Silent())


def names(cli: Cli) -> list[str]:
    return [each.delivery for each in find_missing(cli).deliveries]


# -- lost ------------------------------------------------------------------------------------------------------------


def test_a_queue_that_lost_its_jobs_is_told_and_what_it_lost_is_put_again(beanstalkd: Beanstalkd, cli: Cli) -> None:
    before = beanstalkd.queue()
    told = [known(before, cli, state)[0] for state in ("buried", "buried", "retrying")]
    before.close()
    assert lost(cli).ok is True
    assert hints(cli) == []
    empty(beanstalkd)
    found = lost(cli)
    assert (found.ok, found.said) == (
        False,
        "3 deliveries that the ledger has as buried or retrying are not in the queue",
    )
    assert "replay --state lost` puts them again" in found.todo
    said = cli("doctor")
    assert said.code
    assert f"WRONG  lost          {found.said}: " in said.out
    assert hints(cli) == [f"{found.said}: `glassq --config {cli.file} doctor` says what to do"]
    said = cli("replay", "--state", "lost", "--yes")
    assert (said.code, "3 deliveries replayed" in said.out) == (0, True)
    queue = beanstalkd.queue()
    seen = [decode(queue.peek(job).body) for job in range(1, queue.max_job_id() + 1) if there(queue, job)]
    assert [each.labels["replay_of"] for each in seen] == [each.id for each in told]
    queue.close()
    assert lost(cli).ok is True
    assert hints(cli) == []


def there(queue: Queue, job: int) -> bool:
    """Whether there is such a job; the syncer has one of its own."""
    try:
        return queue.stats_job(job).tube != SYNCER_TUBE
    except Exception:
        return False


def test_what_came_since_does_not_hide_what_was_lost(beanstalkd: Beanstalkd, cli: Cli) -> None:
    before = beanstalkd.queue()
    told, _ = known(before, cli, "retrying")
    before.close()
    empty(beanstalkd)
    queue = beanstalkd.queue()
    for _ in range(50):
        put(queue, a_delivery())
    # the number of the lost one's job is another one's by now
    assert names(cli) == [told.id]
    assert hints(cli)[0].startswith("1 delivery that the ledger has as retrying is not in the queue: ")
    queue.close()


def test_a_part_that_was_lost_is_told(queue: Queue, cli: Cli) -> None:
    [(_, _), (told, job), (_, _)] = [known(queue, cli) for _ in range(3)]
    queue.delete(job)
    assert names(cli) == [told.id]
    assert lost(cli).said == "1 delivery that the ledger has as buried is not in the queue"


def test_what_is_lost_for_good_can_be_given_up(queue: Queue, cli: Cli) -> None:
    jobs = [known(queue, cli) for _ in range(3)]
    for _, job in jobs:
        queue.delete(job)
    first = jobs[0][0].id
    said = cli("delete", first, "--yes")
    assert (said.code, f"{first}: deleted: it was not in the queue" in said.out) == (0, True)
    assert len(names(cli)) == 2
    assert cli("delete", "--lost", "--dry-run").code == 0
    assert cli("delete", "--lost").code == 2, "nobody was there to ask"
    assert len(names(cli)) == 2
    assert cli("delete", "--lost", "--yes").code == 0
    assert lost(cli).ok is True
    assert "the queue has lost nothing" in cli("delete", "--lost").out


def test_no_ledger_is_not_no_loss(cli: Cli) -> None:
    said = cli("delete", "--lost", "--yes")
    assert (said.code, said.out) == (74, "")
    assert said.err == f"glassq: no ledger at {cli.directory}/ledger.db yet\n"


def test_every_command_says_the_same_of_where_a_delivery_is(queue: Queue, cli: Cli) -> None:
    told, job = known(queue, cli)
    held = cli("replay", told.id).out
    assert f"it is in the queue, buried, in tube glassq (job {job})" in held
    assert cli("show", told.id, "--json").json["in_queue"] is True
    queue.delete(job)
    shown = cli("show", told.id)
    assert f"The queue does not hold it: the ledger last had it as buried, at {told.received.year}" in shown.out
    assert cli("show", told.id, "--json").json["in_queue"] is False
    for said in (
        cli("kick", told.id),
        cli("bury", told.id),
        cli("archive", told.id),
        cli("move", told.id, "--to", "x"),
    ):
        assert said.code == 1
        assert f"the queue holds no delivery {told.id}: the ledger last had it as buried, at " in said.out
    assert cli("replay", told.id).code == 0


@pytest.mark.parametrize("state", ["retrying", "buried"])
def test_what_is_in_another_job_than_the_ledger_says_is_found_by_every_command(
    queue: Queue, cli: Cli, state: str
) -> None:
    told = a_delivery()
    job = put(queue, told, "buried")
    cli.record(told, state)
    assert cli("show", told.id, "--json").json["job"]["id"] == str(job)
    assert "it is in the queue, buried" in cli("replay", told.id).out


# -- not lost --------------------------------------------------------------------------------------------------------

GOES: dict[str, Callable[[Cli, str], Said]] = {
    "deleted": lambda cli, name: cli("delete", name, "--yes"),
    "deleted with others": lambda cli, _: cli("delete", "--source", "mirror", "--yes"),
    "archived": lambda cli, name: cli("archive", name),
    "moved aside": lambda cli, name: cli("move", name, "--to", "aside"),
    "kicked": lambda cli, name: cli("kick", name),
}


@pytest.mark.parametrize("how", GOES)
def test_what_an_operator_did_is_no_loss(queue: Queue, cli: Cli, how: str) -> None:
    told, _ = known(queue, cli)
    assert GOES[how](cli, told.id).code == 0
    assert names(cli) == []
    assert hints(cli) == []
    assert lost(cli).ok is True


def test_what_was_restored_or_put_aside_is_no_loss(queue: Queue, cli: Cli) -> None:
    archived, _ = known(queue, cli)
    assert cli("archive", archived.id).code == 0
    (file,) = (cli.directory / "archive").iterdir()
    assert cli("restore", str(file), "--yes").code == 0
    aside, _ = known(queue, cli, "retrying")
    assert cli("bury", aside.id).code == 0
    assert names(cli) == []
    assert lost(cli).ok is True


def test_what_was_deleted_is_told_as_that_and_keeps_no_body(queue: Queue, cli: Cli) -> None:
    told, _ = known(queue, cli)
    assert cli("delete", told.id, "--yes").code == 0
    found = cli("show", told.id, "--json").json["ledger"]
    assert (found["state"], found["job"], found["reason"][:3]) == ("deleted", None, "by ")
    assert "it was deleted at " in cli("kick", told.id).out
    assert "it was deleted at " in cli("replay", told.id).out
    assert "deleted" in cli("tail", "--once", "--state", "deleted").out


def test_a_purged_task_is_no_loss(queue: Queue, cli: Cli) -> None:
    cli.configure(f'{ROUTE}[push]\nnames = "sqlite:///{cli.directory}/names.db"\n')
    task = a_delivery(source="push", labels={"queue": "default", "task": "t"}, attempt=2)
    job = queue.put(encode(task), tube="glassq.push.default")
    cli.record(task, "retrying", job=job)
    assert cli("queues", "purge", "default", "--yes").code == 0
    assert names(cli) == []


def test_a_delivery_that_is_worked_now_is_no_loss(queue: Queue, cli: Cli) -> None:
    _, job = known(queue, cli, "retrying")
    queue.reserve_job(job)
    assert names(cli) == []
    assert lost(cli).ok is True


def test_one_that_a_pool_put_anew_without_telling_is_no_loss(queue: Queue, cli: Cli) -> None:
    told, job = known(queue, cli, "retrying")
    for _ in range(5):
        put(queue, a_delivery())
    put(queue, told)
    queue.delete(job)
    assert names(cli) == []
    assert hints(cli) == []
    assert lost(cli).ok is True


def test_a_ledger_that_is_a_moment_behind_is_waited_for(
    queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, job = known(queue, cli, "retrying")
    queue.delete(job)
    # as long as a loaded machine may need
    monkeypatch.setattr(missing, "LAG", 15.0)
    writer = threading.Timer(0.5, cli.record, [told, "done"])
    writer.start()
    try:
        assert names(cli) == []
    finally:
        writer.join()


def test_while_the_counts_agree_status_looks_at_no_delivery(
    queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in ("buried", "retrying"):
        known(queue, cli, state)

    def never(*_: object) -> None:
        pytest.fail("it looked")

    monkeypatch.setattr(status, "find_missing", never)
    operations = operations_of(cli)
    with operations.queue() as inspector:
        assert status.snapshot(operations, inspector, Silent()).missing == missing.Missing((), 0, 0, sure=True)


def test_what_could_not_be_looked_for_in_time_is_not_said_to_be_lost(queue: Queue, cli: Cli) -> None:
    told, job = known(queue, cli)
    put(queue, a_delivery())
    queue.delete(job)
    assert find_missing(cli, 0.0).deliveries == ()
    assert find_missing(cli, 0.0).looked == 0
    unsure = missing.Missing(find_missing(cli).deliveries, 1, 1, sure=False)
    assert [each.delivery for each in unsure.deliveries] == [told.id]
    assert unsure.words() == "1 delivery that the ledger has as buried is not where the ledger says in the queue"


def test_status_is_silent_about_what_it_is_not_sure_of(queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _, job = known(queue, cli)
    queue.delete(job)
    surely = find_missing(cli)
    operations = operations_of(cli)
    with operations.queue() as inspector:
        for found in (surely, replace(surely, sure=False)):
            monkeypatch.setattr(status, "find_missing", lambda *_, found=found: found)
            hints = status.snapshot(operations, inspector, Silent()).hints
            assert [found.sure] == [any("that the ledger has as buried" in str(hint) for hint in hints)]


def test_while_the_queue_takes_no_jobs_what_is_lost_is_still_told(
    beanstalkd: Beanstalkd, queue: Queue, cli: Cli
) -> None:
    told, job = known(queue, cli)
    kept, _ = known(queue, cli)
    queue.delete(job)
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    assert names(cli) == [told.id]
    assert kept.id not in lost(cli).said


# -- the files of the server -----------------------------------------------------------------------------------------


def binlog(cli: Cli) -> list[Check]:
    return [check for check in asked(cli, queue_checks.engine) if check.name == "binlog"]


def test_a_directory_that_was_removed_under_a_running_server_is_told(
    beanstalkd: Beanstalkd, queue: Queue, cli: Cli
) -> None:
    put(queue, a_delivery())
    assert binlog(cli) == []
    assert "yes: jobs are written to it" in cli("status").out
    shutil.rmtree(beanstalkd.dir)
    (found,) = binlog(cli)
    assert found.ok is False
    assert found.said == f"beanstalkd writes to {beanstalkd.dir}/binlog.1, which was removed"
    assert found.todo.startswith("do not restart it, its jobs may be in memory only: ")
    assert "`glassq archive --all`" in found.todo
    said = cli("status")
    assert "on disk           NO" in said.out
    assert "binlog.1, which was removed" in said.out
    # one that was made anew in its place is not the one that is written to
    beanstalkd.dir.mkdir()
    (beanstalkd.dir / "binlog.1").touch()
    assert binlog(cli)[0].ok is False


def test_a_directory_that_was_moved_away_is_told(beanstalkd: Beanstalkd, cli: Cli) -> None:
    beanstalkd.dir.rename(beanstalkd.dir.with_name("elsewhere"))
    (found,) = binlog(cli)
    assert found.said == f"{beanstalkd.dir}, the directory that beanstalkd writes to, is gone"


def test_a_file_that_is_missing_is_named(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    body = bytes(60_000)
    while queue.stats().newest_file < 3:
        queue.put(body)
    assert binlog(cli) == []
    (beanstalkd.dir / "binlog.2").unlink()
    (found,) = binlog(cli)
    assert found.said == f"beanstalkd needs files that are not in {beanstalkd.dir}: binlog.2"
