"""A pool on an SQS that is as hostile as the real one may be: `python -m tests.chaos.sqs`.

Deliveries go through a service that reorders, gives out twice, forgets deletes, answers late, throttles and cuts
connections after it has done what was asked, while children are killed. Exits 0 only if every delivery was worked at
least once or lies buried, and each that was worked twice has a reason. Prints what was done to them, and how many calls
that took.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.chaos import aws
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.pool import SqsPool
from tests.queues.sqs.service import SqsService

if TYPE_CHECKING:
    from pathlib import Path

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


def run(home: Path, deliveries: int, seed: int, calm: bool) -> aws.AwsReport:
    """One run in this directory."""
    with SqsService(home) as service:
        pool = SqsPool(home, service, processes=4, ttr=aws.LEASE)
        peace = Faults() if calm else Faults(zombies=True)
        return aws.run(service, pool, peace if calm else HOSTILE, peace, deliveries=deliveries, seed=seed)


if __name__ == "__main__":
    sys.exit(aws.main(run, __doc__))
