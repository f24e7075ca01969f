"""conf/nginx-glassq.conf under a real nginx: only pings reach the intake, as they come, and nothing is stored."""

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
    """In glassq-web's place: notes what comes on each connection, and answers 200 to a request that is whole."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        #: what each connection has brought until now
        self.heard: list[bytes] = []
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.heard.append(b"")
            self._threads.append(threading.Thread(target=self._take, args=(connection, len(self.heard) - 1)))
            self._threads[-1].start()

    def _take(self, connection: socket.socket, number: int) -> None:
        with connection:
            while not self._whole(self.heard[number]):
                more = connection.recv(1 << 20)
                if not more:
                    return
                self.heard[number] += more
            connection.sendall(OK)

    @staticmethod
    def _whole(heard: bytes) -> bool:
        head, _, body = heard.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)^content-length: (\d+)\r?$", head, re.MULTILINE)
        return len(body) == (int(length[1]) if length else 0) and bool(head)

    def idle(self) -> bool:
        """Whether none of the connections is open."""
        return bool(self.heard) and not any(thread.is_alive() for thread in self._threads[1:])

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


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
            (r"(client_(header|body)_timeout) \d+s;", r"\1 2s;"),
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

    def answer(self, sent: bytes) -> bytes:
        """The beginning of the answer to a request; empty where the connection ends without one."""
        with self.connect() as sock:
            try:
                sock.sendall(sent)
                return sock.recv(1 << 16)
            except OSError:
                return b""

    def ask(self, sent: bytes) -> int:
        """The status of the answer to a request; 0 where there is none."""
        answer = self.answer(sent)
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


def test_a_body_that_never_ends_is_given_up_and_its_connection_to_the_intake_too(
    nginx: Nginx, upstream: Upstream
) -> None:
    assert nginx.ask(request()[:-1]) in (0, 408)
    # the upstream's thread ends with its connection
    wait_for(upstream.idle, "nginx to close it")


def test_a_large_body_passes_as_it_comes_and_nginx_writes_none_of_it(
    nginx: Nginx, upstream: Upstream, tmp_path: Path
) -> None:
    whole = request(b"x" * (25 << 20))
    with nginx.connect() as sock:
        sock.sendall(whole[: 1 << 20])
        # most of it: a buffer or two may be on the way
        wait_for(lambda: upstream.heard and len(upstream.heard[0]) > 1 << 19, "the first part to arrive")
        sock.sendall(whole[1 << 20 :])
        assert b" 200 " in sock.recv(1 << 16)
    assert upstream.heard[0].endswith(whole.partition(b"\r\n\r\n")[2])
    assert [path for path in (tmp_path / "nginx").rglob("*") if path.name.isdecimal() and path.is_file()] == []


def test_challenges_and_the_senders_address_reach_the_intake(nginx: Nginx, upstream: Upstream) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        forged = "X-Forwarded-For: 192.0.2.1"
        assert nginx.ask(request(b"", forged, line=f"{method} /hooks/shop/path-token?challenge=1 HTTP/1.1")) == 200
        assert upstream.heard[-1].startswith(f"{method} /hooks/shop/path-token?challenge=1 HTTP/1.1\r\n".encode())
        assert re.findall(rb"X-Forwarded-For: (.*)\r\n", upstream.heard[-1]) == [b"127.0.0.1"]


def test_what_is_no_ping_does_not_reach_the_intake(nginx: Nginx, upstream: Upstream) -> None:
    assert nginx.ask(request(line="PUT /hooks/mirror HTTP/1.1")) == 403
    for path in ("/readyz", "/healthz", "/metrics", "/"):
        assert nginx.ask(request(b"", line=f"GET {path} HTTP/1.1")) == 404
    assert nginx.ask(request(b"", length=27 << 20)) == 413
    assert nginx.ask(request(None, "X-Long: " + "x" * 9000)) == 400
    assert upstream.heard == []


def test_while_the_intake_is_away_the_source_is_told_to_send_again(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path / "nginx", free_port())
    try:
        head = nginx.answer(request()).partition(b"\r\n\r\n")[0].splitlines()
        assert b" 502 " in head[0]
        assert b"Retry-After: 5" in head
    finally:
        nginx.process.end()
