"""Gates of routes in shared memory: what each part does, and what deaths at any line leave behind."""

from __future__ import annotations

import mmap
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassq import delivery as envelope
from glassq.settings import ParkingTube, hashed_key, parking_tube
from glassq.worker.bucket import ProcessLock
from glassq.worker.gates.breaker import (
    CLOSED,
    BreakerRule,
    BreakerState,
    after_failure,
    after_probe_began,
)
from glassq.worker.gates.claims import SlotWords, count
from glassq.worker.gates.doorman import Doorman
from glassq.worker.gates.parked import MAX_PARKED, PARKED_BYTES, ParkedTubes
from glassq.worker.gates.rows import MAX_ROWS, ROWS_BYTES, BreakerRows
from glassq.worker.gates.rules import GateRules, KeyRule
from glassq.worker.gates.shared import LOOK, LOOK_FOR_MORE, Gates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.delivery import Delivery

RULE = BreakerRule(failures=3, backoff=30.0, backoff_cap=100.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def used(slots: int) -> memoryview:
    """Says that all of so many slots may have a child."""
    return memoryview(slots.to_bytes(8, sys.byteorder)).cast("Q")


# -- names of tubes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tube", "expected"),
    [
        ("glassq", None),
        ("glassq.queue.pay", None),
        ("glassq.key.sync.0123456789abcdef", ParkingTube("glassq", "sync", "0123456789abcdef")),
        ("glassq.push.mail.key.a-b.0123456789abcdef", ParkingTube("glassq.push.mail", "a-b", "0123456789abcdef")),
        ("glassq.queue.pay.held.sync", ParkingTube("glassq.queue.pay", "sync")),
        ("glassq.route.x.held.x", ParkingTube("glassq.route.x", "x")),
        ("glassq.key.sync.0123456789abcde", None),
        ("glassq.key.Sync.0123456789abcdef", None),
        ("glassq2.held.sync", None),
        ("other.held.sync", None),
        # [queue] tube of somebody else, or of this pool
        ("held.sync", None),
    ],
)
def test_a_parking_tube_is_told_by_its_name(tube: str, expected: ParkingTube | None) -> None:
    assert parking_tube("glassq", tube) == expected
    if expected is not None:
        assert expected.name == tube


def test_a_main_tube_that_is_named_like_a_parking_tube_is_none() -> None:
    assert parking_tube("a.held.b", "a.held.b") is None
    assert parking_tube("a.held.b", "a.held.b.held.c") == ParkingTube("a.held.b", "c")


def test_a_key_is_of_a_route_and_of_any_label() -> None:
    assert hashed_key("a", "1") != hashed_key("b", "1")
    assert hashed_key("a", "\udcff") != hashed_key("a", "")
    assert KeyRule("a", "user", 1).key(ping(None)) == ""


# -- words -------------------------------------------------------------------------------------------------------------


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, sys.byteorder) for number in numbers)


@pytest.mark.parametrize(
    ("numbers", "word", "expected"),
    [
        ((), 5, 0),
        ((5, 0, 5), 5, 2),
        ((5, 0, 5), 0, 1),
        # the same bytes, across two words
        ((0x0505050500000000, 0x0000000005050505), 0x0505050505050505, 0),
        ((0x0505050500000000, 0x0505050505050505), 0x0505050505050505, 1),
        ((0, 0, 0), 0, 3),
    ],
)
def test_words_are_counted_and_halves_of_them_are_not(numbers: tuple[int, ...], word: int, expected: int) -> None:
    assert count(words(*numbers), word) == expected


def test_a_key_is_claimed_by_so_many_slots_and_a_slot_has_one_claim() -> None:
    claims = SlotWords(memoryview(bytearray(8 * 4)).cast("Q"), used(4))
    assert claims.take(0, 7, 2)
    assert claims.take(0, 7, 1), "it is this slot's already"
    assert claims.take(1, 7, 2)
    assert not claims.take(2, 7, 2)
    assert claims.take(1, 8, 1), "its claim on 7 ends"
    assert claims.take(2, 7, 2)
    claims.clear(0)
    assert [claims.of(slot) for slot in range(4)] == [0, 8, 7, 0]


# -- the table of parked tubes -----------------------------------------------------------------------------------------


@pytest.fixture
def table() -> ParkedTubes:
    return ParkedTubes(mmap.mmap(-1, PARKED_BYTES), 0)


def names(table: ParkedTubes, start: int = -1, most: int = MAX_PARKED) -> list[str]:
    return [entry.tube for entry in table.look(start, most)]


