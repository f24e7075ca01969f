"""The turns of parking tubes, and a route that pauses itself, on a queue of lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.errors import Bury, Drop, QueueUnavailable, Retry
from glassq.policy import Policy
from glassq.routes import Destination
from glassq.settings import ParkingTube, Route, hashed_key, parking_tube
from glassq.values import HandlerName
from glassq.worker import outcome as outcomes
from glassq.worker.executor import Attempt
from glassq.worker.gates.breaker import BreakerRule
from glassq.worker.gates.doorman import Doorman
from glassq.worker.gates.limiter import MIN_TURNS, PAUSE_LOOK, TURNS, GatedLimiter
from glassq.worker.gates.rules import GateRules, KeyRule
from glassq.worker.outcome import Kind
from glassq.worker.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery
    from glassq.worker.gates.breaker import BreakerState

BACKOFF = 30.0
KEYED = Route(source="mirror", handler=HandlerName("m:keyed"), name="keyed")
FRAGILE = Route(source="github", handler=HandlerName("m:fragile"), name="fragile")
RULES = GateRules(
    "t",
    frozenset({"t", "t.queue.pay"}),
    {"keyed": KeyRule("keyed", "user", 1)},
    {"fragile": BreakerRule(3, BACKOFF, 4 * BACKOFF)},
)
POLICY = Policy(max_attempts=8, max_lost=3, backoff=30, backoff_cap=3600)


@dataclass
class Lists:
    """A queue: tubes of deliveries. `paused` are its tubes that an operator has paused."""

    tubes: dict[str, list[Delivery]] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    reserved: list[str] = field(default_factory=list)
    away: bool = False

    def named(self, prefix: str) -> list[str]:
        if self.away:
            raise QueueUnavailable("away")
        return [name for name in self.tubes if name.startswith(prefix)]

    def is_paused(self, tube: str) -> bool:
        return tube in self.paused

    def put(self, tube: str, delivery: Delivery) -> None:
        self.tubes.setdefault(tube, []).append(delivery)


class Pool:
    """Children on one queue. A handler fails with what `fails` returns."""

    def __init__(self, children: int = 2) -> None:
        self.now = 1000.0
        self.queue = Lists()
        self.throttle = Throttle(slots=children, clock=lambda: self.now)
        self.fails: Callable[[Delivery], Exception | None] = lambda delivery: None
        self.limiters = [self._limiter(slot) for slot in range(children)]
        #: what each child has in its hands
        self.holds: dict[int, tuple[str, Delivery, Destination]] = {}
        self.done: list[str] = []
        self.moves = 0
        #: what is to be tried again, and the tubes that it goes back to
        self.retried: list[tuple[str, Delivery]] = []

    def _limiter(self, slot: int) -> GatedLimiter:
        gates = self.throttle.gates
        doorman = Doorman(gates, slot, RULES)
        main = self.throttle.limiter(slot, ["t", "t.queue.pay"], [])
        return GatedLimiter(main, gates, doorman, RULES, self.queue)  # type: ignore[arg-type]

    def put(self, *users: str, tube: str = "t", source: str = "mirror") -> None:
        for user in users:
            self.queue.put(tube, envelope.new(source, b"{}", {"user": user}, tube=tube))

    def open(self) -> dict[str, BreakerState]:
        """The breakers that are open."""
        return self.throttle.gates.breakers.open({"fragile"})

    def begin(self, slot: int) -> str:
        """One round of a child: the user whose delivery it works now, "moved", or "" where nothing came."""
        limiter = self.limiters[slot]
        tubes = limiter.admit().tubes
        jobs = [(self.queue.tubes[tube][0].id, tube) for tube in tubes if self.queue.tubes.get(tube)]
        if not jobs:
            limiter.nothing_came()
            limiter.finish()
            return ""
        tube = min(jobs)[1]
        delivery = self.queue.tubes[tube].pop(0)
        origin = limiter.came_from(tube)
        destination = Destination(KEYED if delivery.source == "mirror" else FRAGILE, lambda delivery, context: None)
        if parking := limiter.holds_back(destination, delivery, origin):
            self.moves += 1
            self.queue.put(parking, delivery)
            limiter.parked(parking)
            limiter.finish()
            return "moved"
        limiter.start(origin)
        self.holds[slot] = (origin, delivery, destination)
        return delivery.labels["user"]

    def next(self, slot: int) -> str:
        """The user whose delivery the child works next; "" where it finds none in a few rounds."""
        return next((user for _ in range(4) if (user := self.begin(slot)) not in ("", "moved")), "")

    def end(self, slot: int) -> Attempt:
        """Its handler ends."""
        origin, delivery, destination = self.holds.pop(slot)
        limiter, error = self.limiters[slot], self.fails(delivery)
        attempt = Attempt(delivery, outcomes.done(None))
        if error is not None:
            outcome = outcomes.decide(error, delivery, POLICY)
            attempt = Attempt(delivery, outcome, 0.1, outcomes.evidence_of(error, delivery, outcome, 0.1), error=error)
        attempt = limiter.judge(destination, attempt)
        if attempt.outcome.kind is Kind.DONE:
            self.done.append(delivery.labels["user"])
        elif attempt.outcome.kind is Kind.RETRY:
            self.retried.append((origin, attempt.following))
        limiter.finish()
        return attempt

    def work(self, slot: int, rounds: int = 1000) -> list[str]:
        """Works one after the other until nothing comes twice; the users of those that were worked."""
        worked, idle = [], 0
        for _ in range(rounds):
            user = self.begin(slot)
            idle = 0 if user else idle + 1
            if user not in ("", "moved"):
                self.end(slot)
                worked.append(user)
            if idle > 2:
                break
        return worked

    def due(self) -> None:
        """What failed is ready again."""
        while self.retried:
            self.queue.put(*self.retried.pop(0))

    def parked(self) -> int:
        return sum(len(jobs) for tube, jobs in self.queue.tubes.items() if parking_tube("t", tube))


def key(user: str) -> str:
    return ParkingTube("t", "keyed", hashed_key("keyed", user)).name


def test_one_of_a_key_at_a_time_and_each_is_moved_once() -> None:
    pool = Pool()
    pool.put(*["hot"] * 50)
    assert pool.begin(0) == "hot"
    assert pool.work(1) == []
    assert (pool.parked(), pool.moves) == (49, 49)
    pool.end(0)
    assert pool.work(1) == ["hot"] * 49
    assert (pool.parked(), pool.moves) == (0, 49)
    assert pool.throttle.gates.parked.used == 0
    assert pool.limiters[0].patient


def test_a_look_at_what_is_parked_that_fails_is_made_again_at_once() -> None:
    pool = Pool()
    pool.queue.put(key("hot"), envelope.new("mirror", b"{}", {"user": "hot"}))
    pool.queue.away = True
    with pytest.raises(QueueUnavailable):
        pool.limiters[0].admit()
    pool.limiters[0].finish()
    pool.queue.away = False
    assert pool.next(1) == "hot"


def test_a_key_with_many_waiting_has_a_small_share_and_others_go_on() -> None:
    pool = Pool(1)
    gates = pool.throttle.gates
    gates.keys.take(0, 0, 1)
    for _ in range(1000):
        pool.queue.put(key("hot"), envelope.new("mirror", b"{}", {"user": "hot"}))
    pool.put(*[f"user-{number}" for number in range(480)])
    worked = pool.work(0, rounds=500)
    assert worked.count("hot") in range(500 // TURNS - 1, 500 // TURNS + 2)
    assert pool.work(0, rounds=2000).count("hot") > 900, "the rest, once nothing else is there"


def test_parked_keys_share_half_of_the_turns_at_most() -> None:
    pool = Pool(1)
    for user in map(str, range(100)):
        for _ in range(10):
            pool.queue.put(key(user), envelope.new("mirror", b"{}", {"user": user}))
    pool.put(*[f"user-{number}" for number in range(200)])
    worked = pool.work(0, rounds=200)
    parked = [user for user in worked if not user.startswith("user-")]
    assert len(parked) in range(200 // MIN_TURNS - 5, 200 // MIN_TURNS + 1)
    assert len(set(parked)) > 90, "each in turn"


def test_what_has_no_such_label_has_no_limit() -> None:
    pool = Pool()
    for _ in range(2):
        pool.queue.put("t", envelope.new("mirror", b"{}", {"other": "x", "user": "a"}))
    assert pool.begin(0) == "a"
    pool.queue.tubes["t"].clear()
    nobody = envelope.new("mirror", b"{}", {})
    destination = Destination(KEYED, lambda delivery, context: None)
    assert [limiter.holds_back(destination, nobody, "t") for limiter in pool.limiters] == ["", ""]


def test_a_holder_that_dies_is_waited_for_until_the_parent_has_seen_it() -> None:
    pool = Pool()
    pool.put("hot", "hot")
    assert pool.begin(0) == "hot"
    assert pool.begin(1) == "moved"
    assert pool.begin(1) == ""
    pool.throttle.clear(0)
    assert pool.work(1) == ["hot"]


@pytest.mark.parametrize("origin", ["t", "t.queue.pay", "t.queue.gone"])
def test_what_an_earlier_pool_has_parked_is_found_and_goes_back_to_its_origin(origin: str) -> None:
    pool = Pool(1)
    tube = ParkingTube(origin, "keyed", hashed_key("keyed", "a")).name
    pool.queue.put(tube, envelope.new("mirror", b"{}", {"user": "a"}))
    pool.queue.put(f"{origin}.held.gone", envelope.new("mirror", b"{}", {"user": "b"}))
    pool.fails = lambda delivery: Retry("no")
    assert sorted(pool.work(0)) == ["a", "b"]
    assert {(tube, each.labels["user"]) for tube, each in pool.retried} == {(origin, "a"), (origin, "b")}


def test_what_a_paused_tube_has_parked_waits_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(1)
    pool.queue.put(key("a"), envelope.new("mirror", b"{}", {"user": "a"}))
    pool.queue.paused.add("t")
    assert pool.work(0) == []
    assert not pool.limiters[0].patient, "it looks again"
    pool.queue.paused.clear()
    monkeypatch.setattr("glassq.worker.gates.limiter.PAUSE_LOOK", 0.0)
    pool.limiters[0]._paused.clear()
    assert pool.work(0) == ["a"]
    assert PAUSE_LOOK <= 1.0


def fail(*causes: str) -> Callable[[Delivery], Exception | None]:
    """Fails by these causes in turn, "" for a success, and by the last one from then on."""
    left = list(causes)
    return lambda delivery: None if not (cause := left.pop(0) if len(left) > 1 else left[0]) else Retry(cause)


def test_a_route_pauses_itself_probes_and_goes_on() -> None:
    pool = Pool(1)
    pool.put(*map(str, range(10)), source="github")
    pool.fails = fail("a", "b", "b", "", "c")
    assert pool.work(0, rounds=7) == [*map(str, range(7))]
    found = pool.open()["fragile"]
    assert (found.failures, found.why, found.due) == (3, "Retry: c", pool.now + BACKOFF)
    # no attempt is burnt meanwhile
    pool.due()
    assert pool.work(0) == []
    assert pool.parked() == 9
    assert max(each.failures for each in pool.queue.tubes["t.held.fragile"]) == 1
    # one probe at a time, and one a backoff
    pool.now += BACKOFF
    assert pool.next(0) == "7"
    attempt = pool.end(0)
    assert (attempt.outcome.kind, attempt.outcome.counts) == (Kind.RETRY, False)
    assert attempt.outcome.delay >= 2 * BACKOFF
    assert pool.work(0) == []
    pool.now += 2 * BACKOFF
    pool.due()
    pool.fails = fail("")
    assert len(pool.work(0)) == 9
    assert pool.parked() == 0
    assert pool.open() == {}


def test_one_probe_runs_at_a_time_and_another_follows_where_its_child_died() -> None:
    pool = Pool(2)
    pool.put(*map(str, range(8)), source="github")
    pool.fails = fail("a")
    assert len(pool.work(0, rounds=3)) == 3
    assert pool.work(1) == []
    pool.now += BACKOFF
    assert pool.next(0)
    pool.now += 100 * BACKOFF
    assert pool.work(1) == [], "the first one still runs"
    pool.throttle.clear(0)
    pool.fails = fail("")
    assert len(pool.work(1)) == 4


@pytest.mark.parametrize(
    ("error", "counts"),
    [(Bury("never"), False), (Drop("spoofed"), False), (Retry("later", counts=False), False), (ValueError("x"), True)],
)
def test_only_failures_count(error: Exception, *, counts: bool) -> None:
    pool = Pool(1)
    pool.put(*"abc", source="github")
    pool.fails = lambda delivery: error
    pool.work(0, rounds=3)
    assert bool(pool.open()) is counts


def test_deliveries_whose_budget_is_spent_count_and_another_route_does_not_care() -> None:
    pool = Pool(1)
    pool.put(*"abc", source="github")
    pool.fails = lambda delivery: OSError("down")
    tired = [envelope.new("github", b"{}", {"user": "x"}) for _ in range(3)]
    pool.queue.tubes["t"] = [type(each)(**{**_fields(each), "failures": 7}) for each in tired]
    pool.work(0, rounds=3)
    assert list(pool.open()) == ["fragile"]
    pool.fails = lambda delivery: None
    pool.put("y", source="mirror")
    assert pool.work(0) == ["y"]


def _fields(delivery: Delivery) -> dict[str, object]:
    return {name: getattr(delivery, name) for name in delivery.__struct_fields__}
