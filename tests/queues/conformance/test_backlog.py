"""A reserve must not slow down with what waits, however many tubes that is in."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from tests.queues.conformance.engine import TIMEOUT, Engine
from tests.queues.conformance.roles import Roles
from tests.queues.conformance.summary import SAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from glassq.queues import Receiver

BODY = b"x" * 200
# An engine that takes so many puts a second here gets all of its backlog.
QUICK = 1_000
SMALL = 1_000
# A query that sorts all that waits takes hundreds of times as long; a loaded machine does not.
MAX_RATIO = 20


def reserve_time(receiver: Receiver, tubes: Sequence[str], samples: int) -> float:
    """The median of many reservations, in seconds, each of a job that is completed after it."""
    times = []
    for _ in range(samples):
        began = time.perf_counter()
        reservation = receiver.reserve(tubes, TIMEOUT)
        times.append(time.perf_counter() - began)
        assert reservation is not None
        receiver.complete(reservation)
    return median(times)


def put_rate(engine: Engine, tubes: Sequence[str], jobs: int) -> float:
    """Fills the tubes; how many puts the engine took a second."""
    began = time.perf_counter()
    engine.fill(tubes, jobs, BODY)
    return jobs / (time.perf_counter() - began)


def test_a_reserve_does_not_slow_down_with_what_waits(
    engine: Engine, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    # one of its own: what is left of a large backlog ends with it
    filled = type(engine)(tmp_path, careless=True)
    roles = Roles(filled)
    try:
        receiver = roles.receiver()
        quick = put_rate(filled, roles.tubes, 2 * engine.samples) >= QUICK
        jobs = engine.backlog if quick else SMALL
        before = reserve_time(receiver, roles.tubes, engine.samples)
        filled.fill(roles.tubes, jobs, BODY)
        assert sum(roles.counts(tube).ready for tube in roles.tubes) == jobs + engine.samples
        # what is measured while the machine does something else is measured once more
        after = min(reserve_time(receiver, roles.tubes, engine.samples) for _ in range(3))
    finally:
        roles.close()
        filled.end()
    line = f"backlog: {jobs:,} jobs in three tubes, reserve {before * 1000:.2f} ms before, {after * 1000:.2f} ms after"
    record_property(SAYS, line)
    print(line)
    assert after < before * MAX_RATIO, line
