"""The worker with an app that is not the intake's: it knows no pings, only what an app hands over to be kept."""

from __future__ import annotations

import fcntl
import sys
import termios
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, Process, free_port, wait_for
from tests.intake.wire import Wire, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER = """
import hashlib, logging, sys, threading, time
from gunicorn.app.base import BaseApplication
from glassq.errors import GlassqError
from glassq.http import foreign, large, spilling
from glassq.http.gunicorn_worker import BufferingWorker

for setting in sys.argv[2:]:
    exec(setting)

released = threading.Event()

class Counters:
    def refused(self, status): pass
    def crowded(self): pass

class Server(BaseApplication):
    aside = {"/aside", "/much"}
    foreign = {"/foreign/code"}
    listeners = ()
    counters = Counters()
    request_log = logging.getLogger("test")
    body_limits = {"/in/large": 1 << 20, "/in/small": 1 << 10}
    inline = 4 << 10

    def refuses(self, environ):
        return "HTTP_X_WRONG" in environ

    def not_received(self, path, reason):
        print(f"not received {path} {reason}", flush=True)

    def begin_body(self, size):
        if size == 5555:
            raise GlassqError("no room")
        if size == 5556:
            raise RuntimeError("a bug")
        return Body()

    def forsake(self, items):
        # in one write: other threads print, too
        print(f"forsaken {items[0]}", flush=True)

    def load_config(self):
        self.cfg.set("bind", f"127.0.0.1:{sys.argv[1]}")
        self.cfg.set("worker_class", BufferingWorker)
        self.cfg.set("control_socket_disable", True)

    def load(self):
        return app

    def keep(self, items):
        if "/raises" in items:
            raise RuntimeError("the batch")
        return [not item.startswith("/lost") for item in items]

    def close(self):
        print("closed", flush=True)

class Body:
    def __init__(self):
        self.parts = []

    def write(self, data):
        if data[:7] == b"no disk":
            raise GlassqError("no disk")
        self.parts.append(bytes(data))

    def close(self):
        print("closed a body", flush=True)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/foreign/code/exit":
        raise SystemExit(3)
    if path == "/foreign/code/hang":
        released.wait()
    if path == "/release":
        released.set()
    if path.startswith("/in/"):
        body = environ.get("glassq.body")
        sent = b"".join(body.parts) if body else environ["wsgi.input"].read()
        if sent[:3] == b"bug":
            raise RuntimeError("the app")
        if path.endswith(("/kept", "/lost")):
            environ["glassq.turn"].append(path[9:])
        digest, length = hashlib.sha256(sent).hexdigest(), environ.get("CONTENT_LENGTH")
        said = f"{'large' if body else 'here'} {digest} {length}".encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
        return [said]
    if path in ("/aside", "/much"):
        assert "glassq.turn" not in environ
    elif path == "/later":
        # asked in the loop, and then again beside it, with its body
        environ["glassq.aside"] = "glassq.turn" in environ
        path = environ["wsgi.input"].read().decode()
    elif path != "/":
        environ["glassq.turn"].append(path)
    if path.startswith("/bug"):
        raise RuntimeError("the app")
    body = path.encode() * (30_000 if path == "/much" else 1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

Server().run()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Process, tuple[str, int]]]:
    with serving(tmp_path) as found:
        yield found


@contextmanager
def serving(tmp_path: Path, *settings: str) -> Iterator[tuple[Process, tuple[str, int]]]:
    """The server; `settings` are statements that it executes first."""
    address = ("127.0.0.1", free_port())
    command = [sys.executable, "-c", SERVER, str(address[1]), *settings]
    process = Process(command, tmp_path / "log", {"PYTHONPATH": str(ROOT)})

    def answers() -> bool:
        try:
            with Wire(address) as wire:
                return wire.ask(get("/")).status == 200
        except OSError:
            return False

    try:
        wait_for(answers, "the server to answer")
        yield process, address
    finally:
        process.end()


def unread(wire: Wire) -> int:
    """How many bytes its peer's kernel has not taken yet."""
    found = fcntl.ioctl(wire.sock, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def get(path: str) -> bytes:
    return request(b"", line=f"GET {path} HTTP/1.1")


def test_each_answer_goes_with_what_its_own_request_handed_over(server: tuple[Process, tuple[str, int]]) -> None:
    process, address = server
    paths = ["/kept1", "/bug", "/lost1", "/", "/kept2", "/bug", "/lost2", "/aside", "/kept3"]
    expected = [200, 503, 503, 200, 200, 503, 503, 200, 200]
    for _ in range(10):
        # a crowd of connections whose requests come at once: they share turns
        wires = [Wire(address) for _ in paths]
        for wire, path in zip(wires, paths, strict=True):
            wire.send(get(path))
        answers = [wire.answer() for wire in wires]
        assert [answer.status for answer in answers] == expected
        for answer, path in zip(answers, paths, strict=True):
            assert answer.status != 200 or answer.body.decode() == path
            assert answer.closing == (path == "/bug")
        for wire in wires:
            wire.sock.close()
    assert process.output().count("RuntimeError: the app") == 20


def test_what_the_app_finds_to_take_long_is_worked_again_beside(server: tuple[Process, tuple[str, int]]) -> None:
    _, address = server
    with Wire(address) as wire:
        wire.send(request(b"/what/came", line="POST /later HTTP/1.1") + get("/kept") + get("/"))
        assert [wire.answer().body for _ in range(3)] == [b"/what/came", b"/kept", b"/"]


def test_foreign_code_that_hangs_or_exits_keeps_no_others_waiting(tmp_path: Path) -> None:
    with serving(tmp_path, "foreign.MAX_WAITING = 6") as (_, address), ExitStack() as opened:
        with Wire(address) as wire:
            assert wire.ask(get("/foreign/code/exit")).status == 503
        hanging = [opened.enter_context(Wire(address)) for _ in range(6)]
        for wire in hanging:
            wire.send(get("/foreign/code/hang"))
        # the loop takes what comes in order: this one comes after the six
        with Wire(address) as wire:
            wait_for(lambda: all(not unread(each) for each in hanging), "the server to read")
            assert wire.ask(get("/kept")).status == 200
            assert wire.ask(get("/foreign/code/hang")).status == 503
        assert [_ask(address, path) for path in ("/kept", "/lost", "/aside", "/release")] == [200, 503, 200, 200]
        assert [wire.answer().status for wire in hanging] == [200] * 6


def _ask(address: tuple[str, int], path: str) -> int:
    with Wire(address) as wire:
        return wire.ask(get(path)).status


def test_a_large_answer_from_aside_goes_out_whole(server: tuple[Process, tuple[str, int]]) -> None:
    _, address = server
    with Wire(address) as wire:
        wire.send(get("/much"))
        answer = wire.answer()
        assert answer.body == b"/much" * 30_000
        assert wire.ask(get("/")).status == 200


def test_a_batch_that_cannot_be_kept_is_told_and_the_next_one_is(server: tuple[Process, tuple[str, int]]) -> None:
    process, address = server
    with Wire(address) as wire:
        assert [wire.ask(get(path)).status for path in ("/raises", "/kept", "/raises", "/kept")] == [503, 200, 503, 200]
    assert process.output().count("RuntimeError: the batch") == 2


def test_a_stop_tells_the_app_after_the_last_answer(server: tuple[Process, tuple[str, int]]) -> None:
    process, address = server
    with Wire(address) as wire:
        assert wire.ask(get("/kept")).status == 200
    assert process.end() == 0
    assert process.output().count("closed") == 1
