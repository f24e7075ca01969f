"""Proves that jobs which were put on a connection are on disk.

With a syncer, by its own sync (prover.py). Without one beanstalkd must run with -f0, and one that is seen to sync only
at an interval is refused. With -f0 its answer counts, unless its binlog has failed: then it answers INSERTED as before,
until it is restarted. A job is in the binlog once stats-job shows its file. beanstalkd never resumes writing by itself,
so the newest job that still exists speaks for all before it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from heapq import nlargest
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, NotDurable
from glassq.queues.beanstalk.connection import IN_MEMORY_ONLY

if TYPE_CHECKING:
    from collections.abc import Collection

    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.prover import Prover

# Without a syncer, this many of the newest jobs are looked for at most, until one is found that nobody has finished.
SAMPLE = 8


def prove(connection: BeanstalkConnection, jobs: Collection[int], prover: Prover | None, *, within: float) -> None:
    """Returns once these jobs, put on this connection, are durable. Raises NotDurable, NoProof or QueueError.

    `prover` is None where there is no syncer; `within` is in seconds.
    """
    if prover is None:
        prove_by_answer(connection, jobs)
    else:
        prover.prove(connection.server_id(), deadline=time.monotonic() + within)


def prove_by_answer(connection: BeanstalkConnection, jobs: Collection[int]) -> None:
    """The proof without a syncer. Raises NotDurable if the server syncs only at an interval, or its binlog has failed.

    It has failed if the newest of these jobs that is still there is in no file.
    """
    connection.check_interval()
    # By id, which is the order of the puts: threads may hand over their receipts in another one.
    for job_id in nlargest(SAMPLE, jobs):
        with suppress(JobNotFound):
            in_file = connection.stats_job(job_id).file > 0
            break
    else:
        in_file = connection.probe_durability().file > 0
    if not in_file:
        raise NotDurable(IN_MEMORY_ONLY)
