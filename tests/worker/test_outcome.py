from __future__ import annotations

import json
import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq import delivery as envelope
from glassq import lifecycle
from glassq.delivery import MAX_DETAIL, MAX_MESSAGE, MAX_TRACEBACK, Delivery, Evidence
from glassq.errors import Bury, DeadlineExceeded, Drop, Interrupted, LeaseLost, Retry
from glassq.policy import MIN_DELAY, Policy
from glassq.routes import Context, Destination
from glassq.settings import Route, Settings
from glassq.values import HandlerName
from glassq.worker import outcome as outcomes
from glassq.worker.outcome import MAX_DELAY, MAX_POLICY_DELAY, Kind, Outcome, decide

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = Policy(max_attempts=4, max_lost=3, backoff=30, backoff_cap=3600)


def delivery(**fields: object) -> Delivery:
    return msgspec.structs.replace(envelope.new("mirror", b"{}", {}), **fields)


FRESH, LAST = delivery(), delivery(attempt=9, failures=POLICY.max_attempts - 1)

# what the handler raised, on which delivery, and what it comes to: kind, reason, counts
TABLE: list[tuple[BaseException, Delivery, Kind, str, bool]] = [
    (Drop("spoofed"), FRESH, Kind.DROPPED, "spoofed", True),
    (Drop("spoofed"), LAST, Kind.DROPPED, "spoofed", True),
    (Bury("consent revoked"), FRESH, Kind.BURY, "consent revoked", True),
    (Retry("busy"), FRESH, Kind.RETRY, "busy", True),
    (Retry("busy"), LAST, Kind.BURY, "busy (gave up after 4 attempts)", True),
    (Retry("busy", 9), LAST, Kind.BURY, "busy (gave up after 4 attempts)", True),
    (Retry("not ready", counts=False), FRESH, Kind.RETRY, "not ready", False),
    (Retry("not ready", counts=False), LAST, Kind.RETRY, "not ready", False),
    (ValueError("no"), FRESH, Kind.RETRY, "ValueError: no", True),
    (ValueError(), FRESH, Kind.RETRY, "ValueError", True),
    (ValueError("no"), LAST, Kind.BURY, "ValueError: no (gave up after 4 attempts)", True),
    (SystemExit(3), FRESH, Kind.RETRY, "SystemExit: 3", True),
    (KeyboardInterrupt(), FRESH, Kind.RETRY, "KeyboardInterrupt", True),
    (MemoryError(), LAST, Kind.BURY, "MemoryError (gave up after 4 attempts)", True),
    (DeadlineExceeded(), FRESH, Kind.RETRY, "the handler overran its deadline", True),
    (DeadlineExceeded(), LAST, Kind.BURY, "the handler overran its deadline (gave up after 4 attempts)", True),
    (Interrupted(), FRESH, Kind.INTERRUPTED, "the pool stopped", True),
    (Interrupted(), LAST, Kind.INTERRUPTED, "the pool stopped", True),
    (LeaseLost(), LAST, Kind.LEASE_LOST, "the job is no longer ours", True),
]


@pytest.mark.parametrize(("error", "on", "kind", "reason", "counts"), TABLE)
def test_what_a_handler_raises_comes_to(
    error: BaseException, on: Delivery, kind: Kind, reason: str, counts: bool
) -> None:
    outcome = decide(error, on, POLICY)
    assert (outcome.kind, outcome.reason, outcome.counts) == (kind, reason, counts)
    assert (outcome.delay >= MIN_DELAY) == (kind is Kind.RETRY)


def test_a_handler_that_returns_is_done_with_its_result() -> None:
    assert outcomes.done({"urls": 2}) == Outcome(Kind.DONE, result={"urls": 2})


# -- when it is tried again -----------------------------------------------------------------------------------------

policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 100),
    max_lost=st.integers(1, 10),
    backoff=st.floats(1, 3600),
    backoff_cap=st.floats(3600, 1e6),
)


@given(policies, st.integers(1, 10**6), st.floats(0, 1))
def test_a_backoff_is_never_below_a_second_and_never_above_the_cap(policy: Policy, failures: int, luck: float) -> None:
    delay = policy.delay(failures, lambda low, high: low + (high - low) * luck)
    assert MIN_DELAY <= delay <= policy.backoff_cap


@given(policies, st.integers(1, 40))
def test_the_longest_backoff_doubles_up_to_the_cap(policy: Policy, failures: int) -> None:
    longest = policy.delay(failures, lambda _, high: high)
    following = policy.delay(failures + 1, lambda _, high: high)
    assert following == pytest.approx(min(policy.backoff_cap, 2 * longest))


