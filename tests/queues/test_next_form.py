"""A consumer's next form of a delivery: the old one is ours while its proof is awaited, and what is refused goes."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import greenstalk
import pytest

from glassq.errors import JobNotFound, QueueRefused
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk import receiver as receiving
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.protocol import JobStats
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from tests.conftest import wait_for
from tests.queues.test_forms import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.beanstalk.commands import Command
    from tests.conftest import Beanstalkd

LEASE = 5
TUBE = "glassq"


class Refusing(BeanstalkConnection):
    """Its server refuses to bury, and keeps track of the job."""

    def pipeline(self, commands: Sequence[Command[object]]) -> list[object]:  # type: ignore[override]
        kept = [command for command in commands if not command.text.startswith(b"bury")]
        answers: list[object] = [*super().pipeline(kept)]
        return [*answers, *[QueueRefused("its disk is full")] * (len(commands) - len(kept))]


def receiver(
    server: Beanstalkd,
    before: Callable[[], object] = lambda: None,
    kind: type[BeanstalkConnection] = BeanstalkConnection,
) -> BeanstalkReceiver:
    connection = kind(server.url, TUBE, ttr=LEASE, connect_timeout=20, timeout=20)
    return BeanstalkReceiver(connection, Watched(server, before))


@pytest.mark.parametrize("end", ["retry", "bury"])
def test_the_lease_on_the_old_form_is_as_long_as_its_proof_may_take(beanstalkd: Beanstalkd, end: str) -> None:
    assert receiving.PROOF < receiving.SHORTEST_LEASE
    left: list[int] = []
    with closing(beanstalkd.queue()) as look:
        with closing(receiver(beanstalkd, lambda: left.append(look.stats_job(job).time_left))) as ours:
            job = ours._connection.put(b"ping", tube=TUBE)
            held = ours.reserve([TUBE], 20)
            assert held is not None
            wait_for(lambda: look.stats_job(job).time_left <= LEASE - 3, "most of the lease to be over")
            if end == "retry":
                ours.retry(held, b"next", delay=0, tube=TUBE)
            else:
                ours.bury(held, b"next")
        assert left
        assert left[0] >= LEASE - 2
        assert [look.peek(stats.id).body for stats in look.scan(ALL_STATES) if isinstance(stats, JobStats)] == [b"next"]


@pytest.mark.parametrize("end", ["retry", "bury"])
def test_the_next_form_of_what_another_has_by_now_is_withdrawn_and_not_proven(beanstalkd: Beanstalkd, end: str) -> None:
    ours = receiver(beanstalkd)
    with closing(ours), closing(beanstalkd.queue()) as look:
        look.put(b"ping", tube=TUBE)
        held = ours.reserve([TUBE], 20)
        assert held is not None
        ours._connection._call(lambda client: client.release(greenstalk.Job(int(held.ref), b""), 1, 0))
        assert look.reserve(20, [TUBE]) is not None
        with pytest.raises(JobNotFound):
            ours.retry(held, b"next", delay=0, tube=TUBE) if end == "retry" else ours.bury(held, b"next")
        assert [look.peek(stats.id).body for stats in look.scan(ALL_STATES) if isinstance(stats, JobStats)] == [b"ping"]
        assert ours._prover.asked == 0  # type: ignore[union-attr]


def test_a_form_that_cannot_be_buried_is_withdrawn(beanstalkd: Beanstalkd) -> None:
    with closing(receiver(beanstalkd, kind=Refusing)) as ours, closing(beanstalkd.queue()) as look:
        look.put(b"ping", tube=TUBE)
        held = ours.reserve([TUBE], 20)
        assert held is not None
        with pytest.raises(QueueRefused, match="disk is full"):
            ours.bury(held, b"buried")
        assert [
            (stats.state, look.peek(stats.id).body) for stats in look.scan(ALL_STATES) if isinstance(stats, JobStats)
        ] == [("reserved", b"ping")]
        ours.release(held)
