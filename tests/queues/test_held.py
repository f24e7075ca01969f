"""What was reserved belongs to its connection: after a break the same id may be another job's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.errors import JobNotFound, QueueUnavailable

if TYPE_CHECKING:
    from tests.conftest import Beanstalkd


def test_a_job_that_took_over_the_id_of_ours_is_not_deleted(beanstalkd: Beanstalkd) -> None:
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    ours, other = beanstalkd.queue(), beanstalkd.queue()  # the second one connects after the restart
    try:
        job_id = ours.put(b"ours")
        assert ours.reserve(1)
        beanstalkd.stop()
        beanstalkd.start(durable=False)
        with pytest.raises(QueueUnavailable):
            ours.touch(job_id)
        assert other.put(b"another's") == job_id
        ours.put(b"connected again")
        for command in (ours.touch, ours.release, ours.bury, lambda job: ours.delete(job, held=True)):
            with pytest.raises(JobNotFound):
                command(job_id)
        assert other.peek(job_id).body == b"another's"
    finally:
        ours.close()
        other.close()
