"""Decides the outcome of an attempt, by pure functions: nothing else decides it.

| the handler                                    | kind        | the queue gets                                  |
|------------------------------------------------|-------------|-------------------------------------------------|
| returned                                       | DONE        | delete                                          |
| raised Drop                                    | DROPPED     | delete                                          |
| raised Retry(counts=False)                     | RETRY       | put again; the budget stays as it is            |
| raised Retry or another error, or overran      | RETRY       | put again after delay or backoff                |
| the same, with its budget spent                | BURY        | put with evidence and buried                    |
| raised Bury                                    | BURY        | put with evidence and buried                    |
| ended so that its next form fits into no job   | BURY        | bury of the job as it is                        |
| was interrupted by a stop                      | INTERRUPTED | release: no attempt burnt                       |
| lost its lease                                 | LEASE_LOST  | nothing: another consumer has the job           |
"""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from glassq import host
from glassq.delivery import MAX_DETAIL, MAX_MESSAGE, MAX_TRACEBACK, Delivery, Evidence, as_valid_utf8
from glassq.errors import Bury, DeadlineExceeded, Drop, Interrupt, Interrupted, LeaseLost, Retry, Verdict
from glassq.excerpts import UNPRINTABLE, json_of, kind_of, text_of, traceback_of, words_of
from glassq.mask import masked_body, masked_text
from glassq.policy import MIN_DELAY

if TYPE_CHECKING:
    from glassq.policy import Policy
    from glassq.routes import RetryPolicy

# The maximum delay that a handler may ask for, in seconds (30 days): a server's wrong clock must not postpone a
# delivery for ever.
MAX_DELAY = 30 * 86_400.0
# The maximum delay of a retry policy, in seconds: the queue takes no longer one.
MAX_POLICY_DELAY = float((1 << 32) - 1)
# The delay after Retry(counts=False) without a delay, in seconds.
WAIT = 30.0


class Kind(enum.StrEnum):
    """The kinds of outcome."""

    DONE = "done"
    DROPPED = "dropped"
    RETRY = "retry"
    BURY = "bury"
    INTERRUPTED = "interrupted"
    LEASE_LOST = "lease lost"


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one attempt.

    `delay` is in seconds. If `counts` is false, the attempt costs nothing of the budget. `slow_down` asks to work the
    whole tube more slowly for a while.
    """

    kind: Kind
    reason: str = ""
    delay: float = 0.0
    counts: bool = True
    slow_down: bool = False
    result: str | dict[str, Any] | None = None


def done(result: str | dict[str, Any] | None) -> Outcome:
    """The outcome of a handler that returned."""
    return Outcome(Kind.DONE, result=result)


def decide(error: BaseException, delivery: Delivery, policy: RetryPolicy, age: float = 0.0) -> Outcome:
    """The outcome of a handler that raised `error`, `age` seconds after the first attempt began."""
    # type(), not isinstance(): an exception may lie about its class, or raise when it is asked for it
    kind = type(error)
    if issubclass(kind, Interrupted):
        return Outcome(Kind.INTERRUPTED, "the pool stopped")
    if issubclass(kind, LeaseLost):
        return Outcome(Kind.LEASE_LOST, "the job is no longer ours")
    reason = describe(error)
    if issubclass(kind, Drop):
        return Outcome(Kind.DROPPED, reason)
    if issubclass(kind, Bury):
        return Outcome(Kind.BURY, reason)
    requested, slow, counts = None, False, True
    if issubclass(kind, Retry):
        requested = _requested_delay(_field(error, "delay"))
        slow, counts = _flag(error, "slow_down", default=False), _flag(error, "counts", default=True)
    if not counts:
        return Outcome(Kind.RETRY, reason, WAIT if requested is None else requested, counts=False, slow_down=slow)
    failures = delivery.failures + 1
    delay = policy.after(failures, age)
    if delay is None:
        return Outcome(Kind.BURY, given_up(reason, failures), slow_down=slow)
    return Outcome(Kind.RETRY, reason, _bounded(delay) if requested is None else requested, slow_down=slow)


def of_step(outcome: Outcome, step: str) -> Outcome:
    """The outcome with the name of the step that decided it ("": there are none) before its reason."""
    if not step or not outcome.reason:
        return outcome
    reason = f"step {masked_text(as_valid_utf8(step))}: {outcome.reason}"
    return msgspec.structs.replace(outcome, reason=reason[:MAX_MESSAGE])


def too_often_lost(delivery: Delivery, policy: Policy) -> Outcome | None:
    """A bury if too many attempts have died with their process; else None."""
    if delivery.lost < policy.max_lost:
        return None
    attempts = "1 attempt" if delivery.lost == 1 else f"{delivery.lost} attempts"
    return Outcome(
        Kind.BURY, f"{attempts} ended without an outcome (process killed or crashed, power or connection lost)"
    )


def too_big(outcome: Outcome, why: str) -> Outcome:
    """The outcome in place of one whose next form fits into no job, because of `why`: a bury of the job as it is."""
    note = f"buried as it was: {why}"
    reason = outcome.reason[: MAX_MESSAGE - len(note) - 2]
    return Outcome(Kind.BURY, f"{reason}; {note}" if reason else note, slow_down=outcome.slow_down)


def describe(error: BaseException) -> str:
    """A verdict's reason, or the type and message of another error; at most MAX_MESSAGE characters before masking.

    Never raises, whatever a handler raised: an error here would end the whole process.
    """
    if issubclass(type(error), DeadlineExceeded):
        return "the handler overran its deadline"
    if issubclass(type(error), Verdict):
        text = text_of(_field(error, "reason", UNPRINTABLE), MAX_MESSAGE)
    else:
        text = words_of(error, MAX_MESSAGE)
    return masked_text(as_valid_utf8(text))


def given_up(reason: str, failures: int) -> str:
    """The reason of a delivery whose budget is spent. The failure comes first, because lists cut off the end."""
    count = f" (gave up after {failures} attempt{'s'[: failures > 1]})"
    return reason[: MAX_MESSAGE - len(count)] + count


def _field(error: BaseException, name: str, default: object = None) -> Any:
    """A field of a verdict; `default` if a subclass has not set it, or raises when it is read."""
    try:
        return getattr(error, name)
    except BaseException:
        return default


def _flag(error: BaseException, name: str, *, default: bool) -> bool:
    try:
        return bool(_field(error, name, default))
    except BaseException:
        return default


def _requested_delay(delay: object) -> float | None:
    """The delay that a handler asks for, within bounds; None if it is missing or not a number."""
    if not isinstance(delay, int | float) or (isinstance(delay, float) and math.isnan(delay)):
        return None
    return float(min(MAX_DELAY, max(MIN_DELAY, delay)))


def _bounded(delay: float) -> float:
    """A policy's delay within the bounds of the queue; 0 if it is not a number."""
    return min(MAX_POLICY_DELAY, max(0.0, delay))


