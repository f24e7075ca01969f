"""A pool on an SQS that is as hostile as the real one may be: `python -m tests.chaos.sqs`.

Deliveries go through a service that reorders, gives out twice, forgets deletes, answers late, throttles and cuts
connections after it has done what was asked, while children are killed. Exits 0 only if every delivery was worked at
least once or lies buried, and each that was worked twice has a reason. Prints what was done to them, and how many calls
that took.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.queues.sqs.faults import Faults
from tests.queues.sqs.pool import SqsPool
from tests.queues.sqs.service import SqsService

# One call in so many meets each of these.
HOSTILE = Faults(
    zombies=True,
    reorder=0.5,
    again=0.02,
    undelete=0.02,
    late=0.01,
    throttle=0.03,
    broken=0.01,
    cut=0.01,
    cut_before=0.01,
)
BATCH = 50
# A child is killed about every so many seconds: it takes some to come up again.
KILL = (4.0, 8.0)
# Short, so that what nobody gives back is seen within the run; in seconds.
LEASE = 20
KILLED = "its child was killed over it"


@dataclass
class ChaosReport:
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
    idle: dict[str, int] = field(default_factory=dict)

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


def run(deliveries: int, seed: int, home: Path, faults: Faults = HOSTILE, *, processes: int = 4) -> ChaosReport:
    """One run in this directory."""
    draw, report = random.Random(seed), ChaosReport()
    began = time.monotonic()
    with SqsService(home) as service:
        pool = SqsPool(home, service, processes=processes, ttr=LEASE)
        service.calls(clear=True)
        service.set(Faults(**{**_fields(faults), "seed": seed}))
        pool.start()
        try:
            sent = _put_and_kill(pool, deliveries, draw, report)
            _settle(service, pool, sent)
        finally:
            pool.end()
        report.seconds = time.monotonic() - began
        _judge(service, pool, sent, report)
    return report


def _put_and_kill(pool: SqsPool, deliveries: int, draw: random.Random, report: ChaosReport) -> list[str]:
    sent: list[str] = []
    kill_at = time.monotonic() + draw.uniform(*KILL)
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


def _settle(service: SqsService, pool: SqsPool, sent: list[str]) -> None:
    """Until all that was put is worked or buried, and the queue is empty; the service is well-behaved then."""
    service.set(Faults(zombies=True))
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if not service.truth().messages and set(sent) <= {*pool.done(), *pool.buried()}:
            return
        time.sleep(1)


def _judge(service: SqsService, pool: SqsPool, sent: list[str], report: ChaosReport) -> None:
    worked = pool.worked()
    done, buried = Counter(pool.done()), Counter(pool.buried())
    report.worked, report.buried = len(set(done) & set(sent)), len(buried)
    report.lost = sorted(set(sent) - set(done) - set(buried))
    report.unexpected = sorted((set(done) | set(buried)) - set(sent))
    # each child's last delivery: of one that was killed it may be done, and its message not deleted
    last = {pid: delivery for _, delivery, pid in worked}
    killed_over = {delivery for pid, delivery in last.items() if pid in report.killed}
    done_to = service.done_to()
    for delivery in sent:
        if done[delivery] + buried[delivery] > 1:
            causes = done_to.get(delivery, {})
            # most likely first
            cause = next(iter(sorted(causes, key=lambda what: -causes[what])), "")
            if not cause and delivery in killed_over:
                cause = KILLED
            report.twice[cause or "unexplained"] += 1
    report.calls = service.calls()


def _fields(faults: Faults) -> dict[str, object]:
    return {name: getattr(faults, name) for name in faults.__struct_fields__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="a service without faults, and no kills: the price")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = run(given.deliveries, given.seed, Path(directory), Faults() if given.calm else HOSTILE)
        print(report)
        if not report.ok:
            print("lost:", report.lost[:10], "unexpected:", report.unexpected[:10])
            print((Path(directory) / "pool.log").read_text()[-3000:])
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
