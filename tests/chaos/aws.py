"""A pool on a service of Amazon's that is as hostile as the real one may be: what `sqs.py` and `swf.py` share.

Deliveries go through it while children are killed. All is well only if every delivery was worked at least once or lies
buried, and each that was worked twice has a reason.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.queues.sqs.faults import GIVEN_BACK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.queues.aws.faults import AwsFaults
    from tests.queues.aws.pool import AwsPool
    from tests.queues.aws.service import AwsService

BATCH = 50
# A child is killed about every so many seconds: it takes some to come up again.
KILL = (4.0, 8.0)
# Short, so that what nobody gives back is seen within the run; in seconds.
LEASE = 20
# So many deliveries a child may have done before it says so.
AT_ONCE = 10
KILLED = "its child was killed over it"


@dataclass
class AwsReport:
    """What became of the deliveries. `twice` are those worked more than once, by the first cause that explains it."""

    put: int = 0
    worked: int = 0
    buried: int = 0
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    twice: Counter[str] = field(default_factory=Counter)
    killed: set[int] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.lost and not self.unexpected and not self.twice["unexplained"]

    def __str__(self) -> str:
        lines = [
            f"{self.put} deliveries put, {self.worked} worked at least once, {self.buried} buried, "
            f"{len(self.lost)} lost, in {self.seconds:.0f} s; {len(self.killed)} children killed",
            f"worked or buried more than once: {sum(self.twice.values())}",
            *(f"  {number:6} {cause}" for cause, number in self.twice.most_common()),
            "calls, and what the service did:",
            *(f"  {number:6} {what}" for what, number in sorted(self.calls.items(), key=lambda each: -each[1])),
        ]
        asked = sum(number for what, number in self.calls.items() if what[0].isupper())
        lines.append(f"{asked / max(1, self.put):.2f} calls a delivery, all tries and idle polls included")
        return "\n".join(lines)


def run(
    service: AwsService, pool: AwsPool, hostile: AwsFaults, calm: AwsFaults, *, deliveries: int, seed: int
) -> AwsReport:
    """One run; at its end the service is `calm`. Where it is calm from the beginning, nothing is killed either."""
    draw, report = random.Random(seed), AwsReport()
    began = time.monotonic()
    service.calls(clear=True)
    service.be(msgspec.structs.replace(hostile, seed=seed))
    pool.start()
    try:
        sent = _put_and_kill(pool, deliveries, draw, report, kills=hostile != calm)
        service.be(calm)
        _settle(pool, sent)
    finally:
        pool.end()
    report.seconds = time.monotonic() - began
    _judge(service, pool, sent, report)
    return report


def _put_and_kill(pool: AwsPool, deliveries: int, draw: random.Random, report: AwsReport, *, kills: bool) -> list[str]:
    sent: list[str] = []
    kill_at = time.monotonic() + (draw.uniform(*KILL) if kills else math.inf)
    while len(sent) < deliveries or len(set(pool.done())) < deliveries * 0.8:
        if len(sent) < deliveries and len(sent) - len(set(pool.done())) < 1000:
            many = min(BATCH, deliveries - len(sent))
            sent += pool.put([_body(draw) for _ in range(many)])
        else:
            time.sleep(0.5)
        if time.monotonic() >= kill_at:
            report.killed |= {pool.kill_child(draw.randrange(100))} - {0}
            kill_at = time.monotonic() + draw.uniform(*KILL)
    report.put = len(sent)
    return sent


def _body(draw: random.Random) -> dict[str, object]:
    kind = draw.random()
    if kind < 0.03:
        return {"fails": "once", "delay": draw.choice([0.2, 1, 2])}
    return {"fails": "always", "delay": 0.2} if kind < 0.04 else {"lasts": draw.choice([0, 0, 0.002, 0.02])}


def _settle(pool: AwsPool, sent: list[str]) -> None:
    """Until all that was put is worked or buried, and nothing waits."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if not pool.left() and set(sent) <= {*pool.done(), *pool.buried()}:
            return
        time.sleep(1)


def _judge(service: AwsService, pool: AwsPool, sent: list[str], report: AwsReport) -> None:
    worked = pool.worked()
    done, buried = Counter(pool.done()), Counter(pool.buried())
    report.worked, report.buried = len(set(done) & set(sent)), len(buried)
    report.lost = sorted(set(sent) - set(done) - set(buried))
    report.unexpected = sorted((set(done) | set(buried)) - set(sent))
    # of a child that was killed the last ones may be done, and the service not told of it: so many go with one call
    last: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=AT_ONCE))
    for word, delivery, pid in worked:
        if pid in report.killed and word == "begin":
            last[pid].append(delivery)
    killed_over = {delivery for each in last.values() for delivery in each}
    done_to = service.done_to()
    for delivery in sent:
        if done[delivery] + buried[delivery] > 1:
            causes = done_to.get(delivery, {})
            report.twice[_cause(causes, delivery in killed_over)] += 1
    report.calls = service.calls()


def _cause(causes: Mapping[str, int], killed: bool) -> str:
    """Why it was worked twice: the most likely of what was done to it."""
    likely = sorted((what for what in causes if what != GIVEN_BACK), key=lambda what: -causes[what])
    more = [KILLED] * killed + [f"a child was killed: {GIVEN_BACK}"] * (GIVEN_BACK in causes)
    return [*likely, *more, "unexplained"][0]


def main(run_in: Callable[[Path, int, int, bool], AwsReport], words: str | None) -> int:
    """The program: `run_in` makes one run in a directory, of so many deliveries, with this seed, calm or not."""
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="a service without faults, and no kills: the price")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = run_in(Path(directory), given.deliveries, given.seed, given.calm)
        print(report)
        if not report.ok:
            print("lost:", report.lost[:10], "unexpected:", report.unexpected[:10])
            print((Path(directory) / "pool.log").read_text()[-3000:])
    return 0 if report.ok else 1
