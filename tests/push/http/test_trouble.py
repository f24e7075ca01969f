"""While the queue is away, and over a reload; on a server of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from glassq.errors import SettingsError
from glassq.push.http.server import check
from glassq.settings import parse
from tests.conftest import Beanstalkd, Process, wait_for
from tests.push.http.conftest import QUEUE, TOKEN, Tasks

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://127.0.0.1:9/base/send"


def test_while_the_queue_is_away_nothing_is_added_and_then_all_is_well(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    server = Tasks(tmp_path / "server", beanstalkd, f"{TOKEN}\n")
    try:
        server.wait_ready()
        beanstalkd.stop(syncer=False)
        plain = {"task": {"httpRequest": {"url": URL}}}
        named = {"task": {**plain["task"], "name": f"{QUEUE.removeprefix('/v2/')}/tasks/a"}}
        for line, message in ((f"POST {QUEUE}/tasks", plain), (f"POST {QUEUE}/tasks", named), (f"GET {QUEUE}", None)):
            answer = server.ask(server.request(line, message))
            assert (answer.status, answer.headers["retry-after"]) == (503, "5"), line
        assert server.ask(server.request("GET /readyz")).status == 503
        beanstalkd.start()
        # the name was not taken by the put that failed
        wait_for(lambda: server.ask(server.request(f"POST {QUEUE}/tasks", named)).status == 200, "the task to be added")
        assert [delivery.labels["task"] for delivery in server.deliveries()] == ["a"]
        _reload(server)
    finally:
        server.stop()


def _reload(server: Tasks) -> None:
    """New tokens come with a reload; wrong settings change nothing."""
    tokens = server.dir / "tokens"
    tokens.write_text("another\n")
    server.process.send(signal.SIGHUP)
    wait_for(lambda: server.ask(server.request(f"GET {QUEUE}")).status == 401, "the old token to be refused")
    tokens.write_text(f"{TOKEN}\nanother\n")
    text = server.file.read_text()
    server.file.write_text(text + "[queue]\n")
    server.process.send(signal.SIGHUP)
    wait_for(lambda: "not reloaded" in server.log(), "the log to say why")
    server.file.write_text(text)
    server.process.send(signal.SIGHUP)
    wait_for(lambda: server.ask(server.request(f"GET {QUEUE}")).status == 200, "both tokens to let in")


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ('bind = "127.0.0.1:8083"', "[tasks] bind"),
        ('bind = "0.0.0.0:8080"\ntoken_file = "/t"', None),
        ('bind = "127.0.0.1:8080"\ntoken_file = "/t"', "another address than intake and metrics have"),
        ("workers = 0", "workers"),
    ],
)
def test_an_address_that_lets_in_anybody_is_refused(tasks: str, says: str | None) -> None:
    text = f"[push]\n[tasks]\n{tasks}\n"
    if says is None:
        assert parse(text, "glassq.toml").tasks.token_file == "/t"
        return
    with pytest.raises(SettingsError, match="tasks") as caught:
        parse(text, "glassq.toml")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("", "missing section [push]"),
        ('[push]\nqueue_yaml = "/nowhere.yaml"\n', "/nowhere.yaml"),
        ('[push]\n[tasks]\nbind = "127.0.0.1:1"\n', "token_file beside it"),
        ('[push]\n[tasks]\nbind = "127.0.0.1:1"\ntoken_file = "/nowhere"\n', "[tasks] token_file"),
    ],
)
def test_settings_that_it_cannot_use_are_said(tmp_path: Path, settings: str, says: str) -> None:
    file = tmp_path / "glassq.toml"
    file.write_text(settings)
    (finding,) = [found for found in check(str(file)) if found.problem]
    assert says in finding.problem


def test_it_does_not_start_where_it_cannot_listen(tmp_path: Path) -> None:
    file = tmp_path / "glassq.toml"
    file.write_text('[push]\n[tasks]\nbind = "unix:/nowhere/tasks.sock"\n')
    process = Process(["--config", str(file)], tmp_path / "log", forks="glassq-tasks")
    assert process.wait() == 78
    assert '[tasks] bind = "unix:/nowhere/tasks.sock": cannot be listened on' in process.output()
    assert "Traceback" not in process.output()
