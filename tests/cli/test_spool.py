"""`glassq spool`."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.intake.spool import Spool
from tests.cli.conftest import a_delivery

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


@pytest.fixture
def spool(cli: Cli) -> Spool:
    """A spool that the settings of `cli` name."""
    return name_spool(cli)


def name_spool(cli: Cli) -> Spool:
    directory = cli.directory / "spool"
    cli.configure(f'[intake]\njournal = "{directory}"\n')
    return Spool(directory, max_size=1 << 30, min_free=0)


def keep(spool: Spool, number: int) -> list[str]:
    """So many deliveries in the spool; their ids, oldest first."""
    made = [a_delivery() for _ in range(number)]
    for delivery in made:
        spool.write(delivery.id, envelope.encode(delivery))
    return sorted(delivery.id for delivery in made)


def damage(spool: Spool) -> None:
    path = min(Path(spool.directory).glob("*.job"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_what_lies_in_the_spool_is_counted_and_the_oldest_named(cli: Cli, spool: Spool) -> None:
    keep(spool, 3)
    found = cli("spool", "--json").json
    assert (found["count"], found["damaged"], found["exists"]) == (3, 0, True)
    assert found["size"] == sum(path.stat().st_size for path in spool.directory.glob("*.job"))
    assert 0 <= found["oldest"] < 3600
    said = cli("spool").out
    assert str(spool.directory) in said
    assert f"`glassq --config {cli.file} spool drain`" in said


def test_a_spool_that_was_never_used_is_said_and_not_made(cli: Cli) -> None:
    cli.configure(f'[intake]\njournal = "{cli.directory}/never"\n')
    said = cli("spool")
    assert (said.code, "nothing was ever kept there" in said.out) == (0, True)
    assert cli("spool", "--json").json["exists"] is False
    assert cli("spool", "drain").out == "the spool is empty\n"
    assert not (cli.directory / "never").exists()


def test_drain_puts_everything_into_the_queue_oldest_first(cli: Cli, spool: Spool, queue: Queue) -> None:
    ids = keep(spool, 5)
    said = cli("spool", "drain")
    assert (said.code, said.out) == (0, "5 put into the queue, 0 left, 0 damaged in all\n")
    assert spool.empty()
    jobs = [queue.reserve(0) for _ in ids]
    assert [envelope.decode(job.body).id for job in jobs if job] == ids


def test_what_is_damaged_is_set_aside_and_the_rest_is_put(cli: Cli, spool: Spool, queue: Queue) -> None:
    keep(spool, 3)
    damage(spool)
    assert cli("spool", "drain", "--json").json == {"drained": 2, "left": 0, "damaged": 1}
    assert queue.stats_tube().ready == 2
    assert "1 set aside: look at" in cli("spool").out


def test_without_a_queue_nothing_is_taken_out_of_the_spool(offline: Cli) -> None:
    spool = name_spool(offline)
    keep(spool, 2)
    assert offline("spool", "drain").code == 69
    assert spool.look().count == 2
    assert offline("spool", "--json").json["count"] == 2


def test_a_queue_in_memory_only_gets_nothing_out_of_the_spool(cli: Cli, spool: Spool, beanstalkd: Beanstalkd) -> None:
    keep(spool, 2)
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    said = cli("spool", "drain")
    assert (said.code, spool.look().count) == (75, 2)
    assert "writes nothing to disk" in said.err


def test_while_another_process_drains_it_is_said_so(cli: Cli, spool: Spool) -> None:
    keep(spool, 1)
    with (spool.directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = cli("spool", "drain")
    assert (said.code, spool.look().count) == (1, 1)
    assert "another process drains it" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_nothing_behind_that_intake_could_not_open(cli: Cli, spool: Spool) -> None:
    keep(spool, 1)
    for path in [spool.directory, *spool.directory.iterdir()]:
        os.chown(path, 65534, 65534)
    assert cli("spool", "drain").code == 0
    assert {path.stat().st_uid for path in spool.directory.iterdir()} == {65534}


def test_a_drain_at_a_terminal_ends_with_the_same_words(cli: Cli, spool: Spool) -> None:
    keep(spool, 2)
    assert cli.at_terminal("spool", "drain", answer="").out == "2 put into the queue, 0 left, 0 damaged in all\n"
