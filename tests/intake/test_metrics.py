"""GET /metrics of the intake: what its processes have counted, told to those who watch and to nobody else."""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.conftest import free_port, wait_for
from tests.intake.conftest import Web
from tests.intake.wire import HEALTH, Wire, body, request
from tests.metrics.test_counters import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd

ASK = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
PING = request()


class Watched:
    """An intake of two processes with a door for who watches."""

    def __init__(self, start_web: Callable[..., Web], queue_url: str) -> None:
        self.inside = ("127.0.0.1", free_port())
        self.web = start_web(queue_url, queue=f'[metrics]\nintake = "127.0.0.1:{self.inside[1]}"', workers=2)

    def samples(self) -> dict[tuple[str, ...], float]:
        with Wire(self.inside) as wire:
            answer = wire.ask(ASK)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return samples(answer.body)


@pytest.fixture
def watched(start_web: Callable[..., Web], beanstalkd: Beanstalkd) -> Watched:
    return Watched(start_web, beanstalkd.url)


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory, shared_beanstalkd: Beanstalkd) -> Iterator[Watched]:
    """One for all tests that only ask."""
    found = Watched(partial(Web, tmp_path_factory.mktemp("watched")), shared_beanstalkd.url)
    found.web.wait_ready()
    yield found
    found.web.stop()


def test_pings_are_counted_whichever_process_answered_them(watched: Watched) -> None:
    for _ in range(20):
        assert watched.web.ask(PING).status == 200
    found = watched.samples()
    assert found["glassq_pings_acknowledged_total", "queue"] == 20
    assert found["glassq_pings_acknowledged_total", "journal"] == 0
    assert found[("glassq_ping_seconds_count",)] == 20
    assert 0 < found[("glassq_ping_seconds_sum",)] < 20 * 60
    assert found[("glassq_intake_ready",)] == found[("glassq_queue_usable",)] == 1
    wait_for(lambda: watched.samples()[("glassq_intake_workers",)] == 2, "both workers to be there")


@pytest.mark.parametrize(
    ("bad", "status", "reason"),
    [
        (request(b"{"), 400, "malformed"),
        (request(body(verifyToken="wrong")), 403, "token"),
        (request(line="POST /hooks/other HTTP/1.1"), 404, "path"),
        (request(line="PUT /hooks/mirror HTTP/1.1"), 405, "method"),
        (request(length=...), 411, "length"),
        (request(kind="text/plain"), 415, "media_type"),
        # refused before they are requests, by the worker
        (request(line="POST /" + "x" * 5000 + " HTTP/1.1"), 414, "head"),
        (request(b"x", length=1 << 20), 413, "too_large"),
        (b"nonsense\r\n\r\n", 400, "malformed"),
    ],
)
def test_whatever_is_refused_is_counted_by_its_reason(unharmed: Watched, bad: bytes, status: int, reason: str) -> None:
    before = unharmed.samples()
    assert unharmed.web.ask(bad).status == status
    after = unharmed.samples()
    changed = {name: after[name] - before[name] for name in after if name[0] == "glassq_requests_refused_total"}
    assert {name for name, more in changed.items() if more} == {("glassq_requests_refused_total", reason)}
    assert changed["glassq_requests_refused_total", reason] == 1


def test_pings_and_metrics_have_a_door_each(unharmed: Watched) -> None:
    assert unharmed.web.ask(ASK).status == 404
    with Wire(unharmed.inside) as wire:
        assert wire.ask(PING).status == 404
    with Wire(unharmed.inside) as wire:
        assert wire.ask(HEALTH).status == 404
    # whom a request names changes nothing
    lying = ASK.replace(b"localhost", b"127.0.0.1:%d" % unharmed.inside[1])
    assert unharmed.web.ask(lying).status == 404


def test_behind_a_unix_socket_a_host_header_opens_no_door(
    start_web: Callable[..., Web], beanstalkd: Beanstalkd
) -> None:
    port = free_port()
    path = f"/tmp/glassq-test-{os.getpid()}-{port}.sock"
    web = start_web(beanstalkd.url, queue=f'[metrics]\nintake = "127.0.0.1:{port}"', bind=f"unix:{path}", at=path)
    assert web.ask(ASK.replace(b"localhost", b"127.0.0.1:%d" % port)).status == 404
    with Wire(("127.0.0.1", port)) as wire:
        assert wire.ask(ASK).status == 200


def test_without_the_setting_there_are_none(start_web: Callable[..., Web], beanstalkd: Beanstalkd) -> None:
    assert start_web(beanstalkd.url).ask(ASK).status == 404


