"""Connections: one after another, several requests on one, slow ones, greedy ones, and ones that go away."""

from __future__ import annotations

import resource
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import free_port, wait_for
from tests.intake.conftest import Web, assert_clean, empty
from tests.intake.crowd import Crowd
from tests.intake.wire import HEALTH, MARKER, PATIENCE, Wire, body, request
from tests.metrics.test_counters import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd

PING = request()
EXPECTING = request(None, "Expect: 100-continue")
HEAD, _, BODY = EXPECTING.partition(b"\r\n\r\n")
HEAD += b"\r\n\r\n"


def descriptors(web: Web) -> int:
    (worker,) = web.workers()
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


# -- several requests on one connection --------------------------------------------------------------------------


def test_a_connection_serves_one_request_after_another(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        assert [wire.ask(PING).status for _ in range(20)] == [200] * 20
    assert len(jobs()) == 20


def test_35_pipelined_requests_are_answered_in_order(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        wire.send(PING + HEALTH + request(b"{}") + request(b"", line="GET /nowhere HTTP/1.1") + PING)
        assert [wire.answer().status for _ in range(5)] == [200, 200, 403, 404, 200]
    assert len(jobs()) == 2


def test_a_refused_body_is_never_taken_for_the_next_request(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    refused = (
        request(PING, kind="text/plain"),
        request(PING, line="POST /nowhere HTTP/1.1"),
        request(PING, line="PUT /healthz HTTP/1.1"),
    )
    with web.wire() as wire:
        for data in refused:
            assert wire.ask(data).status in (404, 405, 415)
            assert wire.ask(HEALTH).body == b"ok\n"
    assert jobs() == []


def test_a_pipelined_request_may_arrive_in_pieces(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        for cut in (1, 20, len(PING) - 300, len(PING) - 1):
            wire.send(PING + PING[:cut])
            assert wire.answer().status == 200
            assert wire.ask(PING[cut:]).status == 200
    assert len(jobs()) == 8


def test_a_request_may_arrive_byte_by_byte(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(PING)):
            wire.send(PING[at : at + 1])
        assert wire.answer().status == 200
    assert len(jobs()) == 1


def test_an_empty_line_before_a_request_is_ignored(web: Web) -> None:
    with web.wire() as wire:
        assert wire.ask(HEALTH + b"\r\n").status == 200
        assert wire.ask(HEALTH).status == 200


@pytest.mark.parametrize("line", ["GET /healthz HTTP/1.0", "GET /healthz HTTP/1.1"])
def test_a_client_that_asks_for_the_end_of_the_connection_gets_it(web: Web, line: str) -> None:
    with web.wire() as wire:
        assert wire.ask(f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()).closing
        assert wire.rest() == b""


def test_half_closing_after_a_whole_request_still_gets_the_answer(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        wire.send(PING)
        wire.half_close()
        assert wire.answer().status == 200
        assert wire.rest() == b""
    assert len(jobs()) == 1


# -- Expect: 100-continue ----------------------------------------------------------------------------------------


def test_33_who_expects_100_gets_it_once_before_the_body(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        for _ in range(2):
            assert wire.ask(HEAD).status == 100
            assert wire.ask(BODY).status == 200
    assert wire.seen.count(b"100 Continue") == 2
    assert len(jobs()) == 2


@pytest.mark.parametrize("pieces", [1, 3])
def test_33_a_doubled_expectation_gets_one_100(web: Web, jobs: Callable[[], list[bytes]], pieces: int) -> None:
    head = HEAD.replace(b"Expect:", b"Expect: 100-continue\r\nExpect:")
    with web.wire() as wire:
        assert wire.ask(head).status == 100
        for at in range(pieces - 1):
            wire.send(BODY[at : at + 1])
        assert wire.ask(BODY[pieces - 1 :]).status == 200
    assert wire.seen.count(b"100 Continue") == 1
    assert len(jobs()) == 1


def test_33_http_1_0_knows_no_100(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    with web.wire() as wire:
        assert wire.ask(EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0")).status == 200
    assert b"100 Continue" not in wire.seen
    assert len(jobs()) == 1


def test_33_what_is_refused_anyway_gets_no_100(web: Web) -> None:
    with web.wire() as wire:
        assert wire.ask(request(b"", "Expect: 100-continue", length=70_000)).status == 413


# -- who goes away, and who stays too long ------------------------------------------------------------------------


def test_66_a_client_that_leaves_before_the_answer_has_its_ping_kept(web: Web, shared_beanstalkd: Beanstalkd) -> None:
    queue = shared_beanstalkd.queue()
    for _ in range(5):
        with web.wire() as wire:
            wire.send(PING)
            # a reset, not a polite goodbye
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: queue.stats_tube().ready == 5, "all five pings to be kept")
    queue.close()
    assert web.healthy()
    assert_clean(web.log())


def test_who_never_closes_after_an_error_holds_up_nobody(web: Web) -> None:
    with ExitStack() as stack:
        staying = [stack.enter_context(web.wire()) for _ in range(20)]
        for wire in staying:
            assert wire.ask(b"\x16\x03\x01").status == 400
        assert [web.ask(PING).status for _ in range(20)] == [200] * 20
        # and the server does not wait for ever
        assert [wire.rest() for wire in staying] == [b""] * 20


def greedy_until_dropped(address: tuple[str, int]) -> None:
    """Asks and asks, and never reads an answer, until the server has enough of it."""
    with socket.socket() as sock:
        # as few answers as possible shall fit on the way
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # thousands of answers take a busy machine their time
        sock.settimeout(4 * PATIENCE)
        sock.connect(address)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                sock.sendall(HEALTH * 1000)


def test_who_asks_thousands_of_times_and_never_reads_is_dropped_and_holds_up_nobody(web: Web) -> None:
    # one more than the server has threads
    with ThreadPoolExecutor(5) as threads:
        greedy = [threads.submit(greedy_until_dropped, web.address) for _ in range(5)]
        assert [web.ask(PING).status for _ in range(20)] == [200] * 20
        for one in greedy:
            one.result()
    assert web.healthy()
    assert_clean(web.log())


def test_no_descriptor_is_left_behind(web: Web) -> None:
    def visits() -> None:
        for data in (PING, HEALTH, b"\x16\x03\x01", request(b"", length=70_000), PING[:50], b""):
            for _ in range(20):
                with web.wire() as wire:
                    wire.send(data)
                    wire.half_close()
                    wire.rest()

    visits()
    wait_for(lambda: web.healthy() and descriptors(web) < 40, "the first visitors' descriptors to be closed")
    before = descriptors(web)
    visits()
    wait_for(lambda: descriptors(web) <= before, "as few descriptors as before")


FEW_DESCRIPTORS = ("/bin/sh", "-c", 'ulimit -n 120 && exec "$0" "$@"')


def test_more_clients_than_descriptors_are_served_in_the_end(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, under=FEW_DESCRIPTORS, request_timeout="1s")
    workers = web.workers()
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(web.wire())
        assert web.ask(PING).status == 200
    assert web.workers() == workers


def test_running_out_of_descriptors_ends_no_worker(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url, request_timeout="1s")
    workers = web.workers()
    # fewer than it was told at its start
    resource.prlimit(workers[0], resource.RLIMIT_NOFILE, (descriptors(web) + 10, 1024))
    with ExitStack() as stack:
        for _ in range(25):
            stack.enter_context(web.wire())
        assert web.ask(HEALTH).status == 200
    assert web.ask(PING).status == 200
    assert web.workers() == workers


def slow_clients(stack: ExitStack, web: Web, many: int) -> list[Wire]:
    """One after another connects, sends the beginning of a ping, and goes no further."""
    slow = []
    for number in range(many):
        slow.append(stack.enter_context(web.wire()))
        slow[-1].send(PING[: 10 + number % 400])
    return slow


def test_without_descriptors_those_who_wait_make_room(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url, request_timeout="1h")
    (worker,) = web.workers()
    # its threads have opened what they need for the queue
    assert [web.ask(PING).status for _ in range(10)] == [200] * 10
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (descriptors(web) + 10, 1024))
    with ExitStack() as stack:
        waiting = slow_clients(stack, web, 25)
        assert [web.ask(PING).status for _ in range(10)] == [200] * 10
        assert waiting[0].answer().status == 503
    assert web.workers() == [worker]


# -- slow clients -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, shared_beanstalkd: Beanstalkd) -> Iterator[Web]:
    """A server that waits two seconds for a request."""
    server = Web(tmp_path_factory.mktemp("impatient"), shared_beanstalkd.url, request_timeout="2s")
    server.wait_ready()
    yield server
    server.stop()


def drip(wire: Wire, data: bytes, stop: threading.Event) -> None:
    """Sends a byte now and then, for as long as the server takes them."""
    for at in range(len(data)):
        if stop.wait(0.1):
            return
        try:
            wire.sock.sendall(data[at : at + 1])
        except OSError:
            return


@pytest.mark.parametrize("arrived", [20, len(PING) - len(body()) + 3], ids=["63 slow header", "64 slow body"])
def test_a_slow_request_is_ended_with_408(impatient: Web, arrived: int) -> None:
    stop = threading.Event()
    with impatient.wire() as wire:
        wire.send(PING[:arrived])
        slow = threading.Thread(target=drip, args=(wire, PING[arrived:], stop))
        slow.start()
        answer = wire.answer()
        stop.set()
        slow.join()
        assert (answer.status, answer.closing, answer.is_problem()) == (408, True, True)
        assert wire.rest() == b""
    assert_clean(impatient.log())


def test_64_the_second_of_two_pipelined_requests_may_be_slow_too(impatient: Web) -> None:
    with impatient.wire() as wire:
        wire.send(PING + PING[:-1])
        assert [wire.answer().status for _ in range(2)] == [200, 408]


def test_a_connection_without_a_word_is_closed_without_one(impatient: Web) -> None:
    with impatient.wire() as wire:
        assert wire.rest() == b""


def test_who_connects_and_says_nothing_makes_room_for_who_does(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, conf="worker_connections = 20", request_timeout="60s")
    with ExitStack() as stack:
        silent = [stack.enter_context(web.wire()) for _ in range(60)]
        assert [web.ask(PING).status for _ in range(5)] == [200] * 5
        # nobody was asked to wait for the end of the minute that they may be silent
        assert silent[0].rest() == b""


@pytest.mark.parametrize("many", [12, 60])
def test_65_slow_clients_hold_up_nobody(beanstalkd: Beanstalkd, start_web: Callable[..., Web], many: int) -> None:
    web = start_web(beanstalkd.url, request_timeout="1h")
    with ExitStack() as stack:
        slow = slow_clients(stack, web, many)
        assert [web.ask(PING).status for _ in range(50)] == [200] * 50
        for wire in slow:
            wire.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                wire.sock.recv(1)
    assert len(empty(beanstalkd)) == 50


def test_who_has_not_finished_for_longest_makes_room(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    inside = ("127.0.0.1", free_port())
    metrics = f'[metrics]\nintake = "127.0.0.1:{inside[1]}"'
    web = start_web(beanstalkd.url, conf="worker_connections = 20", request_timeout="1h", queue=metrics)
    with ExitStack() as stack:
        slow = slow_clients(stack, web, 40)
        answers = [wire.answer() for wire in slow[:20]]
        assert [answer.status for answer in answers] == [503] * 20
        assert all(answer.closing and answer.is_problem() for answer in answers)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        # they are told, and not reset
        assert [wire.rest() for wire in slow[:20]] == [b""] * 20
        # the newest are waited for
        assert [slow[number].ask(PING[10 + number :]).status for number in range(30, 40)] == [200] * 10
        wait_for(lambda: "too many connections" in web.log(), "the log to tell of it")
    with Wire(inside) as wire:
        told = samples(wire.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body)
    assert told["glassq_requests_refused_total", "connections"] >= 20
    assert web.log().count("too many connections") == 1
    assert "status=503" not in web.log()


def test_a_crowd_that_never_finishes_keeps_no_ping_out(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url, conf="worker_connections = 100", workers=2, request_timeout="1h")
    wait_for(lambda: len(web.workers()) == 2, "both workers to be there")
    started, workers = time.monotonic(), web.workers()
    with ExitStack() as stack:
        crowd = stack.enter_context(Crowd(web.address, 600))
        wait_for(crowd.inside, "all of the crowd to have come")
        kept = stack.enter_context(web.wire())
        for _ in range(50):
            assert web.ask(PING).status == 200
            assert kept.ask(PING).status == 200
        assert crowd.closed >= 400
        assert set(crowd.answered) == {b"HTTP/1.1 503 Service Unavailable"}
    assert web.workers() == workers
    # a line for each worker, however many were hung up on
    assert web.log().count("too many connections") <= 2 * (1 + (time.monotonic() - started) // 60)
    assert len(empty(beanstalkd)) == 100


def test_65_each_of_many_slow_clients_is_ended_with_408(impatient: Web) -> None:
    with ExitStack() as stack:
        slow = slow_clients(stack, impatient, 60)
        assert [wire.answer().status for wire in slow] == [408] * 60


# -- where it listens ---------------------------------------------------------------------------------------------


def test_it_listens_on_a_unix_socket(beanstalkd: Beanstalkd, tmp_path: Path, start_web: Callable[..., Web]) -> None:
    path = tmp_path / "web.sock"
    web = start_web(beanstalkd.url, at=str(path), bind=f"unix:{path}")
    assert web.ask(PING).status == 200
    assert web.ask(request(b"{}", f"X-Forwarded-For: {MARKER}")).status == 403
    assert web.ask(b"\x16\x03\x01").status == 400
    assert len(empty(beanstalkd)) == 1


def test_it_listens_on_ipv6(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    port = free_port("::1")
    web = start_web(beanstalkd.url, at=("::1", port), bind=f"[::1]:{port}")
    assert web.ask(PING).status == 200
    assert web.ask(request(host=f"[::1]:{port}")).status == 200
    assert len(empty(beanstalkd)) == 2
