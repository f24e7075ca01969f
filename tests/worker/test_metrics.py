"""What the pool tells Prometheus, asked of a real one."""

from __future__ import annotations

import os
import signal
import socket
import struct
import urllib.request
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Self
from urllib.error import HTTPError, URLError

import pytest

from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.queues.beanstalk.protocol import ServerStats, TubeStats
from glassq.values import QueueUrl
from glassq.worker.collector import PoolCollector
from glassq.worker.scoreboard import Scoreboard
from tests.conftest import free_port, wait_for
from tests.metrics.test_counters import samples
from tests.queues.raw_postgres import PostgresQueue, fresh_url
from tests.worker.conftest import jobs
from tests.worker.pools import PoolRun, processes, title

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

HANDLERS = """
import os
from glassq import Bury, Drop, Retry

def handle(delivery):
    what = delivery.body.decode()
    if "drop" in what:
        raise Drop("nothing to do")
    if "again" in what:
        raise Retry("not yet", delay=3600)
    if "never" in what:
        raise Bury("never")
    if "die" in what:
        os._exit(7)
"""


class Watched(PoolRun):
    """A pool that tells its metrics."""

    def __init__(self, directory: Path, server: Beanstalkd | PostgresQueue, look: Queue | PostgresQueue) -> None:
        self.port = free_port()
        self.queue = look
        super().__init__(directory, server, look, processes=2, max_lost=1)
        self.write_handlers(HANDLERS)
        self.write_settings(more=f'[metrics]\npool = "127.0.0.1:{self.port}"\n')

    def start_telling(self) -> Self:
        """It tells what is so now, and who tells is started again soon."""
        return self.start_with({"worker.sidecar.RETRY_INTERVAL": 0.5, "metrics.server.MAX_GAUGE_AGE": 0.1})

    def samples(self) -> dict[tuple[str, ...], float]:
        """Nothing while nobody answers."""
        with (
            suppress(URLError, ConnectionError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer,
        ):
            return samples(answer.read())
        return {}

    def waits_for(self, name: tuple[str, ...], number: float) -> None:
        wait_for(lambda: self.samples().get(name) == number, f"{name} to be {number}\n{self.log()}")

    def teller(self) -> int:
        return next((pid for pid in self.forked() if title(pid) == "glassq-worker: metrics"), 0)


@pytest.fixture
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    """On beanstalkd, or on the engine that a test names."""
    engine = getattr(request, "param", "beanstalkd")
    server = request.getfixturevalue(engine)
    look = request.getfixturevalue("look") if engine == "beanstalkd" else PostgresQueue(fresh_url(server))
    with closing(look), Watched(tmp_path, server if engine == "beanstalkd" else look, look) as made:
        made.start_telling().ready()
        yield made


EACH_ENGINE = pytest.mark.parametrize("pool", ["beanstalkd", "postgres"], indirect=True)


@EACH_ENGINE
def test_every_outcome_is_counted(pool: Watched) -> None:
    look = pool.queue
    for name in ("work", "work", "drop", "again", "never"):
        pool.put(name)
    # a child that dies gives back what it has put again and not proven yet: that is worked twice
    pool.waits_for(("glassq_jobs", "delayed", look.tube), 1)
    pool.waits_for(("glassq_jobs", "reserved", look.tube), 0)
    pool.put("die")
    pool.waits_for(("glassq_attempts_total", "done"), 2)
    pool.waits_for(("glassq_attempts_total", "dropped"), 1)
    pool.waits_for(("glassq_attempts_total", "retry"), 1)
    pool.waits_for(("glassq_attempts_lost_total",), 1)
    # the one that died is buried without another attempt, max_lost being 1
    pool.waits_for(("glassq_attempts_total", "bury"), 2)
    pool.waits_for(("glassq_jobs", "buried", look.tube), 2)
    found = pool.samples()
    assert found[("glassq_handler_seconds_count",)] == 5
    assert found[("glassq_first_attempt_wait_seconds_count",)] == 5
    assert found["glassq_jobs", "delayed", look.tube] == 1
    assert found["glassq_jobs", "ready", look.tube] == 0
    assert found[("glassq_jobs_damaged_total",)] == 0
    assert found[("glassq_queue_up",)] == found[("glassq_queue_durable",)] == 1
    if isinstance(look, PostgresQueue):
        # two children, of which one follows the dead, the one that tells, and the test; a waker comes and goes
        wait_for(lambda: pool.samples()[("glassq_queue_connections",)] >= 4, "the child that follows to connect")
        assert found[("glassq_queue_connections_left",)] > 0
        assert found[("glassq_queue_table_bytes",)] > 0
        assert found[("glassq_queue_standbys_needed",)] == 0
        with look.refusing():
            pool.waits_for(("glassq_queue_draining",), 1)


def test_a_damaged_job_is_counted(pool: Watched, look: Queue) -> None:
    look.put(b"nobody can read this")
    pool.waits_for(("glassq_jobs_damaged_total",), 1)


def test_children_and_queue_are_told_as_they_are(pool: Watched, look: Queue) -> None:
    look.stats()
    pool.waits_for(("glassq_children", "waiting"), 2)
    found = pool.samples()
    assert found[("glassq_children_wanted",)] == 2
    assert found[("glassq_queue_up",)] == found[("glassq_queue_durable",)] == 1
    assert found[("glassq_queue_draining",)] == 0
    assert found[("glassq_binlog_files",)] >= 1
    # two children, the one that tells, the syncer as soon as that one has asked it for a proof, and the test
    pool.waits_for(("glassq_queue_connections",), 5)
    assert found["glassq_tube_paused", look.tube] == 0
    look.pause(3600)
    pool.put("work")
    pool.waits_for(("glassq_tube_paused", look.tube), 1)
    pool.waits_for(("glassq_jobs", "ready", look.tube), 1)
    wait_for(lambda: pool.samples()["glassq_oldest_ready_seconds", look.tube] >= 1, "the job to grow old")
    pool.send(signal.SIGTTIN)
    pool.waits_for(("glassq_children_wanted",), 3)


def test_a_job_grows_old_only_while_it_is_ready(pool: Watched, look: Queue) -> None:
    name = ("glassq_oldest_ready_seconds", look.tube)
    look.pause(3600)
    look.put(b"later", delay=3)
    kicked = look.put(b"kicked")
    look.reserve_job(kicked)
    look.bury(kicked)
    wait_for(lambda: look.stats_job(kicked).age >= 4, "some seconds to pass")
    wait_for(lambda: look.stats_tube().ready == 1, "the one with a delay to be ready")
    first = look.peek_first("ready")
    assert first is not None
    age = look.stats_job(first.id).age
    assert age >= 3 and pool.samples()[name] <= age - 2
    look.delete(first.id)
    look.kick(kicked)
    pool.waits_for(("glassq_jobs", "buried", look.tube), 0)
    assert pool.samples()[name] < look.stats_job(kicked).age - 2


def test_only_metrics_are_told(pool: Watched) -> None:
    pool.waits_for(("glassq_children", "waiting"), 2)
    with pytest.raises(HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{pool.port}/", timeout=20)


def test_who_asks_and_goes_away_leaves_no_mess_in_the_log(pool: Watched) -> None:
    pool.waits_for(("glassq_children", "waiting"), 2)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", pool.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(b"GET")
    wait_for(lambda: "scrape failed" in pool.log(), f"the log to say so\n{pool.log()}")
    assert "Traceback" not in pool.log()


def test_an_attempt_that_the_queue_could_not_be_told_of_is_counted(
    tmp_path: Path, beanstalkd: Beanstalkd, look: Queue
) -> None:
    with Watched(tmp_path, beanstalkd, look) as pool:
        pool.write_handlers(
            "import os, pathlib, signal\n"
            "def handle(delivery):\n"
            "    try:\n"
            "        (pathlib.Path(__file__).parent / 'once').touch(exist_ok=False)\n"
            "    except FileExistsError:\n"
            "        return 'again'\n"
            f"    os.kill({beanstalkd.pid}, signal.SIGSTOP)\n"
            "    return 'first'\n"
        )
        pool.write_settings(more=f'[metrics]\npool = "127.0.0.1:{pool.port}"\n', timeout="1s")
        pool.start().ready()
        delivery = pool.put("x")
        wait_for(lambda: "outcome not acknowledged" in pool.log(), f"it to be told\n{pool.log()}")
        beanstalkd.send(signal.SIGCONT)
        (line,) = [line for line in pool.log().splitlines() if "outcome not acknowledged" in line]
        assert f"delivery={delivery.id} attempt=1" in line
        pool.waits_for(("glassq_attempts_unacknowledged_total",), 1)


def test_a_queue_that_is_gone_is_told_and_what_was_counted_stays(pool: Watched, beanstalkd: Beanstalkd) -> None:
    pool.put("work")
    pool.waits_for(("glassq_attempts_total", "done"), 1)
    beanstalkd.stop()
    pool.waits_for(("glassq_queue_up",), 0)
    found = pool.samples()
    assert found["glassq_attempts_total", "done"] == 1
    assert not any(name[0] == "glassq_jobs" for name in found)
    beanstalkd.start()
    pool.waits_for(("glassq_queue_up",), 1)


def test_who_tells_is_replaced_when_killed_and_no_work_notices(pool: Watched, look: Queue) -> None:
    wait_for(pool.teller, "the one that tells")
    teller = pool.teller()
    pool.put("work")
    pool.waits_for(("glassq_attempts_total", "done"), 1)
    os.kill(teller, signal.SIGKILL)
    wait_for(lambda: pool.teller() not in (0, teller), f"another one\n{pool.log()}")
    assert f"a process beside the children died what=metrics pid={teller} how=SIGKILL" in pool.log()
    pool.waits_for(("glassq_attempts_total", "done"), 1)
    assert jobs(look) == []
    assert "child died" not in pool.log()


def test_a_reload_moves_it_to_its_new_address_and_ends_it_without_one(pool: Watched) -> None:
    pool.put("work")
    pool.waits_for(("glassq_attempts_total", "done"), 1)
    pool.port = free_port()
    pool.write_settings(more=f'[metrics]\npool = "127.0.0.1:{pool.port}"\n')
    pool.send(signal.SIGHUP)
    pool.waits_for(("glassq_attempts_total", "done"), 1)
    pool.write_settings()
    pool.send(signal.SIGHUP)
    wait_for(lambda: not pool.teller(), "nobody to tell any more")


def test_an_address_that_somebody_else_has_stops_no_work(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> None:
    with Watched(tmp_path, beanstalkd, look) as pool:
        with socket.create_server(("127.0.0.1", pool.port)):
            pool.start_telling().ready()
            wait_for(lambda: "metrics are not served: Address already in use" in pool.log(), "the log to say so")
            assert f"address=127.0.0.1:{pool.port}" in pool.log()
            teller = pool.teller()
            pool.put("work")
            wait_for(lambda: "done" in pool.log(), "the work to be done")
        # and it tries again
        pool.waits_for(("glassq_attempts_total", "done"), 1)
        assert pool.teller() == teller
        assert pool.log().count("metrics are not served") == 1


def test_it_stops_with_the_pool_and_dies_with_its_parent(pool: Watched) -> None:
    wait_for(pool.teller, "the one that tells")
    teller = pool.teller()
    pool.send(signal.SIGKILL)
    wait_for(lambda: teller not in processes(), "it to be gone")


def test_an_orderly_stop_leaves_nobody(pool: Watched) -> None:
    wait_for(pool.teller, "the one that tells")
    teller = pool.teller()
    pool.send(signal.SIGTERM)
    assert pool.ended() == 0
    assert teller not in processes()


def _stats(**changes: object) -> ServerStats:
    values: dict[str, object] = {"version": "1.13", "durable": True, "draining": False, "connections": 1, "uptime": 5}
    values |= {"id": "a", "puts": 0, "records": 0, "files": 1, "workers": 0, "max_job": 65535, "jobs": 0, **changes}
    return ServerStats(**values)  # type: ignore[arg-type]


class Asked:
    """A queue without tubes whose server says what the test has it say."""

    def __init__(self) -> None:
        self.now = _stats()

    def set_deadline(self, deadline: float) -> None:
        pass

    def stats(self) -> ServerStats:
        return self.now

    def stats_tube(self, tube: str) -> TubeStats:
        return TubeStats(tube, ready=0, reserved=0, delayed=0, buried=0, waiting=0, paused_for=0)


class Asking(BeanstalkInspector):
    def check(self, *, aside: bool = False) -> None:
        """That needs a server."""


def test_a_server_whose_binlog_stands_still_while_it_takes_jobs_is_not_durable() -> None:
    asked = Asked()
    inspector = Asking(asked, QueueUrl("beanstalk://127.0.0.1:1"))  # type: ignore[arg-type]
    look = PoolCollector(Scoreboard(1), inspector, [])

    def durable(**changes: object) -> float:
        asked.now = _stats(**changes)
        return next(numbers[()] for gauge, numbers in look().items() if gauge.name == "glassq_queue_durable")

    assert durable(jobs=10, records=20) == 1
    assert durable(jobs=10, records=20) == 1
    assert durable(jobs=11, records=20) == 0
    # without another put nobody can say that it writes again
    assert durable(jobs=11, records=20) == 0
    assert durable(jobs=12, records=21) == 1
    assert durable(jobs=13, records=21) == 0
    # a restarted one begins anew
    assert durable(jobs=0, records=0, id="b") == 1
    assert durable(durable=False, id="b") == 0


def test_jobs_of_a_queue_that_the_settings_have_no_more_are_counted(beanstalkd: Beanstalkd, queue: Queue) -> None:
    inspector = BeanstalkInspector(queue, QueueUrl(beanstalkd.url))
    for tube in ("glassq", "glassq.queue.gone", "glassq.queue.gone.key.r.00ff", "glassq.push.q", "other.queue.gone"):
        queue.put(b"x", tube=tube)
    collector = PoolCollector(Scoreboard(1), inspector, ["glassq", "glassq.queue.here"], prefixes=("glassq.queue.",))
    (jobs_of,) = (numbers for gauge, numbers in collector().items() if gauge.name == "glassq_jobs")
    assert {tube: number for (tube, state), number in jobs_of.items() if state == "ready"} == {
        "glassq": 1.0,
        "glassq.queue.here": 0.0,
        "glassq.queue.gone": 1.0,
    }
