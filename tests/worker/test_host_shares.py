"""Limits over all hosts: their shares are never more than the limit together, and follow who has work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq.database.key_locks import KeyLocks
from glassq.database.postgres import PostgresSession
from glassq.database.shares import ShareTable
from glassq.host import run_name
from glassq.programs import sharing
from glassq.programs.sharing import Sharing
from glassq.settings import QueueSettings, Settings
from glassq.worker import bucket
from glassq.worker.bucket import UNLIMITED, Limit
from glassq.worker.host_shares import HostShare, local_limit, next_share
from glassq.worker.throttle import Throttle
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.values import QueueUrl
    from glassq.worker.throttle import TubeLimiter
    from tests.postgres import PostgresServer

BOTH = Limit("t", 10.0, 5, 4, shared=True)


def share(host: str = "b", rate: float = 0.0, slots: int = 0, **more: float) -> HostShare:
    return HostShare(host, rate, slots, more.get("rate", 0.0), int(more.get("in_use", 0)), bool(more.get("hungry", 0)))


@pytest.mark.parametrize(
    ("own", "others", "rate", "slots"),
    [
        # alone it has all
        (share("a"), [], 10.0, 4),
        # two that want nothing, or the same, have half each, as far as the other one has given up
        (share("a"), [share("b", 5.0, 2)], 5.0, 2),
        (share("a", hungry=1), [share("b", 5.0, 2, hungry=1)], 5.0, 2),
        (share("a", hungry=1), [share("b", 10.0, 4, hungry=1)], 0.0, 0),
        (share("b", 10.0, 4, hungry=1), [share("a", 0.0, 0, hungry=1)], 5.0, 2),
        # who wants no more leaves the rest to who does, and keeps what it uses
        (share("a", 5.0, 2, hungry=1), [share("b", 5.0, 2)], 5.0, 2),
        (share("b", 5.0, 2), [share("a", 5.0, 2, hungry=1)], 0.2, 0),
        (share("b", 5.0, 2, in_use=1), [share("a", 5.0, 2, hungry=1)], 0.2, 1),
        (share("a", 5.0, 2, hungry=1), [share("b", 0.2, 0)], 9.8, 4),
        # three share four places: the first by name has one more
        (share("a"), [share("b", 0, 1), share("c", 0, 1)], 10 / 3, 2),
        (share("c"), [share("a", 0, 2), share("b", 0, 1)], 10 / 3, 1),
    ],
)
def test_what_a_host_takes(own: HostShare, others: list[HostShare], rate: float, slots: int) -> None:
    found = next_share(BOTH, own, others)
    assert (found.rate, found.slots) == (pytest.approx(rate), slots)


def test_without_a_rate_or_places_a_share_has_none() -> None:
    places = Limit("t", UNLIMITED, 3, 3, shared=True)
    found = next_share(places, share("a"), [share("b", 0, 1)])
    assert local_limit(places, found) == Limit("t", UNLIMITED, 3, 2, shared=True)
    rate = Limit("t", 8.0, 4, None, shared=True)
    found = next_share(rate, share("a"), [share("b", 2.0, 0, hungry=1)])
    assert local_limit(rate, found) == Limit("t", pytest.approx(0.16), 1, None, shared=True)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 9), st.floats(0, 30)), max_size=40))
def test_all_shares_together_are_never_more_than_the_limit(acts: list[tuple[str, bool, int, float]]) -> None:
    shares: dict[str, HostShare] = {}
    for name, hungry, in_use, used in acts:
        before = shares.get(name, HostShare(name))
        # what runs within a share is never more than that
        own = HostShare(name, before.rate, before.slots, used, min(in_use, before.slots), hungry)
        wanted = next_share(BOTH, own, [other for key, other in shares.items() if key != name])
        shares[name] = HostShare(name, wanted.rate, max(wanted.slots, own.used_slots), used, own.used_slots, hungry)
        assert sum(each.slots for each in shares.values()) <= 4
        assert sum(each.rate for each in shares.values()) <= 10 + 1e-6


class Host:
    """A pool's limits on one host, with one child; `step` is what the process beside the children does."""

    def __init__(self, url: QueueUrl, name: str, limit: Limit, children: int = 3) -> None:
        self.throttle = Throttle(slots=8, tubes=4)
        self.throttle.set([limit])
        self.session = PostgresSession(url, name="glassq limits", connect_timeout=5, timeout=5)
        self.sharing = Sharing(ShareTable(self.session, name), [limit], self.throttle, name)
        self.children = [self.throttle.limiter(slot, [], [limit.tube]) for slot in range(children)]

    def step(self) -> None:
        self.sharing.step()

    def running(self, child: TubeLimiter) -> bool:
        """Has the child begin an attempt, if it may."""
        if not child.admit().tubes:
            child.release_tokens()
            return False
        child.start("t")
        return True


