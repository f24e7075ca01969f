"""A pool on SQS: deliveries are worked, retried, buried and kicked; kills lose none, and delay none for its lease."""

from __future__ import annotations

import time
import urllib.request
from contextlib import closing, suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueRefused
from glassq.queues import open_inspector, open_mover, open_receiver
from tests.conftest import free_port, wait_for
from tests.metrics.test_counters import samples
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.pool import SqsPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.queues.sqs.service import SqsService


_numbers = count(1)


@pytest.fixture
def pool(tmp_path: Path, service: SqsService) -> Iterator[SqsPool]:
    # a lease that no test waits for
    running = SqsPool(tmp_path, service, ttr=600, prefix=f"t{next(_numbers)}")
    running.start()
    yield running
    running.end()


def test_who_only_looks_makes_no_shelf_and_finds_none(tmp_path: Path, service: SqsService) -> None:
    settings = SqsPool(tmp_path, service, prefix=f"t{next(_numbers)}").settings
    with closing(open_inspector(settings)) as inspector:
        assert inspector.status().accepting
        assert list(inspector.find(frozenset({"buried", "delayed"}), ["pings"])) == []
        assert [(each.name, each.jobs, each.paused_for) for each in inspector.counts()] == [("pings", 0, 0)]
        with pytest.raises(QueueRefused, match="a pool makes it"):
            inspector.pause("pings", 60)
    assert not (tmp_path / "shelf.db").exists()


def test_deliveries_are_worked_retried_buried_and_kicked(pool: SqsPool) -> None:
    [plain, once, always] = pool.put([{}, {"fails": "once"}, {"fails": "always"}])
    wait_for(lambda: {plain, once} <= set(pool.done()), "two to be worked")
    wait_for(lambda: pool.buried() == [always], "the third to be buried")
    with closing(open_inspector(pool.settings)) as inspector:
        [job] = inspector.find(frozenset({"buried"}), ["pings"])
        tried = len([each for each in pool.worked() if each[:2] == ("fail", always)])
        inspector.change(job, state="ready")
        wait_for(lambda: pool.buried() == [always], "it to be worked anew, and buried")
    assert len([each for each in pool.worked() if each[:2] == ("fail", always)]) == 2 * tried
    assert sorted(pool.done()) == sorted([plain, once])


def test_metrics_tell_of_the_queues_and_of_the_shelf(tmp_path: Path, service: SqsService) -> None:
    port = free_port()
    metrics = f'[metrics]\npool = "127.0.0.1:{port}"\n'
    pool = SqsPool(tmp_path, service, ttr=600, prefix=f"t{next(_numbers)}", more=metrics)
    pool.put([{"fails": "always", "delay": 0}, {"lasts": 1000}])
    pool.put([{}], delay=5000)

    def told() -> dict[tuple[str, ...], float]:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return samples(answer.read())
        return {}

    wanted = {
        ("glassq_queue_up",): 1.0,
        ("glassq_queue_durable",): 1.0,
        ("glassq_queue_draining",): 0.0,
        ("glassq_jobs", "reserved", "pings"): 1.0,
        ("glassq_jobs", "buried", "pings"): 1.0,
        ("glassq_jobs", "delayed", "pings"): 1.0,
        ("glassq_queue_in_flight",): 1.0,
        ("glassq_queue_retention_seconds",): 1_209_600.0,
        ("glassq_queue_shelf_rows",): 2.0,
    }
    pool.start()
    try:
        # what is told once holds for a while
        wait_for(lambda: pool.buried() and len(pool.worked()) == 7, "one to be buried, and one to be at work")
        wait_for(lambda: wanted.items() <= told().items(), "the metrics to tell of all three")
        # the service does not tell how old the oldest one is
        assert not any(name == "glassq_oldest_ready_seconds" for name, *_ in told())
    finally:
        pool.kill()


def test_whoever_replaces_a_dead_child_gives_its_job_back_at_once(pool: SqsPool) -> None:
    [slow] = pool.put([{"lasts": 2}])
    wait_for(lambda: pool.worked(), "it to be begun")
    [(_, _, pid)] = pool.worked()
    number = pool.children().index(pid)
    assert pool.kill_child(number) == pid
    # its lease would last ten minutes
    wait_for(lambda: pool.done() == [slow], "another child to work it")
    assert [each[:2] for each in pool.worked()] == [("begin", slow), ("begin", slow), ("done", slow)]


def test_a_pool_that_is_killed_as_a_whole_delays_nothing_for_a_lease(pool: SqsPool) -> None:
    slow = pool.put([{"lasts": 2}, {"lasts": 2}])
    wait_for(lambda: len(pool.worked()) == 2, "both to be begun")
    pool.kill()
    pool.start()
    wait_for(lambda: sorted(pool.done()) == sorted(slow), "the next pool to work them")


def test_what_is_far_away_lies_on_the_shelf_until_it_is_due_soon(pool: SqsPool) -> None:
    [later] = pool.put([{}], delay=5000)
    mover = open_mover(pool.settings)
    assert mover is not None
    mover.step()
    with closing(open_inspector(pool.settings)) as inspector:
        [job] = inspector.find(frozenset({"delayed"}), ["pings"])
        assert 4900 < job.time_left <= 5000
        assert pool.messages() == []
        inspector.change(job, state="delayed", delay=901.5)
        wait_for(lambda: mover.step() and pool.messages(), "it to be sent")
        assert list(inspector.find(frozenset({"delayed"}), ["pings"])) == []
    [message] = pool.messages()
    assert (message["state"], 890 < message["left"] <= 900, later in message["body"]) == ("delayed", True, True)


def test_a_row_whose_message_cannot_be_sent_stays_on_the_shelf(pool: SqsPool, service: SqsService) -> None:
    pool.put([{}], delay=1000)
    service.set(Faults(refuse=True))
    mover = open_mover(pool.settings)
    assert mover is not None
    with closing(open_inspector(pool.settings)) as inspector:
        [job] = inspector.find(frozenset({"delayed"}), ["pings"])
        with pytest.raises(Exception, match="AccessDenied"):
            inspector.change(job, state="ready")
        assert [found.ref for found in inspector.find(frozenset({"delayed"}), ["pings"])] == [job.ref]
        service.set()
        # nobody holds the row any more
        inspector.change(job, state="ready")
    wait_for(lambda: len(pool.done()) == 1, "it to be worked")


def test_a_stop_does_not_wait_for_messages_and_gives_back_what_comes(pool: SqsPool) -> None:
    pool.end()
    with closing(open_receiver(pool.settings)) as receiver:
        assert receiver.reserve(["pings"], 0.1) is None
        receiver.interrupt()
        began = time.monotonic()
        assert receiver.reserve(["pings"], 1000) is None
        assert time.monotonic() - began < 900
        [late] = pool.put([{}])
    wait_for(lambda: [each["state"] for each in pool.messages()] == ["ready"], "it to go back")
    assert late in pool.messages()[0]["body"]
