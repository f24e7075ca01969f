"""What becomes of a batch: on a real queue that is well, gone, frozen or without a disk, and with a journal or none."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq.errors import JobTooBig, JournalError, NoProof, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.intake import durable_store
from glassq.intake.durable_store import DurableStore
from glassq.intake.forwarder import Forwarder
from glassq.intake.state import IntakeState
from glassq.intake.tubes import PingTubes
from glassq.intake.watcher import Watcher
from glassq.journal import Journal, JournalRecord
from glassq.queues.base import NewJob, Receipt
from glassq.queues.beanstalk.producer import BeanstalkProducer
from tests.conftest import PATIENCE, Beanstalkd, wait_for
from tests.intake.conftest import empty
from tests.intake.test_queue_trouble import failing_disk
from tests.queues.binlog import break_binlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.queues.raw import Queue

__all__ = ["failing_disk"]


class BrokenJournal(Journal):
    """Its writes fail when it is told to."""

    fails = False

    def write(self, records: Sequence[JournalRecord], *, hold: bool = False) -> None:
        if self.fails:
            raise JournalError("journal: cannot be written: I/O error")
        super().write(records, hold=hold)


class Kept:
    """A store with a journal of its own, looked at when the test says so and not once a second."""

    def __init__(self, producer: Any, directory: Path, *, journal_first: bool = False, min_free: int = 0) -> None:
        self.journal = BrokenJournal(directory / "spool", max_size=1 << 30, min_free=min_free)
        self.producer = producer
        self.told: list[bool] = []
        self.state = IntakeState(self.told.append, journal_first=journal_first)
        self.watcher = Watcher(producer, self.journal, self.state, PingTubes("glassq"))
        self.forwarder = Forwarder(producer, self.journal, self.state, self.watcher) if journal_first else None
        if self.forwarder:
            self.forwarder.start()
        self.store = DurableStore(producer, self.journal, self.state, self.watcher, self.forwarder)

    def keep(self, *bodies: bytes) -> tuple[list[str | QueueError], list[str]]:
        """Where new deliveries with these bodies lie, and their ids."""
        made = [envelope.new("mirror", body, {}) for body in bodies or (b"{}",)]
        jobs = [NewJob(delivery.id, envelope.encode(delivery), "glassq") for delivery in made]
        return list(self.store.store(jobs)), [delivery.id for delivery in made]

    def count(self) -> int:
        return self.journal.look().count

    def close(self) -> None:
        if self.forwarder:
            self.forwarder.stop(10)
        self.producer.close()
        self.journal.close()


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    """A store on a real server."""
    made: list[Kept] = []

    def make(
        server: Beanstalkd,
        *,
        producer: type[BeanstalkProducer] = BeanstalkProducer,
        syncer: bool = True,
        **options: Any,
    ) -> Kept:
        prover = server.syncer.prover if syncer else None
        made.append(Kept(producer(lambda: server.queue(require_durable=True), prover), tmp_path, **options))
        return made[-1]

    yield make
    for kept in made:
        kept.close()


def ids(server: Beanstalkd) -> list[str]:
    """The deliveries in the queue, taken out of it."""
    return [envelope.decode(job).id for job in empty(server)]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- the queue first --------------------------------------------------------------------------------------------------


def test_a_queue_that_is_well_gets_everything_in_order_and_the_journal_nothing(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd)
    put = []
    for _ in range(3):
        places, names = kept.keep(b"1", b"2", b"3")
        assert places == ["queue"] * 3
        put += names
        kept.watcher.look()
    assert (kept.state.ready, kept.state.queue_trouble, kept.state.journal_trouble) == (True, "", "")
    assert (ids(beanstalkd), kept.count(), kept.told) == (put, 0, [False] * 3)


def test_a_dead_queues_pings_are_journaled_and_moved_on_when_it_is_back(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd)
    beanstalkd.stop()
    places, first = kept.keep(b"1", b"2")
    more, second = kept.keep(b"3")
    assert (places + more, kept.count()) == (["journal"] * 3, 3)
    for _ in range(2):
        kept.watcher.look()
        assert "Connection refused" in kept.state.queue_trouble
    beanstalkd.start()
    kept.watcher.look()
    assert (kept.state.queue_trouble, kept.count(), ids(beanstalkd)) == ("", 0, first + second)
    assert caplog.text.count("they go to the journal") == 1
    assert caplog.text.count("the queue takes deliveries again") == 1


def test_a_frozen_queue_holds_a_batch_for_the_budget_once(on: Callable[..., Kept], beanstalkd: Beanstalkd) -> None:
    kept = on(beanstalkd)
    assert kept.keep()[0] == ["queue"]
    beanstalkd.send(signal.SIGSTOP)
    try:
        assert kept.keep(b"1", b"2")[0] == ["journal"] * 2
        assert "no answer in time" in kept.state.queue_trouble
        # nobody asks the queue any more: a thread that did would be seen to wait
        asked = len(kept.told)
        assert kept.keep()[0] == ["journal"]
        assert len(kept.told) == asked
    finally:
        beanstalkd.send(signal.SIGCONT)
    kept.watcher.look()
    assert (kept.state.queue_trouble, kept.count()) == ("", 0)


def test_a_queue_that_went_volatile_gets_nothing_of_the_journal_until_it_is_restarted(
    on: Callable[..., Kept], failing_disk: Beanstalkd
) -> None:
    kept = on(failing_disk)
    (before,) = kept.keep()[1]
    break_binlog(failing_disk)
    names = []
    for _ in range(3):
        places, name = kept.keep()
        assert places == ["journal"]
        names += name
    for _ in range(5):
        # it answers as if nothing had happened, and says that it has a binlog
        kept.watcher.look()
        assert (kept.state.ready, kept.state.volatile, kept.count()) == (True, True, 3)
    failing_disk.stop(signal.SIGKILL)
    failing_disk.start()
    kept.watcher.look()
    assert (kept.state.queue_trouble, kept.count()) == ("", 0)
    assert ids(failing_disk) == [before, *names]


def test_what_the_queue_took_into_memory_only_is_not_acknowledged_for_that(
    on: Callable[..., Kept], failing_disk: Beanstalkd
) -> None:
    kept = on(failing_disk)
    break_binlog(failing_disk)
    other = failing_disk.queue()
    # somebody else hears of it, and we are told INSERTED
    with pytest.raises(NotDurable):
        other.put(b"", tube="other")
    other.close()
    assert kept.keep(b"1", b"2")[0] == ["journal"] * 2
    assert kept.state.volatile


class LateProof(BeanstalkProducer):
    """Puts as ever, and proves only when it is told to."""

    late: QueueError | None = QueueUnavailable("no answer in time")

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        if self.late is not None:
            raise self.late


@pytest.fixture
def late(on: Callable[..., Kept], beanstalkd: Beanstalkd) -> Kept:
    return on(beanstalkd, producer=LateProof)


def test_a_ping_whose_proof_was_late_is_retired_by_it_and_not_put_again(late: Kept, beanstalkd: Beanstalkd) -> None:
    places, names = late.keep(b"1", b"2")
    assert (places, late.count()) == (["journal"] * 2, 2)
    late.watcher.look()
    assert (late.count(), late.state.queue_trouble) == (2, "no answer in time")
    late.producer.late = None
    late.watcher.look()
    assert (late.count(), late.state.queue_trouble) == (0, "")
    assert ids(beanstalkd) == names


def test_a_packet_of_the_journal_whose_proof_is_late_is_not_put_again(late: Kept, beanstalkd: Beanstalkd) -> None:
    beanstalkd.stop()
    names = late.keep(b"1", b"2")[1]
    beanstalkd.start()
    # the check is well, the proof of the packet is late
    for _ in range(3):
        late.watcher.look()
        assert (late.count(), late.state.queue_trouble) == (2, "no answer in time")
    late.producer.late = None
    late.watcher.look()
    assert (late.count(), late.state.queue_trouble) == (0, "")
    assert ids(beanstalkd) == names


def test_with_the_journal_first_a_late_proof_retires_as_well(on: Callable[..., Kept], beanstalkd: Beanstalkd) -> None:
    kept = on(beanstalkd, producer=LateProof, journal_first=True)
    places, names = kept.keep(b"1", b"2")
    assert places == ["journal"] * 2
    wait_for(lambda: kept.state.queue_trouble, "the forwarder to have no proof")
    assert kept.forwarder is not None
    kept.forwarder.stop(10)
    kept.watcher.look()
    assert kept.count() == 2
    kept.producer.late = None
    kept.watcher.look()
    assert (kept.count(), kept.state.queue_trouble) == (0, "")
    assert ids(beanstalkd) == names


def test_at_its_end_a_process_asks_once_more_for_late_proofs(late: Kept, beanstalkd: Beanstalkd) -> None:
    names = late.keep(b"1", b"2")[1]
    late.watcher.start()
    late.watcher.stop(10)
    assert late.count() == 2
    late.producer.late = None
    late.watcher.stop(10)
    assert late.count() == 0
    assert ids(beanstalkd) == names


def test_a_ping_that_will_not_be_proven_is_put_again(late: Kept, beanstalkd: Beanstalkd) -> None:
    names = late.keep()[1]
    late.producer.late = NotDurable("restarted meanwhile")
    late.watcher.look()
    assert late.count() == 1
    late.producer.late = None
    late.watcher.look()
    assert late.count() == 0
    # the queue had kept it each time
    assert set(ids(beanstalkd)) == set(names)


def test_what_the_syncer_cannot_prove_at_this_moment_is_not_put_twice(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, queue: Queue
) -> None:
    kept = on(beanstalkd)
    places, names = kept.keep()

    def is_late() -> bool:
        # its next round has no probe, and makes a new one for the one after
        while (probe := queue.peek_first("delayed", "glassq.syncer")) is not None:
            queue.delete(probe.id)
        more, name = kept.keep()
        names.extend(name)
        return more == ["journal"]

    wait_for(is_late, "a round whose probe was deleted")
    assert "NOT_FOUND" in kept.state.queue_trouble
    assert not kept.state.volatile
    wait_for(lambda: kept.watcher.look() or not kept.state.queue_trouble, "the next proof")  # type: ignore[func-returns-value]
    assert (places, kept.count()) == (["queue"], 0)
    assert ids(beanstalkd) == names


def test_a_delivery_that_is_too_big_for_the_queue_stops_no_other(on: Callable[..., Kept], tmp_path: Path) -> None:
    server = Beanstalkd(tmp_path, options=("-z", "1000"))
    try:
        kept = on(server)
        places, (first, _, last) = kept.keep(b"1", b"x" * 2000, b"3")
        assert places == ["queue", "journal", "queue"]
        assert kept.state.queue_trouble == ""
        kept.watcher.look()
        assert (kept.state.queue_trouble, kept.count(), ids(server)) == ("", 0, [first, last])
        assert kept.journal.look().refused == 1
    finally:
        server.stop()


def test_a_batch_of_which_the_queue_takes_a_part_is_kept_whole(on: Callable[..., Kept], tmp_path: Path) -> None:
    server = Beanstalkd(tmp_path, options=("-s", "20000", "-f0"))
    try:
        # a syncer would see that the directory is gone
        kept = on(server, syncer=False)
        assert kept.keep()[0] == ["queue"]
        # it cannot make its next file, as on a full disk
        server.dir.rename(tmp_path / "elsewhere")
        places, names = kept.keep(*[b"x" * 3000] * 12)
        assert set(places) <= {"queue", "journal"}
        assert "journal" in places
        assert "its disk is full" in kept.state.queue_trouble
        (tmp_path / "elsewhere").rename(server.dir)
        came = ids(server)
        kept.watcher.look()
        kept.watcher.look()
        assert set(names) <= set(came + ids(server))
        assert (kept.state.queue_trouble, kept.count()) == ("", 0)
    finally:
        server.stop()


def test_puts_that_were_refused_are_no_sign_of_a_failing_disk(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd)
    kept.watcher.look()
    with pytest.raises(JobTooBig):
        queue.put(b"x" * 70_000)
    kept.watcher.look()
    assert (kept.state.queue_trouble, errors(caplog)) == ("", [])


# -- without a journal ------------------------------------------------------------------------------------------------


def test_a_queue_that_is_well_is_enough_and_it_is_said(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd, min_free=1 << 60)
    for _ in range(3):
        kept.watcher.look()
        assert kept.keep()[0] == ["queue"]
    assert (kept.state.ready, "almost full" in kept.state.journal_trouble) == (True, True)
    assert caplog.text.count("pings are kept by the queue alone") == 1


def test_a_journal_that_cannot_be_moved_on_is_said_once_a_change(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd)
    directory = kept.journal.directory
    for times in (1, 2):
        directory.rename(directory.with_name("away"))
        directory.write_text("in its place")
        for _ in range(3):
            kept.watcher.look()
        assert caplog.text.count("the journal cannot be moved on") == times
        directory.unlink()
        directory.with_name("away").rename(directory)
        kept.watcher.look()
    assert kept.keep()[0] == ["queue"]


def test_neither_queue_nor_journal_is_said_and_nothing_is_promised(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd, min_free=1 << 60)
    beanstalkd.stop()
    places, _ = kept.keep(b"1", b"2")
    assert [type(place) for place in places] == [NoProof] * 2
    assert "almost full" in str(places[0])
    assert (kept.state.ready, kept.count()) == (False, 0)
    assert "Connection refused" in kept.state.queue_trouble
    beanstalkd.start()
    kept.watcher.look()
    assert (kept.state.ready, kept.keep()[0]) == (True, ["queue"])


def test_who_waited_for_a_journal_that_failed_is_refused_and_the_queue_is_used_when_it_proves_again(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd)
    beanstalkd.stop()
    kept.journal.fails = True
    assert [str(place) for place in kept.keep()[0]] == ["journal: cannot be written: I/O error"]
    kept.journal.fails = False
    assert kept.keep()[0] == ["journal"]
    beanstalkd.start()
    kept.watcher.look()
    assert (kept.state.journal_trouble, kept.keep()[0]) == ("", ["queue"])


# -- the journal first ------------------------------------------------------------------------------------------------


def test_with_the_journal_first_its_sync_is_enough_and_the_queue_follows(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd, journal_first=True)
    places, names = kept.keep(b"1", b"2", b"3")
    assert places == ["journal"] * 3
    wait_for(lambda: kept.count() == 0, "the journal to be empty")
    kept.watcher.look()
    assert ids(beanstalkd) == names


def test_with_the_journal_first_a_frozen_queue_is_waited_for_by_nobody(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    kept = on(beanstalkd, journal_first=True)
    beanstalkd.send(signal.SIGSTOP)
    try:
        names = [name for _ in range(3) for name in kept.keep()[1]]
        assert kept.count() == 3
        wait_for(lambda: kept.state.queue_trouble, "the forwarder to give up")
        names += kept.keep()[1]
    finally:
        beanstalkd.send(signal.SIGCONT)
    wait_for(lambda: kept.watcher.look() or kept.count() == 0, "the journal to be empty")
    # what was put and not answered came twice
    assert set(ids(beanstalkd)) == set(names)
    assert caplog.text.count("they stay in the journal") == 1


def test_with_the_journal_first_and_a_journal_that_fails_the_queue_is_used(
    on: Callable[..., Kept], beanstalkd: Beanstalkd
) -> None:
    kept = on(beanstalkd, journal_first=True)
    kept.journal.fails = True
    (place,) = kept.keep()[0]
    assert isinstance(place, QueueRefused)
    assert kept.keep()[0] == ["queue"]
    kept.journal.fails = False
    kept.watcher.look()
    assert kept.keep()[0] == ["journal"]


# -- the watcher's thread ---------------------------------------------------------------------------------------------


def test_the_watcher_finds_trouble_and_its_end_by_itself(on: Callable[..., Kept], beanstalkd: Beanstalkd) -> None:
    kept = on(beanstalkd)
    before = kept.keep()[1]
    kept.watcher.start()
    try:
        beanstalkd.stop()
        wait_for(lambda: kept.state.queue_trouble, "the watcher to find the trouble")
        after = kept.keep()[1]
        assert kept.count() == 1
        beanstalkd.start()
        wait_for(lambda: not kept.count(), "the journal to be empty")
    finally:
        kept.watcher.stop(10)
        wait_for(lambda: "watcher" not in {thread.name for thread in threading.enumerate()}, "the watcher to end")
    assert ids(beanstalkd) == before + after


def test_no_batch_waits_for_a_move_of_many(
    on: Callable[..., Kept], beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher and the store share nothing that either could wait for: both go on at the same time."""
    # the journal is for a queue in trouble, not for a busy machine
    monkeypatch.setattr(durable_store, "BUDGET", PATIENCE)
    kept = on(beanstalkd)
    made = [envelope.new("mirror", b"x" * 500, {}) for _ in range(20_000)]
    for first in range(0, len(made), 2000):
        part = made[first : first + 2000]
        kept.journal.write([JournalRecord(each.id, envelope.encode(each)) for each in part])
    mover = threading.Thread(target=kept.watcher.look)
    mover.start()
    during = 0
    until = time.monotonic() + 60
    while mover.is_alive() and time.monotonic() < until:
        assert kept.keep()[0] == ["queue"]
        during += mover.is_alive()
    mover.join()
    assert during > 0
