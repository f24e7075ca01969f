"""conf/nginx-glassq.conf under a real nginx: what is slow, absurd or not a ping does not reach the intake."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, Process, free_port, wait_for
from tests.intake.conftest import Web
from tests.intake.wire import body, request
from tests.system.programs import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Upstream:
    """In glassq-web's place: notes what comes on each connection, and answers each read with 200."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        #: what the first read of each connection brought
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.heard.append(connection.recv(1 << 20))
                connection.sendall(OK)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class Nginx:
    """nginx with our file, but for addresses, certificate and patience; `upstream` is a port."""

    def __init__(self, directory: Path, upstream: int) -> None:
        directory.mkdir()
        self.port = free_port()
        certificate, key = directory / "cert.pem", directory / "key.pem"
        run(
            need("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-keyout", key, "-out", certificate,
        )  # fmt: skip
        text = (ROOT / "conf" / "nginx-glassq.conf").read_text()
        for pattern, value in (
            (r"listen 443 ssl;\n\s+listen \[::\]:443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            (r"server 127\.0\.0\.1:8080;", f"server 127.0.0.1:{upstream};"),
            (r"ssl_certificate /.*;", f"ssl_certificate {certificate};"),
            (r"ssl_certificate_key /.*;", f"ssl_certificate_key {key};"),
            # so that the tests need not wait for long
            (r"(client_(header|body)_timeout) 5s;", r"\1 2s;"),
        ):
            text, found = re.subn(pattern, value, text)
            assert found, pattern
        places = "".join(
            f"{name}_temp_path {directory};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.file = directory / "nginx.conf"
        self.file.write_text(
            f"daemon off;\npid {directory}/pid;\nevents {{ }}\nhttp {{\naccess_log off;\n{places}{text}\n}}\n"
        )
        self.process = Process([need("nginx", "nginx-light"), "-e", "stderr", "-c", str(self.file)], directory / "log")
        wait_for(lambda: not self.process.running() or self._listens(), "nginx to listen")
        assert self.process.running(), self.process.output()

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=60))

    def ask(self, *parts: bytes) -> int:
        """The status of the answer to a request sent in parts; 0 where the connection ends without one."""
        with self.connect() as sock:
            try:
                for part in parts:
                    sock.sendall(part)
                answer = sock.recv(1 << 16)
            except OSError:
                return 0
        return int(answer.split()[1]) if answer else 0


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    listener = Upstream()
    yield listener
    listener.stop()


@pytest.fixture
def nginx(tmp_path: Path, upstream: Upstream) -> Iterator[Nginx]:
    server = Nginx(tmp_path / "nginx", upstream.port)
    yield server
    server.process.end()


def test_a_ping_is_taken_by_the_intake_behind_it(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    web = Web(tmp_path / "web", beanstalkd.url)
    nginx = None
    try:
        web.wait_ready()
        nginx = Nginx(tmp_path / "nginx", web.address[1])
        assert nginx.ask(request()) == 200
        # what is too large for a ping the intake refuses, with its own words
        assert nginx.ask(request(body(itemId="x" * 20_000))) == 413
        assert nginx.ask(request(body(verifyToken="wrong"))) in range(400, 500)
    finally:
        if nginx is not None:
            nginx.process.end()
        web.stop()


def test_a_head_that_never_ends_does_not_reach_the_intake(nginx: Nginx, upstream: Upstream) -> None:
    assert nginx.ask(request()[:60]) in (0, 408)
    assert upstream.heard == []


def test_a_body_that_never_ends_does_not_reach_the_intake(nginx: Nginx, upstream: Upstream) -> None:
    assert nginx.ask(request()[:-1]) in (0, 408)
    assert upstream.heard == []


def test_a_body_in_drops_reaches_the_intake_in_one_piece(nginx: Nginx, upstream: Upstream) -> None:
    whole = request()
    with nginx.connect() as sock:
        for position in range(len(whole) - 1):
            sock.sendall(whole[position : position + 1])
        # answers to other senders show that nginx has had time to read all that
        for _ in range(20):
            assert nginx.ask(request(line="POST /hooks/another HTTP/1.1")) == 200
        assert all(b"/hooks/another" in heard for heard in upstream.heard)
        sock.sendall(whole[-1:])
        assert b" 200 " in sock.recv(1 << 16)
    assert upstream.heard[-1].endswith(body())


def test_what_is_no_ping_does_not_reach_the_intake(nginx: Nginx, upstream: Upstream) -> None:
    assert nginx.ask(request(line="GET /hooks/mirror HTTP/1.1")) == 403
    for path in ("/readyz", "/healthz", "/metrics", "/"):
        assert nginx.ask(request(b"", line=f"GET {path} HTTP/1.1")) == 404
    assert nginx.ask(request(b"", length=1 << 20)) == 413
    assert nginx.ask(request(None, "X-Long: " + "x" * 5000)) == 400
    assert upstream.heard == []


def test_while_the_intake_is_away_the_source_is_told_to_send_again(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path / "nginx", free_port())
    try:
        assert nginx.ask(request()) == 502
    finally:
        nginx.process.end()
