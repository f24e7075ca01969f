"""A slow route with a limit beside a fast one, in a real pool: over kills, a reload, and until its tube is empty."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_for
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

FAST = '[[routes]]\nsource = "mirror"\nhandler = "handlers:handle"\nname = "fast"\n'


class SlowBesideFast(PoolRun):
    """Deliveries with the label kind = "slow" have a route of their own, which `allow` limits."""

    def allow(self, most: int) -> None:
        limited = f'name = "slow"\nconcurrency = {most}\nmatch = {{ kind = "slow" }}\n'
        self.write_settings(route=limited, more=FAST)

    @property
    def tube(self) -> str:
        assert self._look is not None
        return f"{self._look.tube}.route.slow"

    def at_work(self) -> int:
        assert self._look is not None
        return self._look.stats_tube(self.tube).reserved

    def running(self) -> set[str]:
        """The slow ones whose attempt was begun and is not over, also those that died."""
        return {name for name, _, _ in self.story("start")} - {name for name, _, _ in self.story("end")}

    def wait_for_work(self, many: int) -> None:
        wait_for(lambda: self.at_work() == many, f"{many} slow ones to be at work\n{self.log()}")


@pytest.fixture
def run(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> Iterator[SlowBesideFast]:
    with SlowBesideFast(tmp_path, beanstalkd, look, processes=2) as made:
        yield made


def test_a_slow_route_leaves_the_others_their_children_whatever_happens_to_its_own(
    run: SlowBesideFast, look: Queue
) -> None:
    run.allow(1)
    # of a release whose route had no limit yet: they go on into its tube, without an attempt
    for number in range(4):
        run.put(f"slow{number}", "hold", kind="slow")
    run.start().ready()
    run.wait_for_work(1)
    for number in range(30):
        run.put(f"fast{number}")
    wait_for(lambda: len(run.story("end")) == 30, f"all the fast ones to be done\n{run.log()}")
    assert {name for name, _, _ in run.story("end")} == {f"fast{number}" for number in range(30)}
    assert len(run.running()) == 1
    stats = look.stats_tube(run.tube)
    assert (stats.ready, stats.reserved, look.stats_tube(look.tube).ready) == (3, 1, 0)

    (_, killed, _) = next(each for each in run.story("start") if each[0].startswith("slow"))
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len([1 for name, _, _ in run.story("start") if name[:4] == "slow"]) == 2, "another to begin")
    assert run.at_work() == 1

    run.allow(2)
    run.send(signal.SIGHUP)
    run.wait_for_work(2)

    # the limit is gone with its route, and what waits in its tube is worked all the same
    run.write_settings()
    run.send(signal.SIGHUP)
    run.put("late", tube=run.tube, kind="slow")
    run.let_go()
    wait_for(lambda: len(run.story("end")) == 35, f"all to be done\n{run.log()}")
    done = [name for name, _, _ in run.story("end")]
    assert sorted(done[30:]) == ["late", "slow0", "slow1", "slow2", "slow3"]