@pytest.fixture
def url(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> QueueUrl:
    # on a busy machine a step may come late
    monkeypatch.setattr(sharing, "OURS", 60.0)
    monkeypatch.setattr("glassq.database.shares.VALID", 60.0)
    return postgres.url(postgres.database())


@pytest.fixture
def hosts(url: QueueUrl) -> Iterator[list[Host]]:
    made = [Host(url, name, Limit("t", UNLIMITED, 4, 4, shared=True)) for name in ("a", "b")]
    yield made
    for host in made:
        host.session.close()


def test_two_hosts_never_run_more_at_once_than_the_limit(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    # who has wanted more once is hungry for good
    monkeypatch.setattr(bucket, "_ASKS", 1e9)
    a, b = hosts
    a.step()
    assert [a.running(child) for child in a.children] == [True] * 3
    # nothing begins before the host has a share, and what runs at a is a's
    assert [b.running(child) for child in b.children] == [False] * 3
    b.step()
    a.step()
    b.step()
    assert [b.running(child) for child in b.children] == [True, False, False]
    # b wants more, a nothing: its places go over
    for child in a.children:
        child.finish()
    a.step()
    b.step()
    assert [b.running(child) for child in b.children[1:]] == [True, True]
    # and come back when b may not begin another one
    assert [a.running(child) for child in a.children] == [False] * 3
    a.step()
    b.step()
    a.step()
    assert [a.running(child) for child in a.children] == [True, False, False]


def test_two_pools_with_one_host_name_do_not_take_each_others_share(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr(sharing, "run", lambda settings, limits, throttle, parent, name: names.append(name))
    settings = Settings(queue=QueueSettings(url=postgres.url()))
    for _ in range(2):
        main = sharing.main_of(settings, [BOTH])
        assert main is not None
        main(Throttle())
        # another process, which may have the same pid in its own container
        run_name.cache_clear()
    assert len(set(names)) == 2


def test_the_places_of_a_host_that_says_nothing_any_more_go_to_the_others(
    url: QueueUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassq.database.shares.VALID", 0.3)
    one = Limit("t", UNLIMITED, 1, 1, shared=True)
    a, b = Host(url, "a", one), Host(url, "b", one)
    a.step()
    assert a.running(a.children[0])

    def b_may() -> bool:
        b.step()
        return b.running(b.children[0])

    wait_for(b_may, "the share of a host that is dead to run out")
    a.session.close()
    b.session.close()


def test_the_rate_of_two_hosts_together_is_that_of_the_limit(url: QueueUrl) -> None:
    fast = Limit("t", 200.0, 10, None, shared=True)
    both = [Host(url, name, fast) for name in ("a", "b")]
    for _ in range(2):
        for host in both:
            host.step()
    begun, began, step_at = {0: 0, 1: 0}, time.monotonic(), 0.0
    while (now := time.monotonic()) - began < 1.0:
        for number, host in enumerate(both):
            if now >= step_at:
                host.step()
            if host.running(host.children[0]):
                begun[number] += 1
                host.children[0].finish()
        step_at = now + 0.2 if now >= step_at else step_at
    # each bucket was full, and has room for one at least
    most = fast.bucket + len(both) + fast.rate * (time.monotonic() - began)
    assert sum(begun.values()) <= most
    assert min(begun.values()) > 0
    for host in both:
        host.session.close()


def test_while_the_database_is_away_nothing_begins_once_the_share_has_run_out(
    postgres: PostgresServer, url: QueueUrl, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "OURS", 0.2)
    host = Host(url, "a", Limit("t", UNLIMITED, 2, 2, shared=True))
    host.step()
    postgres.execute("ALTER TABLE glassq_shares RENAME TO away", url.rpartition("/")[2])
    for _ in range(2):
        host.step()
    assert caplog.text.count("limits over all hosts cannot be asked for") == 1

    def stopped() -> bool:
        if not host.running(host.children[0]):
            return True
        host.children[0].finish()
        return False

    wait_for(stopped, "the share to run out")
    postgres.execute("ALTER TABLE away RENAME TO glassq_shares", url.rpartition("/")[2])

    def goes_on() -> bool:
        host.step()
        return host.running(host.children[0])

    wait_for(goes_on, "the share to be taken again")
    host.session.close()


def test_a_key_is_worked_by_so_many_children_of_all_hosts_and_freed_by_their_end(url: QueueUrl) -> None:
    locks = [KeyLocks(PostgresSession(url, name="glassq keys", connect_timeout=5, timeout=5)) for _ in range(3)]
    assert [each.take("k", 2) for each in locks] == [True, True, False]
    assert locks[2].take("other", 1)
    locks[0].free()
    assert locks[2].take("k", 2)
    # what it held is free
    assert locks[0].take("other", 1)
    # a connection's end is enough
    locks[1].close()
    wait_for(lambda: locks[0].take("k", 2), "the server to see that a connection has ended")
    for each in locks:
        each.close()


def test_a_key_that_nobody_can_ask_for_is_not_worked(postgres: PostgresServer) -> None:
    away = KeyLocks(PostgresSession(postgres.url("nowhere"), name="glassq keys", connect_timeout=5, timeout=5))
    assert not away.take("k", 1)
    away.free()
    away.close()
