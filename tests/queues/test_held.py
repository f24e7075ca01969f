"""What was reserved belongs to its connection: after a break the same id may be another job's."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.errors import JobNotFound, QueueUnavailable
from glassq.queues.beanstalk.connection import BeanstalkConnection
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Late(BeanstalkConnection):
    """When another thread asks whether a reserve waits, that reserve gets a job, and ends if it can."""

    waiting = False
    over: threading.Event
    job_comes: Callable[[], object]

    @property  # type: ignore[override]
    def _waits(self) -> bool:
        if self.waiting and threading.current_thread() is threading.main_thread():
            self.job_comes()
            self.over.wait(0.5)
            return True
        return self.waiting

    @_waits.setter
    def _waits(self, waits: bool) -> None:
        self.waiting = waits


def test_an_interrupt_from_another_thread_leaves_no_job_on_a_half_closed_connection(beanstalkd: Beanstalkd) -> None:
    with closing(beanstalkd.queue()) as look:
        late = Late(beanstalkd.url, look.tube, ttr=60, connect_timeout=20, timeout=20)
        found: list[object] = []
        late.over, late.job_comes = threading.Event(), lambda: look.put(b"ping")

        def reserve() -> None:
            found.append(late.reserve(20))
            late.over.set()

        thread = threading.Thread(target=reserve)
        thread.start()
        wait_for(lambda: late.waiting and look.stats_tube().waiting, "the reserve to wait")
        late.interrupt()
        thread.join()
        assert found == [None]
        wait_for(lambda: look.stats_tube().ready == 1, "the job to go back")
        late.close()
