"""Everything on ::1: the queue, the intake, both programs' metrics, a target, and what operators ask."""

from __future__ import annotations

import json
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from tests import forked
from tests.conftest import Process, free_port, wait_for
from tests.intake.conftest import Web
from tests.intake.wire import Wire, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASK = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")


class Target:
    """Takes one task on ::1, and says what it was asked."""

    def __init__(self) -> None:
        self._server = socket.create_server(("::1", 0), family=socket.AF_INET6)
        self._server.settimeout(60)
        self.port: int = self._server.getsockname()[1]

    def take(self) -> bytes:
        connection, _ = self._server.accept()
        with self._server, connection:
            asked = connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return asked


@pytest.fixture
def beanstalkd(tmp_path: Path) -> Iterator[tuple[int, Process]]:
    server, port = shutil.which("beanstalkd"), free_port("::1")
    if server is None:
        pytest.skip("beanstalkd is missing: make setup")
    (tmp_path / "binlog").mkdir()
    options = ["-l", "::1", "-p", str(port), "-b", str(tmp_path / "binlog"), "-f0"]
    process = Process([server, *options], tmp_path / "beanstalkd.log")
    yield port, process
    process.end()


def test_all_of_it_works_on_ipv6(tmp_path: Path, beanstalkd: tuple[int, Process]) -> None:
    queue_port, server = beanstalkd
    port, inside, pool_inside = (free_port("::1") for _ in range(3))
    target = Target()
    more = f"""
[metrics]
intake = "[::1]:{inside}"
pool = "[::1]:{pool_inside}"
[ledger]
url = "sqlite:///{tmp_path}/ledger.db"
[push]
names = "sqlite:///{tmp_path}/names.db"
[push.targets]
default = "http://[::1]:{target.port}/base"
[[routes]]
source = "mirror"
handler = "http://[::1]:{target.port}/hook"
[worker]
processes = 1
"""
    queue_url = f"beanstalk://[::1]:{queue_port}"
    web = Web(tmp_path / "web", queue_url, at=("::1", port), bind=f"[::1]:{port}", queue=more)
    asking = ["--config", str(web.file)]
    pool = Process(asking, tmp_path / "pool.log", forks="glassq-worker")
    try:
        web.wait_ready()
        assert web.ask(request()).status == 200
        assert target.take().startswith(b"POST /hook HTTP/1.1\r\nHost: [::1]:%d\r\n" % target.port)
        assert all(metrics(at) for at in (inside, pool_inside))
        told = json.loads(forked.run([*asking, "doctor", "--json"])[1])
        found = {check["name"]: check["ok"] for check in told["checks"]}
        assert found["queue"] and found["intake"]
        server.end()
        assert f"beanstalkd at [::1]:{queue_port}:" in forked.run([*asking, "status"])[2]
    finally:
        pool.end()
        web.stop()


def metrics(port: int) -> bool:
    """Whether they are told there, sooner or later."""

    def asked() -> bool:
        try:
            with Wire(("::1", port)) as wire:
                return wire.ask(ASK).status == 200
        except OSError:
            return False

    wait_for(asked, "metrics to be told")
    return True
