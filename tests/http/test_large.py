"""Large bodies: they are received beside the loop, within a budget, and hold up nobody."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Process, wait_for
from tests.http.test_worker import get, serving, unread
from tests.intake.wire import Wire, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
BODY = os.urandom(MIB)
Server = tuple[Process, tuple[str, int]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that break nothing."""
    with serving(tmp_path_factory.mktemp("large")) as found:
        yield found


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    return request(body, *headers, line=f"POST {path} HTTP/1.1", length=length)


def says(kind: str, body: bytes) -> str:
    return f"{kind} {hashlib.sha256(body).hexdigest()} {len(body)}"


@pytest.mark.parametrize(
    ("path", "size", "kind"),
    [
        ("/in/large", 1024, "here"),
        ("/in/large", 1025, "here"),
        ("/in/large", 4096, "here"),
        ("/in/large", 4097, "large"),
        ("/in/large", 70_000, "large"),
        ("/in/large", MIB, "large"),
        ("/in/large/kept", MIB, "large"),
        ("/in/l%61rge/kept?x=1", 5000, "large"),
        ("/in/small", 1024, "here"),
    ],
)
@pytest.mark.parametrize("expects", [False, True])
def test_a_body_comes_whole_wherever_it_was_kept(
    server: Server, path: str, size: int, kind: str, expects: bool
) -> None:
    with Wire(server[1]) as wire:
        for _ in range(2):
            head, body = post(path, b"", *["Expect: 100-continue"] * expects, length=size), BODY[:size]
            wire.send(head)
            if expects:
                assert wire.answer().status == 100
            # what follows a body is the next request
            wire.send(body + get("/kept"))
            answer = wire.answer()
            assert (answer.status, answer.body.decode()) == (200, says(kind, body))
            assert wire.answer().body == b"/kept"


@pytest.mark.parametrize(
    ("path", "length"), [("/in/large", MIB + 1), ("/in/large", 999_999_999), ("/in/small", 1025), ("/other", 5000)]
)
def test_a_body_that_its_path_does_not_take_is_the_apps_to_refuse_at_once(
    server: Server, path: str, length: int
) -> None:
    with Wire(server[1]) as wire:
        answer = wire.ask(post(path, b"", length=length))
        assert answer.closing
        assert answer.body.decode() in (f"here {hashlib.sha256(b'').hexdigest()} {length}", "/other")


@pytest.mark.parametrize("body", [b"", BODY[:5000]])
def test_a_body_whose_head_the_app_refuses_is_not_received(server: Server, body: bytes) -> None:
    process, address = server
    before = process.output().count("closed a body")
    with Wire(address) as wire:
        # nobody says that the sender may continue
        answer = wire.ask(post("/in/large", body, "X-Wrong: 1", "Expect: 100-continue", length=MIB))
        assert (answer.status, answer.closing) == (200, True)
        assert answer.body.decode() == f"here {hashlib.sha256(body).hexdigest()} {MIB}"
        # a sender that goes on sending meets no reset before it has read that
        wire.send(BODY)
    with Wire(address) as wire:
        assert wire.ask(request(b"", line="POST /in/large HTTP/1.1", host="a b\x00", length=MIB)).status == 400
    assert process.output().count("closed a body") == before


def test_what_is_not_kept_gets_503_and_every_body_is_closed(server: Server) -> None:
    process, address = server
    before = process.output().count("closed a body")
    with Wire(address) as wire:
        statuses = [wire.ask(post(path, BODY)).status for path in ("/in/large/lost", "/in/large/kept", "/in/large")]
    with Wire(address) as wire:
        statuses.append(wire.ask(post("/in/large", b"bug" + BODY[3:])).status)
    assert statuses == [503, 200, 200, 503]
    wait_for(lambda: process.output().count("closed a body") >= before + 4, "the bodies to be closed")


