"""Reloads, stops and deaths under load: every ping that was acknowledged has its job, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from glassq import delivery
from tests.cli.conftest import Cli
from tests.conftest import wait_for
from tests.intake.conftest import Web, empty
from tests.intake.wire import HEALTH, TOKEN, body, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tests.conftest import Beanstalkd

ROTATED = "the-token-after-the-rotation"
PING = request()
READY = HEALTH.replace(b"healthz", b"readyz")


class Load:
    """Clients that send one ping after another, each on a connection of its own, and note what they were told."""

    def __init__(self, web: Web, clients: int = 3) -> None:
        self._web = web
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        #: the itemIds that were acknowledged, other statuses, and connections that broke before an answer
        self.acknowledged: list[str] = []
        self.refused: list[int] = []
        self.broken: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_for_more(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, many: int) -> None:
        """Until so many more pings have been acknowledged."""
        enough = len(self.acknowledged) + many
        wait_for(lambda: len(self.acknowledged) >= enough, f"{many} more pings to be acknowledged")

    def _run(self, number: int) -> None:
        sent = 0
        while not self._stop.is_set():
            sent += 1
            item = f"item-{number}-{sent}"
            try:
                answer = self._web.ask(request(body(itemId=item)))
            except (OSError, EOFError) as error:
                self.broken.append(repr(error))
            else:
                self.acknowledged.append(item) if answer.status == 200 else self.refused.append(answer.status)


def kept(server: Beanstalkd) -> list[str]:
    """The itemIds of all jobs in the queue."""
    return [json.loads(delivery.decode(job).body)["itemId"] for job in empty(server)]


@pytest.fixture
def web(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> Web:
    return start_web(beanstalkd.url, workers=2)


def all_are_new(web: Web, old: list[int]) -> bool:
    """Whether there are two workers, and none of the old ones."""
    now = set(web.workers())
    return len(now) == 2 and not now & set(old)


def reload_with(web: Web, old: list[int]) -> None:
    web.process.send(signal.SIGHUP)
    wait_for(lambda: all_are_new(web, old), "new workers only")


def test_a_rotated_token_is_taken_after_a_reload_and_no_ping_fails_meanwhile(web: Web, beanstalkd: Beanstalkd) -> None:
    rotated = request(body(verifyToken=ROTATED, itemId="rotated"))
    assert web.ask(rotated).status == 403
    web.tokens.write_text(f"# old, until the subscriptions are renewed\n{TOKEN}\n# new\n{ROTATED}\n")
    with Load(web) as load:
        reload_with(web, web.workers())
        load.wait_for_more(20)
    assert (load.refused, load.broken) == ([], [])
    assert web.ask(rotated).status == 200
    assert sorted(kept(beanstalkd)) == sorted([*load.acknowledged, "rotated"])
    assert ROTATED not in web.log()


def test_a_token_taken_out_is_refused_after_a_reload(web: Web) -> None:
    assert web.ask(PING).status == 200
    web.tokens.write_text(f"{ROTATED}\n# {TOKEN}\n")
    reload_with(web, web.workers())
    assert web.ask(PING).status == 403


@pytest.mark.parametrize("mistake", ["settings", "tokens", "bind", "conf", "conf value"])
def test_a_reload_with_a_mistake_changes_nothing_and_is_named_in_the_log(
    web: Web, beanstalkd: Beanstalkd, mistake: str
) -> None:
    old = web.workers()
    good = web.file.read_text()
    if mistake == "settings":
        web.file.write_text(good.replace("threads", "thread"))
    elif mistake == "tokens":
        web.tokens.unlink()
    elif mistake.startswith("conf"):
        with (web.dir / "gunicorn.conf.py").open("a") as conf:
            conf.write("workers = (\n" if mistake == "conf" else "graceful_timeout = 'long'\n")
    else:
        web.file.write_text(good.replace(f"127.0.0.1:{web.address[1]}", f"127.0.0.1:{beanstalkd.port}"))
    web.process.send(signal.SIGHUP)
    wait_for(lambda: "not reloaded, the old settings stay" in web.log(), "the log to name the mistake")
    wait_for(lambda: all_are_new(web, old), "the reload to be over")
    assert web.ask(PING).status == 200
    # a worker that dies now is replaced all the same
    victim, other = web.workers()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(set(web.workers()) - {victim, other}) == 1, "another worker")
    assert web.ask(PING).status == 200


@pytest.fixture
def in_effect(beanstalkd: Beanstalkd, tmp_path: Path) -> Iterator[tuple[Web, Cli]]:
    """A server with a runtime directory, as under systemd, and `glassq` for it."""
    runtime = tmp_path / "web" / "run" / "glassq-web"
    runtime.mkdir(parents=True)
    web = Web(tmp_path / "web", beanstalkd.url, under=("env", f"RUNTIME_DIRECTORY={runtime}"))
    web.wait_ready()
    yield web, Cli(web.dir, beanstalkd.url, {"RUNTIME_DIRECTORY": str(runtime)})
    web.stop()


@pytest.mark.parametrize("mistake", ["key", "no TOML", "tokens", "conf"])
def test_a_reload_that_cannot_be_fails_with_its_reason(in_effect: tuple[Web, Cli], mistake: str) -> None:
    web, glassq = in_effect
    reload = ("config", "reload", "web", str(web.process.pid))
    good, old = web.file.read_text(), web.workers()
    if mistake == "tokens":
        web.tokens.write_text("# none\n")
    elif mistake == "conf":
        (web.dir / "gunicorn.conf.py").write_text("workers = (\n")
    else:
        web.file.write_text(good.replace("threads", "thread") if mistake == "key" else good + "[intake\n")
    said = glassq(*reload)
    assert said.code == 78
    assert {"key": "did you mean threads?", "no TOML": "not TOML", "tokens": "is empty", "conf": "SyntaxError"}[
        mistake
    ] in said.err
    assert "glassq-web goes on with what it read before" in said.err
    assert web.workers() == old
    assert web.ask(PING).status == 200
    if mistake in ("key", "no TOML"):
        told = glassq("status")
        assert "settings on disk are not those in effect" in told.out + told.err


def test_a_reload_ends_when_it_is_in_effect(in_effect: tuple[Web, Cli]) -> None:
    web, glassq = in_effect
    old = web.workers()
    web.file.write_text(web.file.read_text().replace("threads = 4", "threads = 5"))
    assert "glassq-web works with what it read at" in glassq("status").out
    said = glassq("config", "reload", "web", str(web.process.pid))
    assert (said.code, said.err) == (0, "")
    assert "not those in effect" not in glassq("status").out
    wait_for(lambda: web.workers() and not set(web.workers()) & set(old), "new workers only")


def test_a_stop_answers_what_is_in_flight(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url)
    assert web.ask(PING).status == 200
    beanstalkd.send(signal.SIGSTOP)
    with web.wire() as wire, web.wire() as partial:
        wire.send(PING)
        partial.send(PING[:-1])
        # whoever came before this one has been read: the first is in a thread, which waits for the queue
        assert web.healthy()
        queue_waits = len(web.log())
        web.process.send(signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in web.log()[queue_waits:], "the stop to begin")
        partial.send(PING[-1:])
        beanstalkd.send(signal.SIGCONT)
        assert [wire.answer().status, partial.answer().status] == [200, 200]
    assert web.process.wait() == 0
    assert len(empty(beanstalkd)) == 3


def test_a_stop_does_not_wait_for_a_request_that_does_not_come(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, request_timeout="5m")
    with web.wire() as silent, web.wire() as partial:
        partial.send(PING[:-1])
        assert web.healthy()
        web.process.send(signal.SIGTERM)
        assert partial.answer().status == 408
        assert silent.rest() == b""
    assert web.process.wait() == 0


def test_a_stop_under_load_acknowledges_nothing_that_is_not_kept(web: Web, beanstalkd: Beanstalkd) -> None:
    with Load(web) as load:
        web.process.send(signal.SIGTERM)
        assert web.process.wait() == 0
    assert load.refused == []
    assert set(load.acknowledged) <= set(kept(beanstalkd))


def test_a_killed_worker_loses_no_acknowledged_ping(web: Web, beanstalkd: Beanstalkd) -> None:
    with Load(web) as load:
        for _ in range(3):
            os.kill(web.workers()[0], signal.SIGKILL)
            load.wait_for_more(20)
    assert load.refused == []
    assert set(load.acknowledged) <= set(kept(beanstalkd))
    assert web.healthy()
