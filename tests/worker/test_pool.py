"""The pool as systemd and an operator see it: real processes, real signals, a real queue."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_for
from tests.worker.conftest import jobs, only
from tests.worker.pools import HANDLERS, PoolRun, processes, title

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked up in /proc")

Make = "Callable[..., PoolRun]"


@pytest.fixture
def make(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[Make]:
    made: list[PoolRun] = []

    def make(**worker: object) -> PoolRun:
        made.append(PoolRun(tmp_path, beanstalkd, look, **worker))
        return made[-1]

    yield make
    for run in made:
        run.__exit__()


def status(pid: int, name: str) -> str:
    """A line of /proc/PID/status (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{name}:"))


# -- start ----------------------------------------------------------------------------------------------------------


def test_a_pool_that_starts_before_its_queue_is_ready_within_bounds_and_says_what_it_waits_for(
    make: Make, beanstalkd: Beanstalkd, look: Queue
) -> None:
    look.close()
    beanstalkd.stop()
    run = make(processes=2)
    run.start_with({"worker.report.CONNECT_TIMEOUT": 2.0, "worker.consumer.RECONNECT_CAP": 0.5})
    starting = re.compile(rf"starting: 0 of 2 reserve; for \d+ s the queue {beanstalkd.url} cannot be reached")
    wait_for(lambda: any(map(starting.fullmatch, run.statuses())), "systemd to be told why it waits")
    assert not run.notified.has("READY")
    run.ready()
    waits = re.compile(rf"2 children, 0 at work; for (\d+) s the queue {beanstalkd.url} cannot be reached")
    wait_for(lambda: len(set(filter(waits.fullmatch, run.statuses()))) >= 2, "systemd to be told how long it waits")
    (line,) = [line for line in run.log().splitlines() if "queue trouble" in line]
    assert f"queue={beanstalkd.url} error=" in line
    beanstalkd.start()
    wait_for(lambda: run.statuses()[-1] == "2 children, 0 at work", f"the children to reserve\n{run.log()}")
    assert f"queue is back queue={beanstalkd.url} seconds=" in run.log()
    run.put("first")
    wait_for(lambda: run.story("end"), "the pool to work")
    assert run.process is not None
    assert title(run.process.pid) == "glassq-worker: pool"
    assert sorted(map(title, run.children())) == ["glassq-worker: child 1", "glassq-worker: child 2"]
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    wait_for(lambda: run.notified.has("STOPPING"), "systemd to be told")
    assert run.notified.count("READY") == 1


MISTAKES: dict[str, tuple[Callable[[PoolRun], object], str]] = {
    "no settings": (lambda run: run.config.unlink(), "glassq.toml: cannot be read: No such file"),
    "bad key": (
        lambda run: run.write_settings(more='[queu]\nurl = "x"\n'),
        "glassq.toml: unknown key queu; did you mean queue?",
    ),
    "bad value": (lambda run: run.write_settings(more='[log]\nlevel = "loud"\n'), '[log] level = "loud": '),
    "no handler": (
        lambda run: run.write_settings("handlers:nowhere"),
        "[[routes]] (1st) handler = 'handlers:nowhere': cannot be imported: AttributeError",
    ),
    "no module": (lambda run: run.write_settings("missing:f"), "cannot be imported: ModuleNotFoundError"),
    "broken module": (lambda run: run.write_handlers("1 / 0\n"), "cannot be imported: ZeroDivisionError"),
    "module that exits": (
        lambda run: run.write_handlers("import sys; sys.exit(3)\n"),
        "cannot be imported: SystemExit: 3",
    ),
    "no secrets": (
        lambda run: run.write_settings(
            "glassq.glass.photos:store", f'[glass]\nclient_id = "c"\ncredentials_key_file = "{run.dir}/nowhere"\n'
        ),
        "[glass] credentials_key_file",
    ),
    "bad ledger": (
        lambda run: run.config.write_text(run.config.read_text().replace("sqlite:///", "nosuch://")),
        "[ledger] url",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_configuration_ends_it_with_78_and_one_clear_line(make: Make, mistake: str) -> None:
    run = make()
    spoil, says = MISTAKES[mistake]
    spoil(run)
    run.start()
    assert run.ended() == 78
    # before there is a log, or in it
    (line,) = [
        line for line in run.log().splitlines() if line.startswith("glassq-worker: ") or ": cannot work " in line
    ]
    assert says in line
    assert "Traceback" not in run.log()
    assert not run.notified.has("READY")
    # what `systemctl status` shows from then on
    told = says.replace("'", '"')
    wait_for(lambda: run.statuses() and told in run.statuses()[-1], "systemd to be told")
    assert "\n" not in run.statuses()[-1]


def test_a_module_that_closes_what_is_not_its_own_ends_it_with_78_though_the_template_cannot_say_so(make: Make) -> None:
    run = make()
    run.write_handlers("import os\nos.closerange(3, 4096)\n" + HANDLERS)
    run.start()
    assert run.ended() == 78
    lost = (
        "handlers:handle closes descriptors that are not its own when it is imported: the lock of the limits, the log"
    )
    assert lost in run.log()
    wait_for(lambda: run.statuses() and "handlers cannot be used" in run.statuses()[-1], "systemd to be told")


def test_a_stop_right_after_the_start_is_no_accident(make: Make) -> None:
    run = make(processes=2).start()
    wait_for(lambda: "pool starts" in run.log(), "the pool to start")
    wait_for(run.children, "a child")
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    assert "died" not in run.log()


# -- stop -----------------------------------------------------------------------------------------------------------


def test_a_stop_lets_the_running_handler_finish(make: Make, look: Queue) -> None:
    run = make(processes=2).start().ready()
    run.holding()
    run.put("next", "hold")
    wait_for(lambda: len(run.story("start")) == 2, "both children to work")
    run.put("left")
    run.send(signal.SIGTERM)
    wait_for(lambda: any("draining: 2 of 2" in m.get("STATUS", "") for m in run.notified.messages), "the drain")
    stopping = next(i for i, message in enumerate(run.notified.messages) if "STOPPING" in message)
    wait_for(
        lambda: any("EXTEND_TIMEOUT_USEC" in message for message in run.notified.messages[stopping:]),
        "systemd to be asked for time",
    )
    run.let_go()
    assert run.ended() == 0
    assert {name for name, _, _ in run.story("end")} == {"held", "next"}
    (left,) = jobs(look)
    assert (left.state, left.reserves) == ("ready", 0)


@pytest.mark.parametrize("signals", [["SIGTERM", "SIGTERM"], ["SIGINT", "SIGINT"], ["SIGQUIT"]])
def test_a_cold_stop_gives_the_job_back_and_burns_no_attempt(make: Make, look: Queue, signals: list[str]) -> None:
    run = make().start().ready()
    run.holding()
    for number, name in enumerate(signals):
        run.send(signal.Signals[name])
        wait_for(lambda n=number: run.log().count("pool stops") > n, "the signal to be seen")
    assert run.ended() == 0
    stats, delivery = only(look)
    assert (stats.state, stats.releases, stats.reserves) == ("ready", 1, 1)
    assert (delivery.attempt, delivery.failures, delivery.evidence) == (1, 0, ())


def test_a_handler_that_cannot_be_stopped_is_killed_with_its_child(make: Make, look: Queue) -> None:
    run = make().start().ready()
    run.holding(do="swallow_once")
    wait_for((run.dir / "swallowed").exists, "it to swallow whatever comes")
    run.send(signal.SIGQUIT)
    assert run.ended() == 0
    assert "children do not stop: killed" in run.log(), run.log()
    wait_for(lambda: look.stats_tube().ready == 1, "the job to come back")


def test_when_the_parent_is_killed_its_children_stop_by_themselves(make: Make) -> None:
    run = make(processes=2).start().ready()
    busy = run.holding()
    children = run.children()
    assert len(children) == 2
    run.send(signal.SIGKILL)
    run.ended()

    def living() -> set[int]:
        return {pid for pid in children if processes().get(pid, (0, "Z"))[1] != "Z"}

    wait_for(lambda: living() == {busy}, "the idle child to stop")
    run.let_go()
    wait_for(lambda: not living(), "the busy child to finish and stop")
    assert [name for name, _, _ in run.story("end")] == ["held"]


@pytest.mark.parametrize("preload", [True, False], ids=["template", "child"])
def test_when_the_parent_is_killed_what_still_loads_stops_too(make: Make, preload: bool) -> None:
    run = make(preload=preload)
    run.write_handlers(
        "HERE = __import__('pathlib').Path(__file__).parent\n"
        "(HERE / 'loads').touch()\nwhile not (HERE / 'let-go').exists(): pass\n" + HANDLERS
    )
    run.start()
    wait_for((run.dir / "loads").exists, "it to load")
    (loading,) = run.forked()
    assert loading in (run.templates() if preload else run.children())
    run.send(signal.SIGKILL)
    run.ended()
    run.let_go()
    wait_for(lambda: processes().get(loading, (0, "Z"))[1] == "Z", "it to stop by itself")


def test_a_stop_reaches_a_child_that_was_forked_just_then(make: Make) -> None:
    run = make(preload=False)
    held = run.dir / "hold-births"
    held.touch()
    run.start_impatient()
    wait_for(run.forked, "a child")
    (child,) = run.forked()
    run.send(signal.SIGTERM)
    wait_for(lambda: int(status(child, "ShdPnd"), 16) >> (signal.SIGTERM - 1) & 1, "the signal to wait for the child")
    held.unlink()
    assert run.ended() == 0
    # had the child not heard of it, it would have been stopped the cold way in the end
    assert run.log().count("pool stops") == 1


# -- accidents ------------------------------------------------------------------------------------------------------


def test_a_killed_child_is_replaced_and_its_job_worked_again(make: Make, look: Queue) -> None:
    run = make().start().ready()
    first = run.holding()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(run.story("start")) == 2, "the job to be worked again")
    run.let_go()
    wait_for(lambda: not jobs(look), "the delivery to be done")
    (name, second, _) = run.story("start")[1]
    assert (name, run.children()) == ("held", [second])
    assert second != first
    wait_for(lambda: "child died" in run.log(), "its death to be told")
    assert run.zombies() == []
    assert "how=SIGKILL" in run.log()


def test_a_handler_that_kills_its_process_is_buried_before_it_takes_all_children_with_it(
    make: Make, look: Queue
) -> None:
    run = make().start().ready()
    run.put("deadly", "die")
    wait_for(lambda: look.stats_tube().buried == 1, "the delivery to be buried")
    _, delivery = only(look)
    assert delivery.buried.startswith("3 attempts ended without an outcome")
    assert len(run.story("start")) == 3
    run.put("next")
    wait_for(lambda: run.story("end"), "the pool to go on")


def test_an_overrun_is_put_again_with_evidence_though_the_handler_catches_exceptions(make: Make, look: Queue) -> None:
    run = make(deadline="30s", grace="28500ms").start().ready()
    run.holding(do="hold_stubbornly")
    wait_for(lambda: look.stats_tube().delayed == 1, "the attempt to be ended")
    _, delivery = only(look)
    (evidence,) = delivery.evidence
    assert evidence.message == "the handler overran its deadline"
    assert "in hold_stubbornly" in evidence.traceback
    assert run.story("end") == []
    assert "child died" not in run.log()


def test_a_handler_that_swallows_everything_is_killed_at_its_hard_deadline(make: Make, look: Queue) -> None:
    run = make(deadline="3s", grace="1s").start().ready()
    first = run.holding(do="swallow_once")
    wait_for(lambda: run.story("end"), "the delivery to be worked again")
    wait_for(lambda: not jobs(look), "it to be done")
    assert run.story("end")[0][1] != first
    assert "child killed: it overran its hard deadline" in run.log()


def test_a_silent_child_is_killed_and_systemd_is_told_that_all_is_well(make: Make, look: Queue) -> None:
    run = make(processes=2).start_impatient().ready()
    wait_for(lambda: run.notified.count("WATCHDOG") >= 2, "the watchdog to be fed")
    frozen = run.holding()
    os.kill(frozen, signal.SIGSTOP)
    wait_for(lambda: "child killed: it is silent" in run.log(), "the silence to be noticed")
    wait_for(lambda: len(run.story("start")) == 2, "the job to be worked again")
    run.let_go()
    wait_for(lambda: not jobs(look), "the delivery to be done")
    wait_for(lambda: len(run.children()) == 2, "the child to be replaced")
    assert frozen not in run.children()
    before = run.notified.count("WATCHDOG")
    wait_for(lambda: run.notified.count("WATCHDOG") > before, "the watchdog to be fed")


def test_after_a_pause_of_the_whole_pool_nobody_is_taken_for_silent(make: Make) -> None:
    """A machine that was suspended, a control group that was frozen: when it goes on, all heartbeats are old."""
    silence = 4.0
    run = make()
    run.start_impatient(silence).ready()
    held = run.holding()
    # a pool that stops tells systemd so each time it has looked at its children
    run.send(signal.SIGTERM)
    wait_for(lambda: run.notified.has("STOPPING"), "the pool to stop")
    run.send(signal.SIGSTOP)
    os.kill(held, signal.SIGSTOP)
    over = time.monotonic() + silence + 0.5
    wait_for(lambda: time.monotonic() > over, "the pause to be long enough")
    looked = run.notified.count("EXTEND_TIMEOUT_USEC")
    run.send(signal.SIGCONT)
    # the parent looks before the child goes on
    wait_for(lambda: run.notified.count("EXTEND_TIMEOUT_USEC") > looked, "the parent to look")
    os.kill(held, signal.SIGCONT)
    run.let_go()
    assert run.ended() == 0
    assert [name for name, _, _ in run.story("end")] == ["held"], run.log()
    assert "child killed" not in run.log()


def test_the_watchdog_is_fed_as_often_as_systemd_asks(make: Make) -> None:
    run = make().start(WATCHDOG_USEC="1000000").ready()
    wait_for(lambda: run.notified.count("WATCHDOG") >= 3, "the watchdog to be fed")
    run.send(signal.SIGSTOP)
    before = run.notified.count("WATCHDOG")
    run.send(signal.SIGCONT)
    wait_for(lambda: run.notified.count("WATCHDOG") > before, "it to be fed after a pause")


# -- an operator ----------------------------------------------------------------------------------------------------


def test_ttin_and_ttou_are_one_child_more_or_less_and_never_none(make: Make) -> None:
    run = make().start().ready()
    first = run.children()
    run.send(signal.SIGTTIN)
    wait_for(lambda: len(run.children()) == 2, "one child more")
    wait_for(lambda: "glassq-worker: child 2" in map(title, run.children()), "it to be up")
    run.send(signal.SIGTTOU)
    wait_for(lambda: run.children() == first, "one child less")
    run.send(signal.SIGTTOU)
    run.put("after")
    wait_for(lambda: run.story("end"), "the last child to work on")
    assert run.children() == first
    assert "died" not in run.log()


def test_a_reload_brings_new_code_and_settings_and_loses_nothing(make: Make, look: Queue) -> None:
    run = make(processes=2).start().ready()
    held = run.holding()
    old = run.children()
    run.write_handlers(HANDLERS.replace('VERSION = "one"', 'VERSION = "the-second"'))
    run.write_settings("handlers:other")
    run.send(signal.SIGHUP)
    put: list[str] = []

    def new_code_runs() -> bool:
        put.append(f"during-{len(put)}")
        run.put(put[-1])
        return "the-second" in {version for _, _, version in run.story("other")}

    wait_for(new_code_runs, "the new code to run")
    run.let_go()
    wait_for(lambda: not set(old) & set(run.children()), "all children to be replaced")
    wait_for(lambda: not jobs(look), "everything to be worked")
    assert sorted(name for name, _, _ in run.story("end")) == sorted(["held", *put])
    assert ("held", held, "one") in run.story("end")
    assert "died" not in run.log()


def test_a_reload_brings_another_number_of_children(make: Make) -> None:
    run = make(processes=1).start().ready()
    run.worker["processes"] = 3
    run.write_settings()
    run.send(signal.SIGHUP)
    wait_for(lambda: len(run.children()) == 3, "more children")
    # more come at once, fewer only when they are up: so wait until the first ones are
    wait_for(lambda: all("child" in title(pid) for pid in run.children()), "them to be up")
    run.worker["processes"] = 2
    run.write_settings()
    run.send(signal.SIGHUP)
    wait_for(lambda: run.log().count("reloading") == 2 and len(run.children()) == 2, "fewer children")
    run.put("after")
    wait_for(lambda: run.story("end"), "the pool to go on")
    assert "died" not in run.log()


def test_a_reload_waits_for_no_long_handler_and_ends_none(make: Make, look: Queue) -> None:
    run = make(processes=2).start().ready()
    old = {run.holding("one"), run.holding("two")}
    run.write_settings("handlers:other")
    run.send(signal.SIGHUP)
    wait_for(lambda: len(set(run.children()) - old) == 2, f"new children beside the old ones\n{run.log()}")
    run.put("new")
    wait_for(lambda: run.story("other"), "the new settings to be in effect")
    assert old <= set(run.children())
    run.send(signal.SIGHUP)
    wait_for(lambda: run.log().count("reloading") == 2, "another reload")
    run.put("newer")
    wait_for(lambda: len(run.story("other")) == 2, "the pool to work meanwhile")
    assert len(run.children()) <= 4, "there are never more than twice as many"
    run.let_go()
    wait_for(lambda: not jobs(look) and not old & set(run.children()), "the old ones to finish")
    assert {name for name, pid, _ in run.story("end") if pid in old} == {"one", "two"}
    assert "died" not in run.log()


def test_a_reload_with_wrong_settings_changes_nothing(make: Make) -> None:
    run = make().start().ready()
    before = run.children()
    run.config.write_text("[queue\n")
    run.send(signal.SIGHUP)
    wait_for(lambda: "not reloaded: " in run.log(), "the mistake to be told")
    assert "is not TOML" in run.log()
    run.put("after")
    wait_for(lambda: run.story("end"), "the pool to go on")
    assert run.children() == before


def test_a_reload_with_a_broken_handler_leaves_the_others_at_work(make: Make) -> None:
    run = make(processes=2).start().ready()
    before = run.children()
    run.write_handlers("1 / 0\n")
    run.send(signal.SIGHUP)
    wait_for(lambda: "not reloaded" in run.log(), "the new child to give up")
    assert "ZeroDivisionError" in run.log()
    assert set(before) <= set(run.children())
    run.put("meanwhile")
    wait_for(lambda: run.story("end"), "the old children to work on")
    assert run.story("end")[0][1] in before
    run.write_handlers(HANDLERS)
    run.send(signal.SIGHUP)
    wait_for(lambda: len(run.children()) == 2 and not set(before) & set(run.children()), "both to be replaced")
    assert "died" not in run.log()


def test_after_several_reloads_that_fail_the_last_good_settings_count(make: Make) -> None:
    run = make(processes=1).start().ready()
    (before,) = run.children()
    for number in (1, 2):
        # slow, so that the next reload comes before this one has failed
        (run.dir / f"broken_{number}.py").write_text("import time\ntime.sleep(1)\n1 / 0\n")
        run.write_settings(handler=f"broken_{number}:handle")
        run.send(signal.SIGHUP)
        wait_for(lambda: run.log().count("reloading") == number, "the reload to begin")  # noqa: B023
    wait_for(lambda: "not reloaded" in run.log() and "broken_2" in run.log(), "the new children to give up")
    os.kill(before, signal.SIGKILL)
    run.put("after")
    wait_for(lambda: run.story("end"), "a child with the settings of before to work it")
    assert run.story("end")[0][1] != before


def test_usr2_writes_every_stack_to_the_log(make: Make) -> None:
    run = make().start().ready()
    run.holding()
    run.send(signal.SIGUSR2)
    wait_for(lambda: "in hold" in run.log(), "the stack of the handler")
    wait_for(lambda: "in _on_signal" in run.log(), "the stack of the parent")
    run.let_go()
    wait_for(lambda: run.story("end"), "the handler to go on")
    assert "died" not in run.log()


# -- wear -----------------------------------------------------------------------------------------------------------


def test_children_are_recycled_after_their_jobs_and_nothing_is_lost(make: Make, look: Queue) -> None:
    run = make(max_jobs=3).start().ready()
    names = [f"ping-{number}" for number in range(9)]
    for name in names:
        run.put(name)
    wait_for(lambda: not jobs(look), "everything to be worked")
    assert sorted(name for name, _, _ in run.story("end")) == sorted(names)
    assert len({pid for _, pid, _ in run.story("end")}) == 3
    assert "died" not in run.log()


def test_a_memory_limit_below_what_a_child_needs_still_gets_work_done(make: Make, look: Queue) -> None:
    run = make(max_rss="1MiB").start().ready()
    for number in range(3):
        (before,) = run.children()
        run.put(f"ping-{number}")
        wait_for(lambda: len(run.story("end")) == number + 1, "it to be worked")  # noqa: B023
        wait_for(lambda: len(set(run.children()) - {before}) == 1, "the child to be replaced")  # noqa: B023
        # while it dies and is reaped, its successor may be there already
        wait_for(lambda: before not in run.children(), "the child to end")  # noqa: B023
    assert not jobs(look)
    assert len({pid for _, pid, _ in run.story("end")}) == 3