@pytest.mark.parametrize(
    ("body", "reason"), [(BODY[:5555], "not kept"), (BODY[:5556], "bug"), (b"no disk" + BODY[7:], "not kept")]
)
def test_without_a_disk_or_with_a_bug_the_sender_is_to_come_again(server: Server, body: bytes, reason: str) -> None:
    process, address = server
    before = process.output().count(f"not received /in/large {reason}\n")
    with Wire(address) as wire:
        answer = wire.ask(post("/in/large", body))
    assert (answer.status, answer.headers["retry-after"], answer.closing) == (503, "5", True)
    wait_for(lambda: process.output().count(f"not received /in/large {reason}\n") == before + 1, "it to be counted")


def test_slow_bodies_hold_up_nobody(server: Server) -> None:
    with ExitStack() as opened:
        slow = [opened.enter_context(Wire(server[1])) for _ in range(100)]
        for wire in slow:
            wire.send(post("/in/large", BODY[:5000], length=MIB))
        with Wire(server[1]) as wire:
            assert wire.ask(get("/kept")).status == 200
            assert wire.ask(post("/in/large", BODY)).body.decode() == says("large", BODY)
        for wire in slow[:5]:
            wire.send(BODY[5000:])
            assert wire.answer().body.decode() == says("large", BODY)


def test_a_bug_in_looking_at_a_request_costs_its_connection_alone(tmp_path: Path) -> None:
    with serving(tmp_path, "del large.place") as (process, address), Wire(address) as other, Wire(address) as wire:
        assert wire.ask(post("/in/large", BODY)).status == 503
        # the same process goes on: an old connection stays
        assert other.ask(get("/kept")).status == 200
        assert "bug in the HTTP server" in process.output()


def test_a_client_that_goes_leaves_nothing(server: Server) -> None:
    process, address = server
    before = process.output().count("closed a body")
    with Wire(address) as wire:
        wire.send(post("/in/large", BODY[:5000], length=MIB))
    wait_for(lambda: process.output().count("closed a body") > before, "the body to be closed")
    wait_for(lambda: "not received /in/large cut off\n" in process.output(), "it to be counted")


def test_a_silent_sender_and_one_that_is_too_slow_get_408(tmp_path: Path) -> None:
    settings = ("BufferingWorker.request_timeout = 1.0", "spilling.MIN_RATE = 100_000", "spilling._LOOK = 0.05")
    with serving(tmp_path, *settings) as (_, address), Wire(address) as silent, Wire(address) as slow:
        silent.send(post("/in/large", BODY[:5000], length=MIB))
        slow.send(post("/in/large", b"", length=MIB))
        assert _sent_slowly(slow) < MIB
        assert [wire.answer().status for wire in (silent, slow)] == [408, 408]


def _sent_slowly(wire: Wire) -> int:
    """Sends 1,000 bytes at a time, never silent, until the server answers; how many went."""
    sent, over = 0, time.monotonic() + 60
    wire.sock.setblocking(False)
    while time.monotonic() < over:
        try:
            if wire.sock.recv(1, 2):
                break
        except BlockingIOError:
            wire.send(b"x" * 100)
            sent += 100
            time.sleep(0.02)
    wire.sock.settimeout(60)
    return sent


def test_a_body_that_moves_outlasts_the_time_for_a_request(tmp_path: Path) -> None:
    settings = ("BufferingWorker.request_timeout = 1.0", "spilling.MIN_RATE = 1_000", "spilling._LOOK = 0.05")
    with serving(tmp_path, *settings) as (_, address), Wire(address) as wire:
        wire.send(post("/in/large", b"", length=10_000))
        began = time.monotonic()
        for start in range(0, 10_000, 500):
            wire.send(BODY[start : start + 500])
            time.sleep(0.1)
        assert time.monotonic() - began > 1.5
        assert wire.answer().body.decode() == says("large", BODY[:10_000])