def test_tubes_are_looked_at_in_turn(table: ParkedTubes) -> None:
    assert names(table) == []
    for tube in "abc":
        table.add(tube)
    assert names(table) == ["a", "b", "c"]
    assert names(table, start=0) == ["b", "c", "a"]
    assert names(table, start=2) == ["a", "b", "c"]
    assert names(table, start=0, most=1) == ["b"]
    assert [table.has(tube) for tube in "abcd"] == [True, True, True, False]


def test_an_empty_tube_is_taken_out_and_its_place_is_used_again(table: ParkedTubes) -> None:
    for tube in "abc":
        table.add(tube)
    first, _, last = table.look(-1, 3)
    table.remove(first)
    table.remove(first)
    assert names(table) == ["b", "c"]
    assert not table.has("a")
    table.add("d")
    assert names(table) == ["d", "b", "c"]
    table.remove(first)
    assert table.has("d"), "its place is another one's"
    table.remove(last)
    assert table.used == 2
    for entry in list(table.look(-1, 3)):
        table.remove(entry)
    assert table.used == 0


def test_a_tube_stays_where_something_was_parked_since_it_was_looked_at(table: ParkedTubes) -> None:
    table.add("a")
    (seen,) = table.look(-1, 1)
    table.add("a")
    table.remove(seen)
    assert names(table) == ["a"]
    (seen,) = table.look(-1, 1)
    table.remove(seen)
    assert names(table) == []


def test_a_full_table_takes_no_more(table: ParkedTubes) -> None:
    assert all(table.add(str(number)) for number in range(MAX_PARKED))
    assert not table.add("one more")
    assert table.add("7"), "it is there"
    table.remove(next(table.look(6, 1)))
    assert table.add("one more")
    assert names(table, start=6, most=1) == ["one more"]


def test_a_look_for_tubes_is_due_at_the_start_after_a_death_and_now_and_then() -> None:
    clock = Clock()
    gates = Gates(2, ProcessLock(), used(2), clock)
    assert [gates.look_is_due(), gates.look_is_due()] == [True, False]
    gates.clear(1)
    assert [gates.look_is_due(), gates.look_is_due()] == [True, False]
    clock.now += LOOK
    assert [gates.look_is_due(), gates.look_is_due()] == [True, False]
    for number in range(MAX_PARKED + 1):
        assert gates.note(str(number))
    clock.now += LOOK_FOR_MORE
    assert [gates.look_is_due(), gates.look_is_due()] == [True, False]
    clock.now += LOOK_FOR_MORE
    assert not gates.look_is_due(), "it was not full since"


# -- breakers ----------------------------------------------------------------------------------------------------------

ROW = [
    # cause, is it a probe; failures, is it open
    (1, False, 1, False),
    (1, False, 2, False),
    (2, False, 1, False),
    (2, False, 2, False),
    (2, False, 3, True),
    (2, False, 3, True),
    (9, False, 3, True),
    (9, True, 3, True),
]


def test_failures_of_one_cause_in_a_row_open_it() -> None:
    state = CLOSED
    for number, (cause, probe, failures, is_open) in enumerate(ROW):
        state = after_failure(state, cause, f"why {cause}", RULE, now=float(number), wall=500.0 + number, probe=probe)
        assert (state.failures, state.is_open) == (failures, is_open), number
    assert state.since == 504.0
    assert state.why == "why 9", "that of the last probe"


def test_pauses_before_probes_grow_to_the_cap() -> None:
    state = BreakerState(3, 1, since=1.0, due=30.0)
    due = []
    for now in (30.0, 200.0, 400.0):
        began = after_probe_began(state, RULE, now)
        due.append(began.due - now)
        state = after_failure(began, 1, "", RULE, now=now + 1, wall=0.0, probe=True)
        due.append(state.due - now - 1)
    assert due == [60.0, 60.0, 100.0, 100.0, 100.0, 100.0]


def test_rows_are_found_by_the_names_of_routes_and_keep_their_states() -> None:
    memory = mmap.mmap(-1, 8 + ROWS_BYTES)
    rows = BreakerRows(memory, 8)
    assert rows.open({"a"}) == {}
    state = BreakerState(20, (1 << 64) - 1, 1.5e9, 77.5, 3, "ü" * 200)
    for route in ("a", "b"):
        row = rows.row(route)
        assert row is not None
        assert row.read() == CLOSED
        row.write(state)
        row.write(state)
    again = BreakerRows(memory, 8).row("b")
    assert again is not None
    kept = again.read()
    assert (kept.failures, kept.cause, kept.since, kept.due, kept.probes) == (20, (1 << 64) - 1, 1.5e9, 77.5, 3)
    assert set(kept.why) == {"ü"}
    again.write(CLOSED)
    assert list(rows.open({"a", "b"})) == ["a"]
    assert rows.open({"b", "new"}) == {}, "a route that is gone, or has lost its breaker, is not paused"
    assert all(rows.row(f"r{number}") for number in range(MAX_ROWS - 2))
    assert rows.row("one more") is None


