"""Handlers that close or replace descriptors which are not their own: the child ends, and writes into nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Beanstalkd, wait_for
from tests.worker.pools import HANDLERS, PoolRun

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are looked up in /proc")

ROBBERS = (
    HANDLERS
    + """
import asyncio, contextlib
from glassq import Retry

def replace(wanted):
    trap = os.open(HERE / "trap", os.O_RDWR | os.O_CREAT)
    for number in range(3, 1100):
        with contextlib.suppress(OSError):
            if wanted in os.readlink(f"/proc/self/fd/{number}") and number != trap:
                os.dup2(trap, number)

def closes_the_low(name):
    os.closerange(3, 200)

def closes_all(name):
    os.closerange(3, 4096)

def replaces_the_log(name):
    replace("/log")

def replaces_the_ledger(name):
    replace("ledger.db")

def replaces_connections(name):
    replace("socket:")

def closes_and_stays(name):
    os.closerange(3, 4096)
    time.sleep(1000)

def asks_again(name):
    raise Retry("so that the ledger is open", delay=600)

def rob(delivery):
    given = json.loads(delivery.body)
    marker = HERE / given["name"]
    if not marker.exists():
        marker.touch()
        globals()[given["do"]](given["name"])

async def rob_slowly(delivery):
    await asyncio.sleep(0.01)
    rob(delivery)
    await asyncio.sleep(0.01)
"""
)
# by the lanes of a child; 0: it has none
WAYS = {
    0: ["closes_the_low", "replaces_the_ledger", "replaces_connections", "closes_and_stays"],
    4: ["closes_all", "replaces_the_log", "closes_and_stays"],
}


def recorded(run: PoolRun) -> dict[str, str]:
    """The states of deliveries in the ledger, by id."""
    if not (run.dir / "ledger.db").exists():
        return {}
    with closing(sqlite3.connect(run.dir / "ledger.db")) as ledger:
        if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'deliveries'").fetchall():
            return {}
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(ledger.execute("SELECT delivery, state FROM deliveries").fetchall())


@pytest.mark.parametrize("lanes", WAYS, ids=["plain", "in lanes"])
def test_a_handler_that_closes_what_is_not_its_own_costs_its_attempt_and_damages_no_file(
    tmp_path: Path, beanstalkd: Beanstalkd, look: Queue, lanes: int
) -> None:
    robbed: list[Delivery] = []
    ways = WAYS[lanes]
    with PoolRun(tmp_path, beanstalkd, look, lane_processes=1) as run:
        run.write_handlers(ROBBERS)
        if lanes:
            run.write_settings("handlers:rob_slowly", route=f'name = "many"\nconcurrency = {lanes}')
        else:
            run.write_settings("handlers:rob")
        tube = f"{look.tube}.route.many" if lanes else ""
        run.start().ready()
        for way in ways:
            again = run.put(f"before-{way}", "asks_again", tube)
            wait_for(lambda: recorded(run).get(again.id) == "retrying", f"the ledger to be open\n{run.log()}")  # noqa: B023
            robbed.append(run.put(way, way, tube))
            wait_for(lambda: recorded(run).get(robbed[-1].id) == "done", f"it to be worked again\n{run.log()}")
        deaths = [line for line in run.log().splitlines() if "child died" in line]
        assert [delivery.id in line for delivery, line in zip(robbed, deaths, strict=True)] == [True] * len(ways)
        assert all("a handler closed or replaced descriptors that are not its own: " in line for line in deaths)
        assert "Bad file descriptor" not in run.log()
        assert not (run.dir / "trap").read_bytes()
        assert len(recorded(run)) == 2 * len(ways)
