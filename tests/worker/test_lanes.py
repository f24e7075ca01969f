"""Lane children of a real pool: many async attempts under way in one process."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.values import Tube
from tests.conftest import wait_for
from tests.queues.raw import open_queue
from tests.worker.conftest import jobs, only
from tests.worker.pools import HANDLERS, PoolRun, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are looked at in /proc")

Make = "Callable[..., PoolRun]"

LANES = (
    HANDLERS.replace("def handle(", "async def handle(").replace("globals()[ping", "await globals()[ping")
    + """
import asyncio

async def work(name):
    pass

async def hold(name):
    while not (HERE / "let-go").exists():
        await asyncio.sleep(0.1)

async def kills(name):
    while not (HERE / "kill").exists():
        await asyncio.sleep(0.02)
    os._exit(7)

async def overruns(name):
    await asyncio.sleep(1000)

async def swallows(name):
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass

async def blocks(name):
    time.sleep(1000)
"""
)


class LaneRun(PoolRun):
    """A pool with one route, whose handler is async."""

    def __init__(self, directory: Path, server: Beanstalkd, look: Queue, concurrency: int, **worker: object) -> None:
        super().__init__(directory, server, look, **worker)
        self.tube = f"{look.tube}.route.many"
        self.write_handlers(LANES)
        self.write_settings(route=f'name = "many"\nconcurrency = {concurrency}')

    def put_many(self, count: int, do: str = "hold") -> None:
        for number in range(count):
            self.put(f"{do}-{number}", do, self.tube)

    def running(self) -> int:
        return len(self.story("start")) - len(self.story("end"))


@pytest.fixture
def make(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[Make]:
    made: list[LaneRun] = []

    def make(concurrency: int, **worker: object) -> LaneRun:
        made.append(LaneRun(tmp_path, beanstalkd, look, concurrency, **{"lane_processes": 2, **worker}))
        return made[-1]

    yield make
    for run in made:
        run.__exit__()


@pytest.fixture
def lane(beanstalkd: Beanstalkd, look: Queue) -> Iterator[Queue]:
    """The route's own tube."""
    opened = open_queue(msgspec.structs.replace(beanstalkd.settings, tube=Tube(f"{look.tube}.route.many")))
    yield opened
    opened.close()


def test_of_500_under_way_with_one_that_kills_its_child_499_are_done_and_that_one_is_buried_after_three_starts(
    make: Make, look: Queue, lane: Queue
) -> None:
    run = make(500, processes=4).start().ready()
    run.put_many(499)
    killer = run.put("killer", "kills", run.tube)
    wait_for(lambda: len(run.story("start")) == 500, f"all to be under way\n{run.log()}")
    assert {len(pids) for pids in [{pid for _, pid, _ in run.story("start")}]} == {2}, "in two children"
    (run.dir / "kill").touch()
    run.let_go()
    wait_for(lambda: look.stats_tube().buried == 1 and not lane.stats_tube().reserved, f"the end\n{run.log()}", 120)
    wait_for(lambda: len(jobs(look)) == 1 and not jobs(lane), f"all others to be done\n{run.log()}", 60)
    _, buried = only(look)
    assert (buried.id, buried.lost, buried.failures, buried.attempt) == (killer.id, 3, 0, 1)
    assert [(each.outcome, each.error) for each in buried.evidence] == [("lost", "exit 7")] * 3
    assert "other attempts ran in its process" in buried.evidence[0].message
    assert "other attempts" not in "".join(each.message for each in buried.evidence[1:]), "it was tried alone"
    starts = Counter(name for name, _, _ in run.story("start"))
    assert starts["killer"] == 3
    assert {name for name, _, _ in run.story("end")} == {f"hold-{number}" for number in range(499)}
    assert max(count for name, count in starts.items() if name != "killer") == 2
    assert " retrying " not in run.log(), "none of them was charged a failure"


