"""Deliveries that need not be worked, on a real queue and a real ledger. No update may be lost."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq import delivery as envelope
from glassq.errors import Retry, SettingsError
from glassq.ledger import Entry, open_ledger, sql
from glassq.ledger.reader import LedgerReader
from glassq.policy import Deadlines, Policy
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.routes import Context, Destination, Routes
from glassq.settings import LedgerSettings, Route, Settings, parse
from glassq.values import Duration, HandlerName
from glassq.worker import duplicates
from glassq.worker.consumer import Consumer
from glassq.worker.executor import Executor
from glassq.worker.lease import Lease
from glassq.worker.scoreboard import Scoreboard
from glassq.worker.settlement import Settlement
from glassq.worker.throttle import Throttle
from tests.conftest import wait_for
from tests.syncers import prover_beside
from tests.worker.conftest import MemoryLedger, gated, jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.delivery import Delivery
    from tests.queues.raw import Queue

NAME = HandlerName("scripted:handler")
COALESCE = Route(source="mirror", handler=NAME, coalesce=True)
DEDUPE = Route(source="mirror", handler=NAME, dedupe_window=Duration("9d"))
PLAIN = Route(source="mirror", handler=NAME)


@dataclass
class Shop:
    """A consumer whose handler notes what it got. `work(delivery)` says whether the handler ran."""

    queue: Queue
    settings: LedgerSettings
    route: Route = COALESCE
    skew: float = 0.0
    fails: bool = False

    def __post_init__(self) -> None:
        self.seen: list[Delivery] = []
        self.ledger = open_ledger(self.settings)
        slot = Scoreboard(1).slots[0]
        receiver = self.receiver = BeanstalkReceiver(self.queue, prover_beside(self.queue.url))
        executor = Executor(
            Routes([Destination(self.route, self._handle)]),
            Context(Settings()),
            self.ledger,
            Lease(receiver, 120, slot),
            Policy(max_attempts=3, max_lost=3, backoff=30, backoff_cap=3600),
            Deadlines(soft=50.0, hard=60.0),
            skew=self.skew,
        )
        throttle = Throttle(slots=1)
        main = throttle.limiter(0, free=[self.queue.tube], limited=[])
        limiter = gated(throttle, main, receiver, self.queue.tube)
        self.consumer = Consumer(receiver, limiter, executor, Settlement(receiver, self.ledger, slot.counters), slot)

    def _handle(self, delivery: Delivery, _context: Context) -> None:
        self.seen.append(delivery)
        if self.fails:
            raise Retry("not now")

    def work(self, delivery: Delivery) -> bool:
        before = len(self.seen)
        self.queue.put(envelope.encode(delivery))
        assert self.consumer.work_one(0)
        self.receiver.finish()
        wait_for(lambda: self.entry(delivery) is not None, "the ledger to have it")
        return len(self.seen) > before

    def entry(self, delivery: Delivery) -> Entry | None:
        with LedgerReader(self.settings) as reader:
            return reader.get(delivery.id)


@pytest.fixture
def shop(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    # each delivery is waited for in the ledger
    monkeypatch.setattr(sql, "LINGER", sql.SOON)
    made = Shop(queue, LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db"))
    yield made
    made.ledger.close()


def ping(body: bytes = b'{"itemId":"1"}', *, ago: float = 0.0, **labels: str) -> Delivery:
    made = envelope.new("mirror", body, labels)
    return msgspec.structs.replace(made, received=datetime.now(UTC) - timedelta(seconds=ago))


def test_a_ping_is_dropped_when_an_identical_one_was_begun_after_it_came(shop: Shop, look: Queue) -> None:
    waiting, first = ping(), ping()
    assert shop.work(first)
    assert not shop.work(waiting)
    entry = shop.entry(waiting)
    assert entry is not None
    assert entry.state == "dropped"
    assert first.id in entry.reason
    assert jobs(look) == []


def test_an_identical_ping_that_comes_after_the_handler_began_is_worked(shop: Shop) -> None:
    assert shop.work(ping())
    assert shop.work(ping())
    assert shop.work(ping())


def test_a_ping_that_comes_while_the_handler_runs_is_worked(queue: Queue, shop: Shop) -> None:
    meanwhile: list[Delivery] = []
    handle = shop._handle

    def slow(delivery: Delivery, context: Context) -> None:
        # what this handler has read by now may be the old state
        meanwhile.append(ping())
        handle(delivery, context)

    shop.consumer._executor.routes = Routes([Destination(COALESCE, slow)])
    assert shop.work(ping())
    assert shop.work(meanwhile[0])


def test_only_a_handler_that_succeeded_counts(shop: Shop) -> None:
    waiting, first = ping(), ping()
    shop.fails = True
    assert shop.work(first)
    shop.fails = False
    assert shop.work(waiting)


@pytest.mark.parametrize(
    "other",
    [
        lambda: ping(b'{"itemId":"2"}', ago=5),
        lambda: msgspec.structs.replace(ping(ago=5), body=b'{"itemId":"1"} '),
    ],
    ids=["another body", "a space more"],
)
def test_only_identical_pings_are_duplicates(shop: Shop, other: object) -> None:
    assert shop.work(ping())
    assert shop.work(other())  # type: ignore[operator]


def test_a_route_that_does_not_ask_works_every_ping(queue: Queue, shop: Shop) -> None:
    plain = Shop(queue, shop.settings, PLAIN)
    waiting = ping()
    assert plain.work(ping())
    assert plain.work(waiting)
    plain.ledger.close()


def test_what_another_handler_has_seen_does_not_count() -> None:
    one, other = ping(), Route(source="mirror", handler=HandlerName("other:handler"), coalesce=True)
    assert duplicates.fingerprint(one, COALESCE) != duplicates.fingerprint(one, other)
    assert duplicates.fingerprint(one, PLAIN) == duplicates.event(one, PLAIN) == ""


def test_the_same_delivery_worked_twice_is_no_duplicate_of_itself(shop: Shop) -> None:
    waiting = ping(ago=5)
    assert shop.work(waiting)
    assert shop.work(waiting)


def test_clocks_that_differ_are_allowed_for(queue: Queue, shop: Shop) -> None:
    careful = Shop(queue, shop.settings, skew=60.0)
    assert careful.work(ping())
    assert careful.work(ping(ago=30)), "received 30 s before, but by a clock that may be a minute behind"
    assert not careful.work(ping(ago=90))
    careful.ledger.close()


def test_a_start_in_the_future_proves_nothing(shop: Shop) -> None:
    """The clock was set back since: who knows what it was earlier than."""
    first = ping()
    now = datetime.now(UTC)
    key = duplicates.fingerprint(first, COALESCE)
    ahead = now + timedelta(hours=1)
    shop.ledger.record(Entry(first.id, "mirror", now, "done", 1, ahead, 0.1, started=ahead, fingerprint=key))
    wait_for(lambda: shop.entry(first) is not None, "the entry")
    assert shop.work(ping(ago=5))


@pytest.mark.parametrize("spoil", ["gone", "garbage", "old"])
def test_where_the_ledger_cannot_be_read_the_handler_runs(shop: Shop, queue: Queue, tmp_path: Path, spoil: str) -> None:
    file = tmp_path / "other" / "ledger.db"
    file.parent.mkdir()
    if spoil == "garbage":
        file.write_bytes(b"no database at all" * 500)
    if spoil == "old":
        with closing(sqlite3.connect(file)) as old:
            old.execute("CREATE TABLE meta (name TEXT, value INTEGER)")
            old.execute("INSERT INTO meta VALUES ('schema', 1)")
            old.commit()
    blind = Shop(queue, LedgerSettings(url=f"sqlite:///{file}"))
    queue.put(envelope.encode(ping(ago=5)))
    assert blind.consumer.work_one(0)
    assert len(blind.seen) == 1
    blind.ledger.close()


def test_one_event_is_worked_once_however_its_pings_differ(queue: Queue, shop: Shop) -> None:
    once = Shop(queue, shop.settings, DEDUPE)
    assert once.work(ping(b"one", event_id="e-1"))
    assert not once.work(ping(b"two, sent again much later", event_id="e-1"))
    assert once.work(ping(b"one", event_id="e-2"))
    assert once.work(ping(b"one"))
    assert once.work(ping(b"one")), "without an id there is nothing to go by"
    once.ledger.close()


def test_an_event_is_worked_again_when_it_failed_or_its_window_is_over(queue: Queue, shop: Shop) -> None:
    once = Shop(queue, shop.settings, DEDUPE, fails=True)
    assert once.work(ping(event_id="e-1"))
    once.fails = False
    assert once.work(ping(event_id="e-1"))
    assert not once.work(ping(event_id="e-1"))
    past = datetime.now(UTC) - timedelta(days=10)
    key = duplicates.event(ping(event_id="e-2"), DEDUPE)
    old = ping(event_id="e-2")
    once.ledger.record(Entry(old.id, "mirror", past, "done", 1, past, 0.1, started=past, event=key))
    wait_for(lambda: once.entry(old) is not None, "the entry")
    assert once.work(ping(event_id="e-2"))
    once.ledger.close()


def test_pools_that_share_a_ledger_work_an_event_once(queue: Queue, shop: Shop) -> None:
    """Each has a connection of its own, as pools on two hosts have. Where the sender gives no id, it is the digest."""
    one, other = Shop(queue, shop.settings, DEDUPE), Shop(queue, shop.settings, DEDUPE)
    digest = "sha256:" + hashlib.sha256(b"the same body").hexdigest()
    assert one.work(ping(b"the same body", event_id=digest))
    assert not other.work(ping(b"the same body", event_id=digest))
    assert other.work(ping(b"one", event_id="e-2"))
    again = ping(b"sent again", event_id="e-2")
    assert not one.work(again)
    entry = one.entry(again)
    assert entry is not None
    assert entry.reason.endswith("was the same event, and is done")
    for each in (one, other):
        each.ledger.close()


def test_what_an_operator_has_replayed_is_worked_though_its_event_was_done(queue: Queue, shop: Shop) -> None:
    once = Shop(queue, shop.settings, DEDUPE)
    first = ping(event_id="e-1")
    assert once.work(first)
    assert once.work(ping(event_id="e-1", replay_of=first.id))
    assert once.work(ping(event_id="e-1", replay_of=first.id)), "each is asked for"
    assert not once.work(ping(event_id="e-1"))
    once.ledger.close()


def test_the_ledger_keeps_the_bodies_of_what_can_be_put_again(queue: Queue, shop: Shop) -> None:
    plain = Shop(queue, shop.settings, PLAIN)
    done, failed = ping(b"\x00\xff done", collection="timeline"), ping(b"failed")
    assert plain.work(done)
    plain.fails = True
    assert plain.work(failed)
    plain.ledger.close()
    with LedgerReader(shop.settings) as reader:
        content = reader.recorded_ping(done.id)
        assert content is not None
        assert (content.source, content.labels, content.body) == ("mirror", done.labels, done.body)
        # should the queue lose it, it can be put again from here
        content = reader.recorded_ping(failed.id)
        assert content is not None
        assert content.body == b"failed"


@pytest.mark.parametrize(("window", "fits"), [("9d", True), ("30d", True), ("31d", False), ("0s", False)])
def test_a_window_is_no_longer_than_the_ledger_remembers(window: str, fits: bool) -> None:
    text = f'[[routes]]\nsource = "mirror"\nhandler = "a:b"\ndedupe_window = "{window}"\n'
    if fits:
        (route,) = parse(text, "glassq.toml").routes
        assert str(route.dedupe_window) == window
        return
    with pytest.raises(SettingsError, match=r"\[\[routes\]\] \(1st\) dedupe_window = .* expected up to 30d"):
        parse(text, "glassq.toml")


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10), st.booleans(), st.sampled_from("ab")),
        min_size=1,
        max_size=12,
    )
)
def test_every_ping_is_seen_by_a_handler_that_began_after_it_came(
    history: list[tuple[int, int, int, bool, str]],
) -> None:
    """Whatever the order in which pings come and are worked, and whichever attempts succeed: no update is lost."""
    zero = datetime(2026, 1, 1, tzinfo=UTC)
    ledger, began = MemoryLedger(), []
    work = [(received + wait, received, long, good, body) for received, wait, long, good, body in history]
    for start, received, long, good, body in sorted(work):
        delivery = msgspec.structs.replace(ping(body.encode()), received=zero + timedelta(seconds=received))
        started = zero + timedelta(seconds=start)
        # the ledger knows what has ended by now
        known = MemoryLedger()
        known.entries = [entry for entry in ledger.entries if entry.updated <= started]
        if duplicates.replaced_by(delivery, COALESCE, known, 0.0):
            assert any(one == body and done and at > received for one, at, done in began)
            continue
        began.append((body, start, good))
        key = duplicates.fingerprint(delivery, COALESCE)
        ended = started + timedelta(seconds=long)
        ledger.record(
            Entry(delivery.id, "mirror", delivery.received, "done" if good else "retrying", 1, ended, float(long),
                  started=started, fingerprint=key)
        )  # fmt: skip