def test_at_the_address_for_pings_only_by_the_same_address(
    start_web: Callable[..., Web], beanstalkd: Beanstalkd
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    web = start_web(beanstalkd.url, queue=f'[metrics]\nintake = "{address}"', bind=address, at=("127.0.0.1", port))
    assert web.ask(PING).status == 200
    assert samples(web.ask(ASK).body)["glassq_pings_acknowledged_total", "queue"] == 1


def test_the_journal_and_the_queues_trouble_are_told(watched: Watched, beanstalkd: Beanstalkd) -> None:
    beanstalkd.stop()
    for _ in range(3):
        assert watched.web.ask(PING).status == 200
    found = watched.samples()
    assert found["glassq_pings_acknowledged_total", "journal"] == 3
    assert found[("glassq_queue_usable",)] == 0
    assert found[("glassq_intake_ready",)] == 1
    assert found[("glassq_journal_deliveries",)] == 3
    assert found[("glassq_journal_bytes",)] > 3 * len(body())
    assert found[("glassq_journal_oldest_seconds",)] > 0
    assert found[("glassq_journal_damaged",)] == 0
    beanstalkd.start()
    wait_for(lambda: watched.samples()[("glassq_journal_deliveries",)] == 0, "the journal to be empty")
    wait_for(lambda: watched.samples()[("glassq_queue_usable",)] == 1, "the queue to be used again")


def test_a_worker_that_is_gone_journals_no_more(watched: Watched, beanstalkd: Beanstalkd) -> None:
    web = watched.web
    beanstalkd.stop()
    wait_for(lambda: watched.samples()[("glassq_intake_workers_journaling",)] == 2, "both to know")
    web.file.write_text(web.file.read_text().replace("workers = 2", "workers = 1"))
    before = set(web.workers())
    web.process.send(signal.SIGHUP)
    wait_for(lambda: len(set(web.workers()) - before) == len(web.workers()) == 1, "one instead of them")
    beanstalkd.start()
    wait_for(lambda: watched.samples()[("glassq_queue_usable",)] == 1, "the queue to be used again")


def test_what_was_counted_outlives_killed_workers_and_reloads(watched: Watched) -> None:
    web = watched.web
    for _ in range(10):
        web.ask(PING)
    first = web.workers()
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: len(web.workers()) == 2 and web.workers() != first, "another worker")
    web.process.send(signal.SIGHUP)
    wait_for(lambda: len(web.workers()) == 2 and not set(first) & set(web.workers()), "new workers only")
    wait_for(web.healthy, "them to answer")
    web.ask(PING)
    found = watched.samples()
    assert found["glassq_pings_acknowledged_total", "queue"] == 11
    wait_for(lambda: watched.samples()[("glassq_intake_workers",)] == 2, "two workers to be told")


@pytest.mark.parametrize("moves", ["metrics", "pings"])
def test_a_reload_with_another_address_beside_one_that_stays_changes_nothing(watched: Watched, moves: str) -> None:
    web = watched.web
    text = web.file.read_text()
    stays, moved = (web.address, watched.inside) if moves == "metrics" else (watched.inside, web.address)
    web.file.write_text(text.replace(f":{moved[1]}", f":{free_port()}"))
    web.process.send(signal.SIGHUP)
    wait_for(lambda: "need a restart of glassq-web" in web.log(), f"it to be refused\n{web.log()}")
    assert str(stays[1]) in web.log()
    assert web.ask(PING).status == 200
    assert watched.samples()["glassq_pings_acknowledged_total", "queue"] == 1


def test_an_address_that_systemd_did_not_hand_over_is_named(
    start_web: Callable[..., Web], beanstalkd: Beanstalkd
) -> None:
    port, inside = free_port(), free_port()
    hand_over = (
        "import os, socket, sys\n"
        f"sock = socket.create_server(('127.0.0.1', {port}))\n"
        "sock.fileno() == 3 or os.dup2(sock.fileno(), 3)\n"
        "os.set_inheritable(3, True)\n"
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    web = start_web(
        beanstalkd.url,
        queue=f'[metrics]\nintake = "127.0.0.1:{inside}"',
        at=("127.0.0.1", port),
        bind=f"127.0.0.1:{port}",
        under=(sys.executable, "-c", hand_over),
    )
    assert web.ask(PING).status == 200
    assert f"metrics are not served: systemd does not listen there address=127.0.0.1:{inside}" in web.log()


def test_an_address_that_somebody_else_has_keeps_no_ping_out_and_is_used_once_it_is_free(
    start_web: Callable[..., Web], beanstalkd: Beanstalkd
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        inside = taken.getsockname()
        web = start_web(beanstalkd.url, queue=f'[metrics]\nintake = "127.0.0.1:{inside[1]}"', workers=2)
        assert web.ask(PING).status == 200
        assert web.ask(ASK).status == 404
        (line,) = [line for line in web.log().splitlines() if "metrics are not served" in line]
        assert f"error glassq.intake[{web.process.pid}]: metrics are not served: Address already in use" in line
        assert f"address=127.0.0.1:{inside[1]} todo=" in line
    wait_for(lambda: "serving metrics" in web.log(), f"it to be tried again\n{web.log()}")

    def told() -> dict[tuple[str, ...], float]:
        with Wire(inside) as wire:
            return samples(wire.ask(ASK).body)

    assert told()["glassq_pings_acknowledged_total", "queue"] == 1
    before = set(web.workers())
    web.process.send(signal.SIGHUP)
    wait_for(lambda: len(web.workers()) == 2 and not before & set(web.workers()), f"a reload\n{web.log()}")
    assert web.ask(PING).status == 200
    wait_for(lambda: told()["glassq_pings_acknowledged_total", "queue"] == 2, "the new workers to be asked")


@pytest.mark.parametrize("address", ["192.0.2.1:9464", "no-such-host.invalid:9464"])
def test_an_address_that_this_machine_does_not_have_keeps_no_ping_out(
    start_web: Callable[..., Web], beanstalkd: Beanstalkd, address: str
) -> None:
    web = start_web(beanstalkd.url, queue=f'[metrics]\nintake = "{address}"')
    assert web.ask(PING).status == 200
    assert web.ask(ASK).status == 404
    assert "metrics are not served: " in web.log()
    assert f"address={address}" in web.log()
