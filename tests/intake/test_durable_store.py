from __future__ import annotations

import logging
import shutil
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.errors import JobTooBig, NotDurable, QueueRefused
from glassq.intake.durable_store import DurableStore
from glassq.intake.spool import Spool
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.queues.beanstalk.proof import SAMPLE
from tests.conftest import Beanstalkd, wait_for
from tests.intake.conftest import empty
from tests.intake.test_queue_trouble import FailingDisk, failing_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.queues.raw import Queue

__all__ = ["failing_disk"]


class Kept:
    """A store with a spool of its own, looked at when the test says so and not once a second."""

    def __init__(
        self, producer: BeanstalkProducer, directory: Path, *, durable: bool = True, min_free: int = 0
    ) -> None:
        self.spool = Spool(directory / "spool", max_size=1 << 30, min_free=min_free)
        self.producer = producer
        self.told: list[bool] = []
        self.store = DurableStore(
            producer, self.spool, tube="glassq", require_durable=durable, spooling=self.told.append
        )

    def keep(self, body: bytes = b"{}") -> tuple[str, str]:
        """Where a new delivery lies, and its id."""
        made = envelope.new("mirror", body, {})
        return self.store.store(made.id, envelope.encode(made)), made.id

    def spooled(self) -> list[str]:
        return sorted(path.stem for path in self.spool.directory.glob("*.job"))

    def trouble(self) -> str:
        return self.store.readiness().trouble


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    """A store on a real server."""
    made: list[Kept] = []

    def make(server: Beanstalkd, *, durable: bool = True, min_free: int = 0) -> Kept:
        producer = BeanstalkProducer(lambda: server.queue(require_durable=durable), require_durable=durable)
        made.append(Kept(producer, tmp_path, durable=durable, min_free=min_free))
        return made[-1]

    yield make
    for kept in made:
        kept.producer.close()


def ids(server: Beanstalkd) -> list[str]:
    """The deliveries in the queue, taken out of it."""
    return [envelope.decode(job).id for job in empty(server)]


def volatile_for_us(server: FailingDisk) -> None:
    """Its binlog fails, and somebody else has been told so: to us it says INSERTED."""
    server.fail()
    other = server.queue()
    with pytest.raises(NotDurable):
        other.put(b"", tube="other")
    other.close()


# -- with a real server ---------------------------------------------------------------------------------------------


def test_a_queue_that_is_well_gets_everything_and_the_spool_nothing(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd)
    for _ in range(3):
        assert kept.keep()[0] == "queue"
        kept.store.look()
    found = kept.store.readiness()
    assert (found.ready, found.trouble, found.volatile) == (True, "", False)
    assert (len(ids(beanstalkd)), kept.spooled()) == (3, [])


def test_a_queue_that_went_volatile_gets_nothing_of_the_spool_until_it_is_restarted(
    on: Callable[..., Kept], failing_disk: FailingDisk
) -> None:
    kept = on(failing_disk)
    before = kept.keep()[1]
    kept.store.look()
    failing_disk.fail()
    spooled = [kept.keep() for _ in range(3)]
    assert [where for where, _ in spooled] == ["spool"] * 3
    for _ in range(5):
        # it answers as if nothing had happened, and says that it has a binlog
        kept.store.look()
        found = kept.store.readiness()
        assert (found.ready, found.volatile) == (True, True)
        assert "in memory only" in found.trouble
        assert len(kept.spooled()) == 3
    failing_disk.stop(signal.SIGKILL)
    failing_disk.start()
    kept.store.look()
    assert (kept.trouble(), kept.spooled()) == ("", [])
    assert ids(failing_disk) == [before, *sorted(name for _, name in spooled)]


def test_what_the_queue_took_into_memory_only_is_spooled_as_well(
    on: Callable[..., Kept], failing_disk: FailingDisk
) -> None:
    kept = on(failing_disk)
    kept.keep()
    kept.store.look()
    volatile_for_us(failing_disk)
    taken = [kept.keep() for _ in range(3)]
    assert [where for where, _ in taken] == ["queue"] * 3
    kept.store.look()
    assert kept.spooled() == sorted(name for _, name in taken)
    assert kept.keep()[0] == "spool"


def test_what_consumers_took_at_once_does_not_hide_what_still_lies_in_memory_only(
    on: Callable[..., Kept], failing_disk: FailingDisk
) -> None:
    kept = on(failing_disk)
    kept.keep()
    kept.store.look()
    # records move in this second, too: counters alone would show nothing
    kept.keep()
    volatile_for_us(failing_disk)
    taken = [kept.keep()[1] for _ in range(SAMPLE)]
    consumer = failing_disk.queue()
    newest = consumer.max_job_id()
    for job_id in range(newest, newest - 3, -1):
        consumer.delete(job_id)
    consumer.close()
    kept.store.look()
    assert set(taken) <= set(kept.spooled())


class Turning(BeanstalkProducer):
    """On a server whose disk fails just after it was asked how it is."""

    def __init__(self, server: FailingDisk) -> None:
        super().__init__(lambda: server.queue(require_durable=True))
        self._server = server

    def check(self, *, within: float, thorough: bool = False) -> None:
        super().check(within=within, thorough=thorough)
        volatile_for_us(self._server)


def test_a_drain_into_a_queue_that_turns_volatile_leaves_every_delivery_in_the_spool(
    failing_disk: FailingDisk, tmp_path: Path
) -> None:
    kept = Kept(Turning(failing_disk), tmp_path)
    made = [envelope.new("mirror", b"{}", {}) for _ in range(3)]
    for delivery in made:
        kept.spool.write(delivery.id, envelope.encode(delivery))
    kept.store.look()
    assert kept.spooled() == sorted(delivery.id for delivery in made)
    assert "in memory only" in kept.trouble()
    kept.producer.close()