def test_beyond_the_budget_of_disk_a_new_one_gets_503_and_the_others_end_well(tmp_path: Path) -> None:
    settings = (f"BufferingWorker.spill_max = {2 * MIB}", "spilling.GRACE = 60.0")
    with serving(tmp_path, *settings) as (process, address), ExitStack() as opened:
        first, second, third = (opened.enter_context(Wire(address)) for _ in range(3))
        for wire in (first, second):
            wire.send(post("/in/large", b"", "Expect: 100-continue", length=MIB))
            assert wire.answer().status == 100
        answer = third.ask(post("/in/large", b"", length=MIB))
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        with Wire(address) as small:
            assert small.ask(get("/kept")).status == 200
        for wire in (first, second):
            wire.send(BODY)
            assert wire.answer().body.decode() == says("large", BODY)
        # the budget is free again
        with Wire(address) as fourth:
            assert fourth.ask(post("/in/large", BODY)).status == 200
        assert "too many large bodies at once" in process.output()


def test_beyond_the_budget_of_disk_a_slow_one_makes_room(tmp_path: Path) -> None:
    settings = (f"BufferingWorker.spill_max = {2 * MIB}", "spilling.GRACE = 0.0", "spilling.SLOW_RATE = 1 << 40")
    with serving(tmp_path, *settings) as (_, address), ExitStack() as opened:
        quick, slow, third = (opened.enter_context(Wire(address)) for _ in range(3))
        for wire in (quick, slow):
            wire.send(post("/in/large", b"", "Expect: 100-continue", length=MIB))
            assert wire.answer().status == 100
        quick.send(BODY[:-1])
        # what it has sent must have been seen
        with Wire(address) as other:
            wait_for(lambda: not unread(quick), "the server to read")
            assert other.ask(get("/kept")).status == 200
        assert third.ask(post("/in/large", BODY)).body.decode() == says("large", BODY)
        assert slow.answer().status == 503
        quick.send(BODY[-1:])
        assert quick.answer().body.decode() == says("large", BODY)


def test_beyond_the_budget_of_memory_a_request_in_parts_gets_503(tmp_path: Path) -> None:
    with serving(tmp_path, "BufferingWorker.memory_max = 5000") as (_, address), ExitStack() as opened:
        first, second = opened.enter_context(Wire(address)), opened.enter_context(Wire(address))
        first.send(post("/in/large", b"", "Expect: 100-continue", length=4000))
        assert first.answer().status == 100
        assert second.ask(post("/in/large", b"", length=4000)).status == 503
        with Wire(address) as small:
            assert small.ask(get("/kept")).status == 200
        first.send(BODY[:4000])
        assert first.answer().body.decode() == says("here", BODY[:4000])
        with Wire(address) as third:
            assert third.ask(post("/in/large", BODY[:4000])).status == 200


def test_when_too_many_come_the_oldest_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path, "large.LARGE_SHARE = 400") as (_, address), ExitStack() as opened:
        # gunicorn's default of 1,000 connections, less those that linger: two at once
        wires = [opened.enter_context(Wire(address)) for _ in range(3)]
        for wire in wires:
            wire.send(post("/in/large", b"", "Expect: 100-continue", length=MIB))
            assert wire.answer().status == 100
        assert wires[0].answer().status == 503
        for wire in wires[1:]:
            wire.send(BODY)
            assert wire.answer().status == 200


def test_too_much_held_forsakes_what_the_app_handed_over(tmp_path: Path) -> None:
    with serving(tmp_path, "BufferingWorker.max_held = 0") as (process, address), Wire(address) as wire:
        assert wire.ask(post("/in/large/kept", BODY)).status == 503
        wait_for(lambda: "forsaken /kept" in process.output(), "the app to hear of it")


def test_a_stop_lets_what_still_comes_end_well(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, address), Wire(address) as wire:
        wire.send(post("/in/large", b"", "Expect: 100-continue", length=MIB))
        assert wire.answer().status == 100
        process.send(signal.SIGTERM)
        wire.send(BODY)
        assert wire.answer().status == 200
        wait_for(lambda: "closed\n" in process.output(), "the app to be told")
