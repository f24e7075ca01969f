"""GET /sources on the unix socket in the runtime directory, of the real program."""

from __future__ import annotations

import signal
import stat
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq.intake.report import PATH, SOCKET, SourcesReport
from glassq.local_http import fetch
from tests.conftest import free_port, wait_for
from tests.intake.conftest import Web
from tests.intake.wire import PATIENCE, TOKEN, Wire, body, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

ASK = b"GET /sources HTTP/1.1\r\nHost: localhost\r\n\r\n"
OTHER = "another-verify-token-of-this-source"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    # left by a program that was killed
    (directory / SOCKET).touch()
    return directory


@pytest.fixture
def web(tmp_path: Path, runtime: Path, beanstalkd: Beanstalkd) -> Iterator[Web]:
    under = ("env", f"RUNTIME_DIRECTORY={runtime}")
    more = f'[metrics]\nintake = "127.0.0.1:{free_port()}"'
    server = Web(tmp_path / "web", beanstalkd.url, tokens=f"{TOKEN}\n{OTHER}", under=under, queue=more, workers=2)
    server.wait_ready()
    yield server
    server.stop()


def told(runtime: Path) -> SourcesReport:
    return msgspec.json.decode(fetch(str(runtime / SOCKET), PATH, timeout=PATIENCE), type=SourcesReport)


def test_it_adds_up_what_all_workers_have_counted_and_a_reload_forgets_only_who_used_which_line(
    web: Web, runtime: Path
) -> None:
    # 0600 of the directory apart, its user and group may ask
    assert stat.S_IMODE((runtime / SOCKET).stat().st_mode) == 0o660
    for _ in range(6):
        assert web.ask(request(body(verifyToken=OTHER))).status == 200
    for bad, status in ((request(b"{"), 400), (request(body(verifyToken="x")), 403), (request(kind="text/x"), 415)):
        assert web.ask(bad).status == status
    mirror = told(runtime).sources["mirror"]
    assert (mirror.kind, mirror.pings) == ("mirror", 6)
    assert mirror.refused == {"malformed": 1, "wrong token": 1, "content type": 1}
    assert mirror.last_ping is not None
    assert mirror.secrets[0] is None
    assert mirror.secrets[1] is not None
    loaded = told(runtime).loaded
    before = set(web.workers())
    web.process.send(signal.SIGHUP)
    wait_for(lambda: len(web.workers()) == 2 and not before & set(web.workers()), f"a reload\n{web.log()}")
    wait_for(lambda: told(runtime).loaded > loaded, "the new workers to be asked")
    assert web.ask(request()).status == 200
    after = told(runtime).sources["mirror"]
    assert after.pings == 7
    assert after.secrets[0] is not None
    assert after.secrets[1] is None


def test_it_is_served_there_only_and_nothing_else_is(web: Web, runtime: Path) -> None:
    assert web.ask(ASK).status == 404
    with Wire(str(runtime / SOCKET)) as wire:
        assert wire.ask(ASK).status == 200
        for line in ("GET /healthz", "GET /metrics", "POST /hooks/mirror"):
            assert wire.ask(request(line=f"{line} HTTP/1.1")).status == 404


def test_a_runtime_directory_that_takes_no_socket_keeps_no_ping_out(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    gone = tmp_path / "gone"
    web = Web(tmp_path / "web", beanstalkd.url, under=("env", f"RUNTIME_DIRECTORY={gone}"))
    try:
        web.wait_ready()
        assert web.ask(request()).status == 200
        assert f"the counters of sources cannot be read socket={gone / SOCKET}" in web.log()
    finally:
        web.stop()
