"""A real pool puts what is due by the clock, and works it."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from glassq.schedules.table import ScheduleTable, read_states
from tests.conftest import wait_for
from tests.worker.pools import PoolRun, title

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

HANDLERS = """
from pathlib import Path

def handle(delivery):
    with Path(__file__).with_name("worked").open("a") as file:
        print(delivery.labels["schedule"], delivery.labels["due"], delivery.json()["days"], file=file)
"""
SCHEDULE = """
[[routes]]
source = "schedule"
handler = "handlers:handle"
[[schedule]]
name = "report"
cron = "0 3 1 1 *"
body = '{"days": 7}'
"""


def test_a_pool_puts_what_is_due_and_its_scheduler_is_replaced(
    tmp_path: Path, beanstalkd: Beanstalkd, look: Queue
) -> None:
    with PoolRun(tmp_path, beanstalkd, look) as pool:
        pool.write_handlers(HANDLERS)
        pool.write_settings(more=SCHEDULE)
        url, worked = f"sqlite:///{pool.dir}/ledger.db", pool.dir / "worked"
        # seen first in another year: the time of this one has passed
        this_year = datetime.now(UTC).replace(month=1, day=1, hour=3, minute=0, second=0, microsecond=0)
        table = ScheduleTable(url)
        table.enter(["report"], this_year - timedelta(days=1))
        pool.start().ready()
        line = f"report {this_year:%Y-%m-%dT%H:%M:%SZ} 7\n"
        wait_for(lambda: worked.exists() and worked.read_text() == line, f"the work\n{pool.log()}")
        assert "a schedule's time has passed: caught up schedule=report" in pool.log()
        wait_for(lambda: read_states(url)["report"].state == "put", "the record")

        def scheduler() -> int:
            return next((pid for pid in pool.forked() if title(pid) == "glassq-worker: schedules"), 0)

        first = scheduler()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: scheduler() not in (0, first), f"another scheduler\n{pool.log()}")
        assert f"a process beside the children died what=schedules pid={first} how=SIGKILL" in pool.log()
        assert worked.read_text() == line
        pool.send(signal.SIGTERM)
        assert pool.ended() == 0
        table.close()


def test_a_wrong_schedule_stops_the_start_and_is_named(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    with PoolRun(tmp_path, beanstalkd) as pool:
        pool.write_settings(more=SCHEDULE.replace("0 3 1 1 *", "0 3 31 2 *"))
        assert pool.start().ended() == 78
        assert 'cron = "0 3 31 2 *": expected five fields' in pool.log()
        assert "bad day-of-month" in pool.log()