def test_a_lane_ends_its_attempt_at_the_deadline_and_names_what_blocks_the_loop(
    make: Make, look: Queue, lane: Queue
) -> None:
    run = make(8, processes=2, deadline="3s", grace="1500ms", max_attempts=1, max_lost=1, lane_processes=1)
    run.start().ready()
    overran = run.put("overruns", "overruns", run.tube)
    wait_for(lambda: lane.stats_tube().buried == 1, f"it to be cancelled\n{run.log()}")
    _, delivery = only(lane)
    assert (delivery.id, [each.error for each in delivery.evidence]) == (overran.id, ["DeadlineExceeded"])
    assert "await asyncio.sleep(1000)" in delivery.evidence[0].traceback
    run.put("swallows", "swallows", run.tube)
    run.put("blocks", "blocks", run.tube)
    wait_for(lambda: [each.state for each in jobs(look)] == ["buried"] * 2, f"both to be killed twice\n{run.log()}", 60)
    found = {json.loads(envelope.decode(look.peek(each.id).body).body)["name"]: each.id for each in jobs(look)}
    messages = {
        name: [evidence.message for evidence in envelope.decode(look.peek(job).body).evidence]
        for name, job in found.items()
    }
    assert {name: len(told) for name, told in messages.items()} == {"swallows": 2, "blocks": 2}, "each was alone once"
    assert all("overran its hard deadline" in told for each in messages.values() for told in each)
    assert all("handlers:handle blocks the event loop: " in told for told in messages["blocks"])
    assert "handlers.py:" in messages["blocks"][1]
    assert "blocks the event loop" not in messages["swallows"][1]
    assert "handler blocks the event loop: nothing else runs in it" in run.log()


def test_a_program_in_a_lane_ends_at_its_deadline_and_at_a_cold_stop_with_all_that_it_started(
    make: Make, look: Queue, lane: Queue
) -> None:
    run = make(4, deadline="3s", grace="1s", max_attempts=1, lane_processes=1)
    program = run.dir / "waits"
    program.write_text(f"#!/bin/sh\necho $$ >> {run.dir}/pids\nsleep 1000 & echo $! >> {run.dir}/pids\nwait\n")
    program.chmod(0o755)
    run.write_settings("exec:./waits", route='name = "many"\nconcurrency = 4')
    run.start().ready()
    overran = run.put("overruns", "waits", run.tube)
    wait_for(lambda: lane.stats_tube().buried == 1, f"it to be ended\n{run.log()}")
    _, delivery = only(lane)
    assert (delivery.id, [each.error for each in delivery.evidence]) == (overran.id, ["DeadlineExceeded"])
    for number in range(3):
        run.put(f"stopped-{number}", "waits", run.tube)
    pids = run.dir / "pids"
    wait_for(lambda: len(pids.read_text().splitlines()) == 8, f"three more at once\n{run.log()}")
    run.send(signal.SIGQUIT)
    assert run.ended() == 0
    left = {each.id: envelope.decode(lane.peek(each.id).body) for each in jobs(lane)}
    assert sorted((each.lost, each.attempt) for each in left.values()) == [(0, 1)] * 4
    alive = processes()
    assert [pid for pid in pids.read_text().split() if int(pid) in alive and alive[int(pid)][1] != "Z"] == []


def test_lane_children_come_and_go_with_the_handlers_that_need_them(make: Make, look: Queue, lane: Queue) -> None:
    run = make(4, processes=2)
    run.write_handlers(HANDLERS)
    run.start().ready()
    for handlers, children in ((HANDLERS, 2), (LANES, 4), (HANDLERS, 2)):
        run.write_handlers(handlers)
        run.send(signal.SIGHUP)
        before = len(run.story("end"))
        run.put_many(3, "work")
        wait_for(lambda before=before: len(run.story("end")) == before + 3, f"all to be done\n{run.log()}")
        wait_for(lambda children=children: len(run.children()) == children, f"{children} children\n{run.log()}")
    assert "child died" not in run.log()


def test_the_limit_holds_over_a_reload_and_a_kill_and_stops_burn_no_attempt(
    make: Make, look: Queue, lane: Queue
) -> None:
    run = make(6).start().ready()
    run.put_many(20)
    wait_for(lambda: run.running() == 6, f"as many as may run\n{run.log()}")
    old = {pid for _, pid, _ in run.story("start")}
    run.write_handlers(LANES.replace('"one"', '"two"'))
    run.send(signal.SIGHUP)
    # as long as the old ones hold theirs, the new ones get none
    wait_for(lambda: len(run.children()) == 5, f"new children beside the two that drain\n{run.log()}")
    assert run.running() == 6
    os.kill(min(old), signal.SIGKILL)
    wait_for(lambda: {version for _, _, version in run.story("start")} == {"one", "two"}, f"new ones\n{run.log()}")
    lost = len([pid for _, pid, version in run.story("start") if pid == min(old) and version == "one"])
    assert run.running() - lost <= 6, "also with those that are tried alone"
    run.send(signal.SIGQUIT)
    assert run.ended() == 0
    left = [envelope.decode(queue.peek(each.id).body) for queue in (lane, look) for each in jobs(queue)]
    assert len(left) == 20
    assert {(each.failures, each.attempt) for each in left} == {(0, 1)}
    run.let_go()
    run.start().ready()
    wait_for(lambda: not jobs(lane) and not jobs(look), f"all to be done\n{run.log()}", 60)
    run.send(signal.SIGTERM)
    assert run.ended() == 0