def evidence_of(
    error: BaseException, delivery: Delivery, outcome: Outcome, duration: float, step: str = ""
) -> Evidence:
    """Evidence of an attempt that raised `error` after `duration` seconds, in this step if it has steps."""
    # A verdict has its reason in words; a traceback would add nothing. The same goes for what a program was doing.
    verdict = issubclass(type(error), Verdict)
    detail = _field(error, "detail") if verdict or issubclass(type(error), Interrupt) else None
    return Evidence(
        attempt=delivery.attempt,
        outcome=outcome.kind.value,
        error=kind_of(error),
        message=describe(error),
        at=datetime.now(UTC),
        duration=round(duration, 3),
        host=host.name(),
        traceback="" if verdict or detail else short_traceback(error),
        detail=_bounded_detail(detail) if detail else {},
        step=as_valid_utf8(step),
    )


def short_traceback(error: BaseException) -> str:
    """The last MAX_TRACEBACK characters of the traceback, masked: they name the line that failed."""
    return masked_text(as_valid_utf8(traceback_of(error)))[-MAX_TRACEBACK:]


def _bounded_detail(detail: object) -> dict[str, Any]:
    """A verdict's detail as JSON, masked; a note in its place if it is not JSON-serialisable, or too large."""
    try:
        text = json_of({} if detail is None else detail, MAX_DETAIL, strict=False).encode("utf-8", "replace")
    except ValueError as error:
        return {"left out": f"a detail that is not JSON: {error}"}
    if len(text) > MAX_DETAIL:
        return {"left out": f"more than {MAX_DETAIL} bytes of detail"}
    masked = masked_body(text)
    return masked if isinstance(masked, dict) else {"detail": masked}


def evidence_of_crash(delivery: Delivery, how: str, why: str, at: float, duration: float) -> Evidence:
    """Evidence of an attempt that died with its process, from what the pool's parent saw.

    `how` is a signal's name or "exit 7", `why` the cause if it is known. `at` is in seconds since 1970, `duration` in
    seconds.
    """
    signalled = how.startswith("SIG")
    message = f"killed by {how}" if signalled else f"its process ended: {how}"
    return Evidence(
        attempt=delivery.attempt,
        outcome="lost",
        error=how,
        message=f"{message}: {why}" if why else message,
        at=datetime.fromtimestamp(at, UTC),
        duration=round(duration, 3),
        host=host.name(),
        signal=how if signalled else "",
    )
