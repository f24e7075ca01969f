"""bin/glassq-console as a real process on a unix socket: who it takes the other end for, and how it begins and ends."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from glassq.console.guard import HEADERS, MAX_BODY
from tests.conftest import Process, free_port, wait_for
from tests.console.served import Served
from tests.intake.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ME = pwd.getpwuid(os.getuid()).pw_name
# Asks the socket as whoever runs it.
ASK = """import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(b"GET /login.json HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
while data := peer.recv(65536):
    sys.stdout.buffer.write(data)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("console"))
    yield made
    made.end()


def test_the_socket_is_for_its_user_and_group_alone(served: Served) -> None:
    assert served.socket.stat().st_mode & 0o777 == 0o660
    key = served.file.parent / "console" / "key"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_who_connects_is_known_by_the_kernel_and_signs_in_with_one_click(served: Served) -> None:
    answer = served.ask("GET /login")
    assert f"Sign in as {ME} (operator)".encode() in answer.body
    answer = served.post("/login")
    assert answer.status == 303
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert re.fullmatch(r"__Host-glassq-[0-9a-f]{8}=[\w.-]+", cookie)
    assert served.ask("GET /plans/none", f"Cookie: {cookie}").status == 404
    assert served.ask("GET /plans/none", f"Cookie: {cookie[:-2]}AA").status == 303


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_of_the_machine_is_not_taken_for_us(served: Served) -> None:
    served.socket.chmod(0o666)
    try:
        # ours is perhaps where nobody else may go, as the directory above is
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
        command = [python, "-c", ASK, served.socket.name]
        done = subprocess.run(command, capture_output=True, user="games", extra_groups=(), cwd=served.socket.parent)
    finally:
        served.socket.chmod(0o660)
    assert b'"who": "games"' in done.stdout, done.stderr
    assert b'"role": "nobody"' in done.stdout


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("GET /login", ["Host: evil.test"], 400),
        ("GET http://evil.test/login", [], 400),
        ("POST /login", ["Transfer-Encoding: chunked"], 400),
        ("TRACE /login", [], 403),
        ("GET /login", [f"Cookie: {'a' * 9000}"], 431),
        (f"GET /{'a' * 9000}", [], 414),
    ],
)
def test_what_is_no_plain_request_is_refused(line: str, headers: list[str], status: int, served: Served) -> None:
    answer = served.ask(line, *headers)
    assert answer.status in (status, 400)
    # the app has not seen all of these
    assert {name.lower() for name in HEADERS} <= {name.lower() for name in answer.headers}


def test_another_host_reads_nothing(served: Served) -> None:
    with Wire(str(served.socket)) as wire:
        assert wire.ask(b"GET /login HTTP/1.1\r\nHost: evil.test\r\n\r\n").status == 421


def test_a_body_that_is_too_large_is_refused_before_it_is_here(served: Served) -> None:
    headers = ("Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Site: same-origin")
    assert served.ask("POST /login", *headers, length=1 << 30).status == 413
    assert served.post("/login", b"a=" + b"x" * MAX_BODY).status == 413


def test_slow_clients_hold_up_nobody(served: Served) -> None:
    slow = []
    try:
        for _ in range(40):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(served.socket))
            peer.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
            slow.append(peer)
        assert served.ask("GET /login").status == 200
    finally:
        for peer in slow:
            peer.close()


def test_a_forgery_of_another_site_is_refused(served: Served) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    for headers in (("Sec-Fetch-Site: cross-site",), ("Origin: https://evil.test",), ()):
        answer = served.ask("POST /login", form, *headers)
        assert (answer.status, "set-cookie" in answer.headers) == (403, False)


def test_in_the_foreground_its_link_signs_in_once(tmp_path: Path) -> None:
    file, port = tmp_path / "glassq.toml", free_port()
    file.write_text(f'[queue]\nurl = "beanstalk://127.0.0.1:1"\n[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n')
    process = Process(["--config", str(file), "--foreground", str(port)], tmp_path / "log", forks="glassq-console")
    try:
        wait_for(lambda: "/login?code=" in process.output() or not process.running(), "its link")
        (code,) = re.findall(rf"http://localhost:{port}/login\?code=(\S+)", process.output())

        def sign_in(given: str) -> int:
            body = f"code={given}".encode()
            head = [
                *("POST /login HTTP/1.1", f"Host: localhost:{port}", f"Content-Length: {len(body)}"),
                *("Content-Type: application/x-www-form-urlencoded", f"Origin: http://localhost:{port}"),
            ]
            with Wire(("127.0.0.1", port)) as wire:
                return wire.ask("\r\n".join(head).encode() + b"\r\n\r\n" + body).status

        assert [sign_in(code), sign_in(code)] == [303, 403]
        more = Process(["--config", str(file), "--link", str(port)], tmp_path / "more", forks="glassq-console")
        assert more.wait() == 0
        assert sign_in(more.output().rpartition("=")[2].strip()) == 303
    finally:
        assert process.end(signal.SIGINT) == 0, process.output()


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        ("0.0.0.0:8099", "ssh -L 8099:/run/glassq-console.sock HOST"),
        ("192.0.2.1:8099", "ssh -L 8099:/run/glassq-console.sock HOST"),
        ("[::]:8099", "ssh -L 8099:/run/glassq-console.sock HOST"),
    ],
)
def test_it_does_not_start_where_other_machines_reach_it(bind: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "glassq.toml"
    file.write_text(f'[console]\nbind = "{bind}"\n')
    process = Process(["--config", str(file)], tmp_path / "log", forks="glassq-console")
    assert process.wait() == 78
    assert says in process.output()


def test_what_few_need_is_not_loaded() -> None:
    """SQLAlchemy alone would be a quarter of its memory; a ledger in a plain file needs none of it."""
    code = "import sys; import glassq.programs.console; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"sqlalchemy", "psycopg", "boto3", "botocore", "google", "googleapiclient", "requests", "click"}
