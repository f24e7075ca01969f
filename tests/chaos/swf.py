"""A pool on an SWF that is as hostile as the real one may be: `python -m tests.chaos.swf`.

Deliveries go through a service that answers late, throttles, cuts connections before and after it has done what was
asked, hands tasks to clients that are gone, refuses decisions in the history as too many came, and shows lists and
histories as they were a while ago, while children are killed. Exits 0 only if every delivery was worked at least once
or lies buried, and each that was worked twice has a reason. Prints what was done to them, and how many calls that took.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.chaos import aws
from tests.queues.swf.faults import Faults
from tests.queues.swf.pool import SwfPool
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from pathlib import Path

# A poll ends sooner than the service's own, so that a stop need not wait for it; in seconds.
POLL = 5.0
# One call in so many meets each of these.
HOSTILE = Faults(
    poll=POLL,
    zombies=True,
    late=0.01,
    throttle=0.03,
    broken=0.01,
    cut=0.01,
    cut_before=0.01,
    stale=1.0,
    refuse_decisions=0.01,
)


def run(home: Path, deliveries: int, seed: int, calm: bool) -> aws.AwsReport:
    """One run in this directory."""
    with SwfService(home, poll=POLL) as service:
        pool = SwfPool(home, service, processes=4, ttr=aws.LEASE)
        peace = Faults(poll=POLL, zombies=not calm)
        return aws.run(service, pool, peace if calm else HOSTILE, peace, deliveries=deliveries, seed=seed)


if __name__ == "__main__":
    sys.exit(aws.main(run, __doc__))