# -- deaths ------------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process ends here."""


@contextmanager
def dying(after: int) -> Iterator[None]:
    """Ends what runs inside the gates after so many lines of theirs; what it holds is the kernel's to free."""
    left = after

    def trace(frame: Any, event: str, _arg: object) -> Any:
        nonlocal left
        if "/worker/gates/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Died
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    except Died:
        pass
    finally:
        sys.settrace(before)


def ping(user: str | None) -> Delivery:
    return envelope.new("mirror", b"", {} if user is None else {"user": user})


SLOTS, MOST = 4, 2
RULES = GateRules("t", frozenset({"t"}), {"r": KeyRule("r", "user", MOST)}, {})
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "serve", "end", "die"]),
        st.integers(0, SLOTS - 1),
        st.sampled_from(["anna", "otto"]),
        st.integers(0, 40),
    ),
    max_size=40,
)


class Pool:
    """Children that work deliveries of keys, as far as the gates let them. `works` says which slot works what."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self.gates = Gates(SLOTS, self._lock, used(SLOTS))
        self.doormen = [Doorman(self.gates, slot, RULES) for slot in range(SLOTS)]
        self.works: dict[int, str] = {}
        #: by key, how many deliveries are parked
        self.parked = {"anna": 0, "otto": 0}

    def come(self, slot: int, user: str) -> None:
        """A delivery comes from the common tube."""
        if slot in self.works:
            return
        parked = self.doormen[slot].holds_back("r", ping(user), "t", None)
        if parked is None:
            self.works[slot] = user
            return
        assert parked == tube_of(user)
        # it is put before it is noted
        self.parked[user] += 1
        self.gates.note(parked.name)

    def serve(self, slot: int, user: str) -> None:
        """The child has found the parking tube in the table, and reserves from it if it may."""
        tube = tube_of(user)
        if slot in self.works or not self.gates.parked.has(tube.name):
            return
        entry = next(entry for entry in self.gates.parked.look(-1, MAX_PARKED) if entry.tube == tube.name)
        doorman = self.doormen[slot]
        if not doorman.claim(tube):
            return
        if not self.parked[user]:
            with self.gates.locked():
                self.gates.parked.remove(entry)
            doorman.release()
            return
        self.parked[user] -= 1
        assert doorman.holds_back("r", ping(user), "t", tube) is None
        self.works[slot] = user

    def end(self, slot: int) -> None:
        self.works.pop(slot, None)
        self.doormen[slot].release()

    def die(self, slot: int) -> None:
        """The kernel frees its lock; what it worked is ready again; then the parent notices."""
        if self._lock._threads.locked():
            self._lock.release()
        if user := self.works.pop(slot, None):
            self.parked[user] += 1
        self.gates.clear(slot)


def tube_of(user: str) -> ParkingTube:
    return ParkingTube("t", "r", hashed_key("r", user))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_no_more_than_so_many_of_one_key_and_nothing_is_forgotten_whenever_children_die(
    steps: list[tuple[str, int, str, int]],
) -> None:
    pool = Pool()
    pool.gates.look_is_due()
    for what, slot, user, lines in steps:
        if what == "die":
            with dying(lines):
                (pool.come if lines % 2 else pool.serve)(slot, user)
            pool.die(slot)
        elif what == "end":
            pool.end(slot)
        else:
            (pool.come if what == "come" else pool.serve)(slot, user)
        if pool.gates.look_is_due():
            for each, many in pool.parked.items():
                if many:
                    pool.gates.note(tube_of(each).name)
        for each in ("anna", "otto"):
            assert list(pool.works.values()).count(each) <= MOST
            assert not pool.parked[each] or pool.gates.parked.has(tube_of(each).name), "nobody would serve it"
    for slot in list(pool.works):
        pool.end(slot)
    while any(pool.parked.values()):
        left = sum(pool.parked.values())
        for user in pool.parked:
            pool.serve(0, user)
            pool.end(0)
        assert sum(pool.parked.values()) < left, "it waits for ever"
