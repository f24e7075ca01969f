"""A reload whose outcome is known: it fails with its reason, and what is not in effect is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Cli
from tests.conftest import wait_for
from tests.worker.pools import HANDLERS, PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Said
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

TOLD = "settings on disk are not those in effect"
GLASS = 'glassq.glass.photos:store"\n[glass]\nclient_id = "1"\ncredentials_key_file = "{dir}/none'


class Reloaded(PoolRun):
    """A pool with a runtime directory, as under systemd."""

    @property
    def runtime(self) -> Path:
        return self.dir / "run" / "glassq-worker"

    def reload(self) -> Said:
        """What ExecReload= does."""
        assert self.process is not None
        cli = Cli(self.dir, self._url, {"RUNTIME_DIRECTORY": str(self.runtime)})
        return cli("config", "reload", "worker", str(self.process.pid))

    def recorded(self) -> list[tuple[str, str, str]]:
        """What the activity has of reloads, newest first: how each ended, of what, and why it failed."""
        told = Cli(self.dir, self._url)("activity", "--did", "reload", "--json").json["activities"]
        return [(each["state"], each["filter"], each["note"]) for each in told]

    def says(self, command: str) -> str:
        """What `status` or `doctor` prints."""
        said = Cli(self.dir, self._url)(command)
        return said.out + said.err


@pytest.fixture
def run(beanstalkd: Beanstalkd, queue: Queue, tmp_path: Path) -> Iterator[Reloaded]:
    with Reloaded(tmp_path, beanstalkd, queue) as pool:
        pool.runtime.mkdir(parents=True)
        yield pool.start(RUNTIME_DIRECTORY=str(pool.runtime)).ready()


def mistake(run: Reloaded, kind: str) -> str:
    """Makes it; returns what is to be said about it."""
    good = run.config.read_text()
    if kind == "key":
        run.config.write_text(good.replace("processes", "proceses"))
        return "did you mean processes?"
    if kind == "no TOML":
        run.config.write_text(good + "[worker\n")
        return "is not TOML"
    if kind == "handler":
        run.write_handlers("def handle(:\n")
        return "cannot be imported: SyntaxError"
    if kind == "queue.yaml":
        (run.dir / "queue.yaml").write_text("queue:\n- name: mail\n  rate: often\n")
        run.config.write_text(good + f'[push]\nqueue_yaml = "{run.dir}/queue.yaml"\n')
        return "rate"
    run.config.write_text(good.replace('handlers:handle"', GLASS.format(dir=run.dir) + '"'))
    return "the file cannot be read"


@pytest.mark.parametrize("kind", ["key", "no TOML", "handler", "queue.yaml", "secret"])
def test_a_reload_that_cannot_be_fails_with_its_reason_and_changes_nothing(run: Reloaded, kind: str) -> None:
    good, before = run.config.read_text(), run.children()
    says = mistake(run, kind)
    said = run.reload()
    assert said.code == 78
    assert says in said.err
    assert "glassq-worker goes on with what it read before" in said.err
    assert "Traceback" not in said.err
    assert run.children() == before
    # the pool itself was not even asked
    assert "reload" not in run.log()
    for command in ("status", "doctor"):
        assert TOLD in run.says(command)
    run.put("meanwhile")
    wait_for(lambda: run.story("end"), "the pool to go on")

    run.config.write_text(good)
    run.write_handlers(HANDLERS)
    assert run.reload().code == 0
    assert TOLD not in run.says("status")
    assert run.recorded()[0] == ("done", "glassq-worker", "")
    if kind == "handler":
        mistake(run, kind)
        assert run.reload().code == 78
        state, program, note = run.recorded()[0]
        assert (state, program, says in note) == ("failed", "glassq-worker", True)


def test_a_reload_ends_when_it_is_in_effect(run: Reloaded) -> None:
    (before,) = run.children()
    run.write_handlers(HANDLERS.replace('"one"', '"two"'))
    told = run.says("status")
    assert TOLD in told
    assert f"{run.dir}/handlers.py was changed at " in told
    assert "glassq.toml was changed" not in told
    said = run.reload()
    assert (said.code, said.err) == (0, "")
    assert TOLD not in run.says("status")
    wait_for(lambda: len(run.children()) == 1 and before not in run.children(), "the old child to end")
    run.put("after")
    wait_for(lambda: run.story("end"), "it to be worked")
    assert run.story("end")[0][2] == "two"


def test_a_reload_that_only_the_children_refuse_is_told(run: Reloaded) -> None:
    good = run.config.read_text()
    mistake(run, "handler")
    run.send(signal.SIGHUP)
    wait_for(lambda: "not reloaded" in run.log(), "the new child to give up")
    wait_for(lambda: "its last reload failed" in run.says("status"), "status to say so")
    assert "SyntaxError" in run.says("status")
    # the next one starts anew
    run.write_handlers(HANDLERS)
    run.config.write_text(good + "# again\n")
    assert run.reload().code == 0
    assert "reload failed" not in run.says("doctor")


def test_what_is_of_no_effect_on_the_pool_is_no_change(run: Reloaded) -> None:
    text = run.config.read_text()
    run.config.write_text(f'# a comment\n{text}\n[intake]\nbind = "127.0.0.1:1"\n')
    assert TOLD not in run.says("status")


def test_of_a_pool_that_is_gone_nothing_is_told(run: Reloaded) -> None:
    run.send(signal.SIGKILL)
    run.ended()
    run.write_handlers("1 / 0\n")
    assert TOLD not in run.says("status")


def test_a_check_alone_reloads_nothing(run: Reloaded) -> None:
    (run.runtime / "check-only").touch()
    assert run.reload().code == 0
    mistake(run, "key")
    assert run.reload().code == 78
    assert "reload" not in run.log()


def test_a_mistake_that_concerns_the_intake_alone_is_told_and_stops_no_pool(
    beanstalkd: Beanstalkd, tmp_path: Path
) -> None:
    with PoolRun(tmp_path, beanstalkd) as pool:
        pool.write_settings(more='[intake]\nthread = 4\n[sources.mirror]\nfile = "x"\n')
        pool.start().ready()
        assert "[intake] thread; did you mean threads?" in pool.log()
        assert "[sources.mirror] file" in pool.log()


@pytest.mark.parametrize("first", ["intake", "worker"])
def test_pings_of_a_new_source_that_an_old_child_gets_are_worked_by_new_ones(run: Reloaded, first: str) -> None:
    names = ["first", "second"]
    run.write_handlers(
        HANDLERS.replace('"one"', '"two"') + 'while (HERE / "hold-load").exists():\n    time.sleep(0.02)\n'
    )
    (run.dir / "hold-load").touch()
    run.write_settings(more='[[routes]]\nsource = "fresh"\nhandler = "handlers:handle"\n')
    if first == "worker":
        run.send(signal.SIGHUP)
        wait_for(lambda: "reloading" in run.log(), "the reload to begin")
    for name in names:
        run.put(name, source="fresh")
    # the old child is still the only one
    wait_for(lambda: run.log().count("no route in effect") >= len(names), f"it to wait with both\n{run.log()}")
    if first == "intake":
        run.send(signal.SIGHUP)
    (run.dir / "hold-load").unlink()

    def worked() -> list[tuple[str, str]]:
        return sorted((name, version) for name, _, version in run.story("end") if name in names)

    wait_for(lambda: len(worked()) >= len(names), f"a new child to work them\n{run.log()}")
    assert worked() == [(name, "two") for name in names]
    assert "dropped" not in run.log()