def test_jitter_is_full_half_the_ceiling_in_the_mean_and_spread_over_all_of_it() -> None:
    chance = random.Random(7)
    delays = [POLICY.delay(3, chance.uniform) for _ in range(20_000)]
    assert sum(delays) / len(delays) == pytest.approx(60, rel=0.03)
    assert min(delays) < 3
    assert max(delays) > 117


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        (0, MIN_DELAY),
        (-5, MIN_DELAY),
        (7, 7),
        (7.5, 7.5),
        (float("inf"), MAX_DELAY),
        (1e300, MAX_DELAY),
        pytest.param(10**400, MAX_DELAY, id="huge"),
    ],
)
def test_a_delay_that_a_handler_asks_for_wins_over_backoff_within_bounds(
    asked: float, given_: float, counts: bool
) -> None:
    assert decide(Retry("later", asked, counts=counts), FRESH, POLICY).delay == given_


@pytest.mark.parametrize("asked", [float("nan"), "120", timedelta(seconds=5), None])
def test_a_delay_that_is_no_number_leaves_it_to_the_backoff(asked: float) -> None:
    assert MIN_DELAY <= decide(Retry("later", asked), FRESH, POLICY).delay <= POLICY.backoff
    assert decide(Retry("later", asked, counts=False), FRESH, POLICY).delay == POLICY.backoff


