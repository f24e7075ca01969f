"""Rows 61 and 62: what becomes of pings while the queue does not take them, and after."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from glassq import delivery
from glassq.errors import NotDurable
from tests.cli.conftest import working_in
from tests.conftest import Beanstalkd, wait_for
from tests.intake.conftest import empty
from tests.intake.wire import HEALTH, Answer, body, request
from tests.queues.binlog import break_binlog, failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.intake.conftest import Web
    from tests.queues.raw import Queue

PING = request()
READY = HEALTH.replace(b"healthz", b"readyz")
# A sender waits 10 s and is promised an answer within 5; a busy test machine gets the rest, in seconds.
PROMISED = 10.0

# No disk has so much to spare: with it the journal takes nothing.
NO_JOURNAL = {"journal_min_free": "1000000GiB"}


@pytest.fixture
def web(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> Web:
    return start_web(beanstalkd.url)


def at_once(web: Web, many: int) -> list[Answer]:
    """The answers to pings sent at the same time, each within what a sender is promised."""

    def ping(_: int) -> Answer:
        with web.wire() as wire:
            wire.sock.settimeout(PROMISED)
            return wire.ask(PING)

    with ThreadPoolExecutor(many) as threads:
        return list(threads.map(ping, range(many)))


def assert_not_taken(web: Web, why: str) -> None:
    """A ping is refused for now, readiness says so, and only the log says why."""
    for answer in (web.ask(PING), web.ask(READY)):
        assert answer.status == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert answer.is_problem()
        assert b"beanstalkd" not in answer.body
        assert b"journal" not in answer.body
    assert why in web.log()
    assert web.healthy()


def assert_taken(web: Web) -> None:
    """A ping goes into the queue."""
    assert web.ask(PING).status == 200
    answer = web.ask(READY)
    assert (answer.status, b"by the journal" in answer.body) == (200, False)


def assert_journaled(web: Web, why: str) -> None:
    """A ping is taken all the same, into the journal; the log says why, once."""
    known = web.journaled()
    assert web.ask(PING).status == 200
    assert web.journaled() == known + 1
    answer = web.ask(READY)
    assert (answer.status, b"by the journal" in answer.body) == (200, True)
    assert web.log().count("they go to the journal") == 1
    assert why in web.log()


def wait_for_jobs(web: Web, server: Beanstalkd, ids: int) -> list[str]:
    """Waits until the journal is empty and so many different deliveries were in the queue; all that came, in order."""
    came: list[str] = []

    def look() -> bool:
        came.extend(delivery.decode(job).id for job in empty(server))
        return len(set(came)) >= ids and not web.journaled()

    wait_for(look, f"{ids} deliveries to be in the queue")
    assert len(set(came)) == ids
    return came


def test_pings_to_a_dead_queue_are_journaled_and_follow_in_order_when_it_is_back(
    web: Web, beanstalkd: Beanstalkd
) -> None:
    assert_taken(web)
    beanstalkd.stop()
    assert_journaled(web, "Connection refused")
    assert [answer.status for answer in at_once(web, 12)] == [200] * 12
    assert [web.ask(PING).status for _ in range(5)] == [200] * 5
    beanstalkd.start()
    # an id begins with the millisecond of its arrival
    came = [name[:13] for name in wait_for_jobs(web, beanstalkd, 19)]
    assert came == sorted(came)
    wait_for(lambda: web.ask(READY).body == b"ready\n", "the queue to be used again")
    assert_taken(web)


def test_a_dead_queue_and_a_full_journal_are_503_until_either_is_back(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, **NO_JOURNAL)
    assert_taken(web)
    beanstalkd.stop()
    assert_not_taken(web, "its disk is almost full")
    assert "Connection refused" in web.log()
    beanstalkd.start()
    wait_for(lambda: web.ask(READY).status == 200, "the queue to be used again")
    assert_taken(web)
    assert len(empty(beanstalkd)) == 2


def test_a_journal_takes_no_more_than_it_may(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url, journal_max="300KiB")
    beanstalkd.stop()
    large = request(body(x="y" * 15_000))
    statuses = [web.ask(large).status for _ in range(40)]
    taken = statuses.count(200)
    assert 0 < taken < 40
    assert statuses == [200] * taken + [503] * (40 - taken)
    beanstalkd.start()
    wait_for_jobs(web, beanstalkd, taken)


def test_many_processes_journal_and_one_moves_on(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url, workers=3)
    beanstalkd.stop()
    for _ in range(5):
        assert [answer.status for answer in at_once(web, 12)] == [200] * 12
    beanstalkd.start()
    assert len(wait_for_jobs(web, beanstalkd, 60)) == 60


def test_a_killed_worker_leaves_its_journal_to_the_next_one(web: Web, beanstalkd: Beanstalkd) -> None:
    beanstalkd.stop()
    assert [web.ask(PING).status for _ in range(3)] == [200] * 3
    for pid in web.workers():
        os.kill(pid, signal.SIGKILL)
    beanstalkd.start()
    wait_for_jobs(web, beanstalkd, 3)


def test_a_journal_that_is_removed_and_killed_workers_lose_no_acknowledged_ping(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, workers=2)
    wait_for(lambda: len(working_in(web.spool)) == 2, "both workers to have opened the journal")
    beanstalkd.stop()
    assert [answer.status for answer in at_once(web, 12)] == [200] * 12
    # in its midst a segment that is made may keep the directory, or a ping be refused
    shutil.rmtree(web.spool, ignore_errors=True)
    acknowledged = 12 + [answer.status for answer in at_once(web, 12)].count(200)
    # a worker that got none of the later pings writes its earlier ones anew by itself
    wait_for(lambda: web.spool.exists() and web.journaled() == acknowledged, "all pings to be in the journal again")
    for pid in web.workers():
        os.kill(pid, signal.SIGKILL)
    beanstalkd.start()
    wait_for_jobs(web, beanstalkd, acknowledged)
    assert web.log().count("somebody has removed it") <= 2


def test_many_pings_share_few_connections_to_the_queue(web: Web, beanstalkd: Beanstalkd, queue: Queue) -> None:
    for _ in range(5):
        assert [answer.status for answer in at_once(web, 12)] == [200] * 12
    # one for each of the server's four threads, one for what it looks at meanwhile, and the test's own
    assert queue.stats().connections <= 6


def test_a_queue_that_comes_after_the_intake_is_taken_into_use(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    beanstalkd.stop()
    web = start_web(beanstalkd.url)
    assert_journaled(web, "Connection refused")
    beanstalkd.start()
    wait_for_jobs(web, beanstalkd, 1)
    assert_taken(web)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_of_the_queue_the_very_next_ping_is_taken(
    web: Web, beanstalkd: Beanstalkd, number: signal.Signals
) -> None:
    assert [answer.status for answer in at_once(web, 12)] == [200] * 12
    beanstalkd.stop(number)
    beanstalkd.start()
    assert [web.ask(PING).status for _ in range(8)] == [200] * 8
    assert len(empty(beanstalkd)) == 20


def test_a_frozen_queue_holds_up_nobody_for_long(web: Web, beanstalkd: Beanstalkd) -> None:
    assert_taken(web)
    beanstalkd.send(signal.SIGSTOP)
    assert [answer.status for answer in at_once(web, 16)].count(200) >= 4
    assert_journaled(web, "no answer in time")
    beanstalkd.send(signal.SIGCONT)
    wait_for(lambda: web.ask(READY).body == b"ready\n", "the queue to be used again")
    assert_taken(web)


def test_a_frozen_queue_and_a_full_journal_are_503_in_time_for_all_who_ask_at_once(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, **NO_JOURNAL)
    assert_taken(web)
    beanstalkd.send(signal.SIGSTOP)
    answers = at_once(web, 16)
    assert {(answer.status, answer.headers.get("retry-after")) for answer in answers} == {(503, "5")}
    assert all(answer.is_problem() for answer in answers)
    assert_not_taken(web, "no answer in time")
    beanstalkd.send(signal.SIGCONT)


def test_pings_to_a_draining_queue_are_journaled_until_it_is_restarted(web: Web, beanstalkd: Beanstalkd) -> None:
    assert_taken(web)
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: web.ask(READY).body != b"ready\n", "beanstalkd to drain")
    assert_journaled(web, "draining: it takes no jobs until it is restarted")
    beanstalkd.stop()
    beanstalkd.start()
    wait_for_jobs(web, beanstalkd, 2)
    assert_taken(web)


def test_a_queue_that_writes_nothing_to_disk_is_not_used_and_the_log_says_what_to_do(
    web: Web, beanstalkd: Beanstalkd
) -> None:
    assert_taken(web)
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    assert web.ask(PING).status == 200
    assert web.journaled() == 1
    assert web.ask(READY).body == b"ready, by the journal: the queue does not write to disk\n"
    assert "start it with -b DIRECTORY -f0" in web.log()
    assert empty(beanstalkd) == []


def test_pings_to_a_queue_whose_disk_is_full_are_journaled(tmp_path: Path, start_web: Callable[..., Web]) -> None:
    server = Beanstalkd(tmp_path, options=("-s", "20000"))
    try:
        web = start_web(server.url)
        assert web.ask(PING).status == 200
        # it cannot make its next file, as on a full disk
        server.dir.rename(tmp_path / "elsewhere")
        assert [web.ask(PING).status for _ in range(60)] == [200] * 60
        # the queue says so, or the syncer that it can prove nothing
        assert "they go to the journal" in web.log()
        journaled = web.journaled()
        assert 0 < journaled <= 60
        (tmp_path / "elsewhere").rename(server.dir)
        came = wait_for_jobs(web, server, 61)
        assert len(came) >= 61
    finally:
        server.stop()


@pytest.fixture
def failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beanstalkd]:
    with failing(tmp_path, monkeypatch) as server:
        yield server


def test_62_after_a_failed_write_nothing_is_acknowledged_that_lies_in_memory_only(
    failing_disk: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(failing_disk.url)
    assert web.ask(PING).status == 200
    break_binlog(failing_disk)
    # beanstalkd says BURIED once, and INSERTED ever after
    assert [web.ask(PING).status for _ in range(5)] == [200] * 5
    assert "its binlog failed" in web.log()
    failing_disk.stop(signal.SIGKILL)
    failing_disk.start()
    wait_for_jobs(web, failing_disk, 6)


def test_what_was_acknowledged_just_before_the_disk_was_found_failing_is_kept_too(
    failing_disk: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(failing_disk.url)
    assert web.ask(PING).status == 200
    break_binlog(failing_disk)
    other = failing_disk.queue()
    # somebody else hears of it, and our next pings are told INSERTED
    with pytest.raises(NotDurable):
        other.put(b"", tube="other")
    other.close()
    assert [web.ask(PING).status for _ in range(5)] == [200] * 5
    wait_for(lambda: "they go to the journal" in web.log(), "the failure to be found out")
    failing_disk.stop(signal.SIGKILL)
    failing_disk.start()
    wait_for_jobs(web, failing_disk, 6)


def test_the_largest_ping_that_can_be_allowed_fits_into_a_job(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, max_body="32KiB")
    sent = body(x="y" * ((32 << 10) - len(body(x=""))))
    assert len(sent) == 32 << 10
    assert web.ask(request(sent)).status == 200
    assert [delivery.decode(job).body for job in empty(beanstalkd)] == [sent]


def test_what_was_journaled_goes_into_the_tube_of_its_route_or_source(
    tmp_path: Path, beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    pay = f'[sources.pay]\nkind = "mirror"\nverify_tokens_file = "{tmp_path / "web0" / "tokens"}"\nqueue = "pay"\n'
    # the route of these pings has a tube of its own
    of_route = '[[routes]]\nsource = "mirror"\nhandler = "m:f"\nname = "photos"\nconcurrency = 1\n'
    web = start_web(beanstalkd.url, queue=f"{pay}[worker.queues.pay]\n{of_route}")
    to_pay = request(line="POST /hooks/pay HTTP/1.1")
    assert [web.ask(ping).status for ping in (PING, to_pay)] == [200, 200]
    beanstalkd.stop()
    assert [web.ask(ping).status for ping in (PING, to_pay, to_pay)] == [200, 200, 200]
    assert web.journaled() == 3
    beanstalkd.start()
    wait_for(lambda: not web.journaled(), "the journal to be moved on")
    queue = beanstalkd.queue()
    try:
        found = {tube: queue.stats_tube(tube).ready for tube in ("glassq.route.photos", "glassq.queue.pay")}
    finally:
        queue.close()
    assert found == {"glassq.route.photos": 2, "glassq.queue.pay": 3}