def test_without_a_disk_it_is_spooled_and_readiness_says_why(on: Callable[..., Kept], beanstalkd: Beanstalkd) -> None:
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    kept = on(beanstalkd)
    assert kept.keep()[0] == "spool"
    kept.store.look()
    found = kept.store.readiness()
    assert (found.ready, found.volatile) == (True, True)
    assert found.trouble == "beanstalkd writes nothing to disk: start it with -b DIRECTORY -f0"


def test_where_durability_is_not_asked_for_a_queue_in_memory_is_good_enough_after_trouble_too(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    beanstalkd.stop()
    kept = on(beanstalkd, durable=False)
    spooled = kept.keep()
    assert spooled[0] == "spool"
    beanstalkd.start(durable=False)
    kept.store.look()
    assert (kept.trouble(), kept.keep()[0]) == ("", "queue")
    assert spooled[1] in ids(beanstalkd)


def test_after_a_restart_of_the_queue_what_was_not_proven_is_put_again(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd)
    taken = [kept.keep()[1] for _ in range(5)]
    beanstalkd.stop(signal.SIGKILL)
    kept.store.look()
    beanstalkd.start()
    kept.store.look()
    kept.store.look()
    found = ids(beanstalkd)
    # nobody knows whether the server that died had written them
    assert (set(found), len(found)) == (set(taken), 2 * len(taken))
    assert kept.spooled() == []


def test_puts_that_were_refused_are_no_sign_of_a_failing_disk(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd)
    kept.store.look()
    with pytest.raises(JobTooBig):
        queue.put(b"x" * 70_000)
    kept.store.look()
    assert kept.trouble() == ""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_queue_that_refuses_puts_and_answers_all_else_is_not_taken_for_well_each_second(
    on: Callable[..., Kept], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Beanstalkd(tmp_path, options=("-s", "20000"))
    try:
        kept = on(server)
        # it cannot make its next file, as on a full disk
        server.dir.rename(tmp_path / "elsewhere")
        wait_for(lambda: kept.keep(b"x" * 5000)[0] == "spool", "the disk to be full")
        for number in range(2, 6):
            # a small probe may still fit
            kept.store.look()
            assert kept.keep(b"x" * 5000)[0] == "spool"
            assert len(kept.spooled()) == number
        assert caplog.text.count("they go to the spool") == 1
        (tmp_path / "elsewhere").rename(server.dir)
        empty(server)
        kept.store.look()
        kept.store.look()
        assert (kept.trouble(), kept.spooled()) == ("", [])
    finally:
        server.stop()


def test_one_delivery_that_is_too_big_for_the_queue_stops_no_other(on: Callable[..., Kept], tmp_path: Path) -> None:
    server = Beanstalkd(tmp_path, options=("-z", "1000"))
    try:
        kept = on(server)
        where, big = kept.keep(b"x" * 2000)
        assert where == "spool"
        where, small = kept.keep()
        assert (where, kept.trouble()) == ("queue", "")
        kept.store.look()
        assert (kept.trouble(), kept.spooled(), ids(server)) == ("", [], [small])
        assert (kept.spool.directory / "damaged" / f"{big}.job").exists()
    finally:
        server.stop()


def test_the_watcher_finds_trouble_and_its_end_by_itself(on: Callable[..., Kept], beanstalkd: Beanstalkd) -> None:
    kept = on(beanstalkd)
    before = kept.keep()[1]
    kept.store.start()
    try:
        beanstalkd.stop()
        name = kept.keep()[1]
        assert kept.spooled() == [name]
        beanstalkd.start()
        wait_for(lambda: not kept.spooled(), "the spool to be drained")
    finally:
        kept.store.stop()
        wait_for(lambda: "watcher" not in {thread.name for thread in threading.enumerate()}, "the watcher to end")
    found = ids(beanstalkd)
    assert (set(found), found.count(name)) == ({before, name}, 1)


def test_neither_queue_nor_spool_is_said_and_nothing_is_promised(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd, min_free=1 << 60)
    beanstalkd.stop()
    with pytest.raises(QueueRefused, match="its disk is almost full"):
        kept.keep()
    assert kept.store.readiness().ready is False
    assert "Connection refused" in caplog.text
    assert kept.spooled() == []


def test_what_can_be_kept_nowhere_else_is_named_in_the_log(
    on: Callable[..., Kept], failing_disk: FailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(failing_disk, min_free=1 << 60)
    volatile_for_us(failing_disk)
    where, name = kept.keep()
    assert where == "queue"
    kept.store.look()
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.startswith(f"acknowledged, and perhaps in memory only delivery={name}")
    assert kept.store.readiness().ready is False


def test_a_failure_that_only_others_have_met_is_seen_in_the_counters(
    on: Callable[..., Kept], failing_disk: FailingDisk
) -> None:
    kept = on(failing_disk)
    volatile_for_us(failing_disk)
    kept.store.look()
    # nothing of ours is in the queue: only somebody else puts, and is told INSERTED
    other = failing_disk.queue()
    other.put(b"", tube="other")
    other.close()
    kept.store.look()
    assert kept.keep()[0] == "spool"
    assert kept.store.readiness().volatile is True


def test_a_spool_that_vanished_is_said_and_the_queue_is_used_all_the_same(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd)
    shutil.rmtree(kept.spool.directory)
    kept.store.look()
    assert "spool not drained" in caplog.text
    assert (kept.keep()[0], kept.store.readiness().ready) == ("queue", True)