class Fixed:
    """A retry policy that always waits for the same time."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def after(self, failures: int, age: float) -> float:
        return self.delay


@pytest.mark.parametrize(
    ("says", "given_"),
    [(0.5, 0.5), (-1.0, 0.0), (2 * MAX_DELAY, 2 * MAX_DELAY), (float("inf"), MAX_POLICY_DELAY), (float("nan"), 0.0)],
)
def test_a_policy_is_bounded_by_what_the_queue_takes_alone(says: float, given_: float) -> None:
    assert decide(ValueError(), FRESH, Fixed(says)).delay == given_


# -- the budget -----------------------------------------------------------------------------------------------------


def retried(delivery: Delivery, outcome: Outcome, evidence: Evidence) -> Delivery:
    return lifecycle.after_retry(delivery, evidence, counts=outcome.counts)


def evidence_of(error: BaseException, on: Delivery) -> Evidence:
    return outcomes.evidence_of(error, on, decide(error, on, POLICY), 1.23456)


def test_the_budget_is_spent_after_so_many_failures_and_no_sooner() -> None:
    current, kinds = delivery(), []
    while not kinds or kinds[-1] is Kind.RETRY:
        error = ValueError("no")
        outcome = decide(error, current, POLICY)
        kinds.append(outcome.kind)
        current = retried(current, outcome, evidence_of(error, current))
    assert kinds == [Kind.RETRY] * 3 + [Kind.BURY]


def test_a_retry_adds_its_evidence_and_takes_from_the_budget() -> None:
    error = ValueError("no")
    following = retried(FRESH, decide(error, FRESH, POLICY), evidence_of(error, FRESH))
    assert (following.attempt, following.failures, following.waits, following.lost) == (2, 1, 0, 0)
    assert [item.attempt for item in following.evidence] == [1]
    assert (following.id, following.received, following.body) == (FRESH.id, FRESH.received, FRESH.body)


def test_waiting_takes_nothing_from_the_budget_and_leaves_no_evidence() -> None:
    error = Retry("not ready", counts=False)
    current = delivery(failures=2)
    for _ in range(100):
        current = retried(current, decide(error, current, POLICY), evidence_of(error, current))
    assert (current.attempt, current.failures, current.waits, current.evidence) == (101, 2, 100, ())
    failed = ValueError("no")
    current = retried(current, decide(failed, current, POLICY), evidence_of(failed, current))
    assert (current.failures, current.waits) == (3, 0)


def test_a_bury_keeps_reason_and_evidence() -> None:
    error = Bury("consent revoked")
    buried = lifecycle.after_bury(FRESH, decide(error, FRESH, POLICY).reason, evidence_of(error, FRESH))
    assert (buried.buried, buried.lost, buried.attempt) == ("consent revoked", 0, 1)
    assert [item.message for item in buried.evidence] == ["consent revoked"]


def test_a_kick_gives_a_fresh_budget_and_keeps_the_story() -> None:
    error = ValueError("no")
    buried = lifecycle.after_bury(LAST, decide(error, LAST, POLICY).reason, evidence_of(error, LAST))
    kicked = lifecycle.after_kick(buried)
    assert (kicked.buried, kicked.failures, kicked.waits, kicked.lost) == ("", 0, 0, 0)
    assert (kicked.attempt, kicked.evidence) == (LAST.attempt + 1, buried.evidence)


@pytest.mark.parametrize(("lost", "buried"), [(0, False), (2, False), (3, True), (4, True)])
def test_lost_attempts_have_a_small_budget_of_their_own(lost: int, buried: bool) -> None:
    outcome = outcomes.too_often_lost(delivery(lost=lost), POLICY)
    assert (outcome is not None) == buried
    if outcome is not None:
        assert (outcome.kind, outcome.reason.split()[0]) == (Kind.BURY, str(lost))


def test_a_loss_spends_nothing_but_that_budget() -> None:
    told = evidence_of(ValueError("killed"), FRESH)
    after = lifecycle.after_loss(lifecycle.after_loss(FRESH, [told]))
    assert (after.lost, after.attempt, after.failures, after.evidence) == (2, FRESH.attempt, 0, (told,))


# -- the evidence ---------------------------------------------------------------------------------------------------


def test_evidence_says_where_it_failed_when_and_for_how_long() -> None:
    try:
        raise KeyError("userToken")
    except KeyError as error:
        seen = evidence_of(error, delivery(attempt=3))
    assert (seen.attempt, seen.outcome, seen.error, seen.duration) == (3, "retry", "KeyError", 1.235)
    assert seen.message == "KeyError: 'userToken'"
    assert 'raise KeyError("userToken")' in seen.traceback
    assert seen.host
    assert seen.at.tzinfo is not None


def test_a_verdict_says_why_in_words_and_needs_no_traceback() -> None:
    assert evidence_of(Retry("busy"), FRESH).traceback == ""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Mute(), "Mute: (its message cannot be shown)"),
        (Retry(Mute()), "(its message cannot be shown)"),  # type: ignore[arg-type]
        (Retry(ValueError("no")), "no"),  # type: ignore[arg-type]
        (Drop(7), "7"),  # type: ignore[arg-type]
        (Bury(None), "None"),  # type: ignore[arg-type]
        (OSError("caf\udce9"), r"OSError: caf\udce9"),
        (Bury("x" * 10_000), "x" * MAX_MESSAGE),
    ],
)
def test_whatever_a_handler_raises_can_be_told_and_kept(error: BaseException, reason: str) -> None:
    outcome = decide(error, FRESH, POLICY)
    assert outcome.reason == reason
    buried = lifecycle.after_bury(FRESH, outcome.reason, evidence_of(error, FRESH))
    kept = envelope.decode(envelope.encode(buried))
    assert kept.buried == reason
    assert kept.evidence[0].message == reason


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Fieldless(Retry):
    def __init__(self) -> None:
        pass


LARGE = "token=abc, " + "x" * 8_000_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError(LARGE),
        lambda: Retry(LARGE, detail={"body": LARGE}),
        lambda: Retry("busy", detail={LARGE: 1, "all": [LARGE] * 100}),
        lambda: Retry("busy", detail={str(number): number for number in range(1_000_000)}),
        lambda: Retry("busy", detail={"deep": json.loads("[" * 900 + "]" * 900)}),
        lambda: Bury(ValueError(LARGE)),  # type: ignore[arg-type]
        lambda: Drop(Exits()),  # type: ignore[arg-type]
        Exits,
        Fieldless,
        lambda: type("E" * 1_000_000, (Exception,), {})(),
        lambda: ExceptionGroup(LARGE, [ValueError(LARGE), Exits()]),
    ],
)
def test_evidence_of_any_size_is_cut_before_a_pattern_sees_it(make: Callable[[], BaseException]) -> None:
    error = make()
    taken = []
    for _ in range(3):
        started = time.thread_time()
        outcome = decide(error, LAST, POLICY)
        seen = evidence_of(error, LAST)
        taken.append(time.thread_time() - started)
    # masking a megabyte takes seconds, each time
    assert min(taken) < 3
    assert len(outcome.reason) <= 2 * MAX_MESSAGE
    assert len(seen.traceback) <= MAX_TRACEBACK
    assert len(json.dumps(seen.detail)) <= 2 * MAX_DETAIL
    assert "abc" not in f"{outcome.reason}{seen.traceback}{seen.detail}{seen.message}"
    assert len(seen.error) <= MAX_MESSAGE


def test_a_handler_gets_a_copy_of_its_story_however_deep_that_is() -> None:
    error = Retry("busy", detail={"deep": json.loads("[" * 400 + "]" * 400)})
    told = delivery(evidence=(evidence_of(error, FRESH),))
    kept = envelope.decode(envelope.encode(told))
    seen: list[Delivery] = []
    route = Route(source="mirror", handler=HandlerName("scripted:handler"))
    Destination(route, lambda given, _context: seen.append(given)).work(kept, Context(Settings()))
    assert seen == [kept]
    assert seen[0].evidence[0].detail is not kept.evidence[0].detail


def test_a_spent_budget_is_told_behind_what_failed_and_is_not_cut_off() -> None:
    assert decide(Retry("busy"), delivery(), Policy(1, 1, 1, 1)).reason == "busy (gave up after 1 attempt)"
    reason = decide(Retry("x" * 10_000), LAST, POLICY).reason
    assert reason.endswith("x (gave up after 4 attempts)")
    assert len(reason) == MAX_MESSAGE
