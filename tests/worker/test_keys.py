"""A real pool whose route works one delivery of a key at a time, and one whose route pauses itself."""

from __future__ import annotations

import random
from collections import Counter
from operator import methodcaller
from typing import TYPE_CHECKING

import msgspec

from glassq import delivery as envelope
from glassq.settings import parking_tube
from glassq.worker.gates.report import paused_routes
from tests.chaos.keys import KeyRun
from tests.conftest import wait_for
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

# Fails as long as there is a file `down`.
FRAGILE = """
from pathlib import Path
from glassq import Retry

HERE = Path(__file__).parent

def handle(delivery):
    with (HERE / "attempts").open("a") as attempts:
        attempts.write(f"{delivery.id} {delivery.failures}\\n")
    if (HERE / "down").exists():
        raise Retry("the target is down", delay=1)
    with (HERE / "done").open("a") as done:
        done.write(f"{delivery.id}\\n")
"""


def parked(queue: Queue) -> int:
    tubes = [tube for tube in queue.tubes() if parking_tube("glassq", tube)]
    return sum(queue.stats_tube(tube).ready for tube in tubes)


def test_never_two_of_a_key_at_once_though_children_are_killed(
    beanstalkd: Beanstalkd, queue: Queue, tmp_path: Path
) -> None:
    keys = [f"user-{random.randrange(40)}" for _ in range(2_000)] + ["hot"] * 300
    random.shuffle(keys)
    run = KeyRun(tmp_path, beanstalkd, processes=4, max_lost=20, pause=0.0005)
    with run.pool:
        run.put(keys)
        run.pool.start().ready()
        run.finish(len(keys), kill_every=0.7)
        assert run.at_once() == []
        counts = Counter(name for _, _, name, _ in run.done())
        assert len(counts) == len(keys)
        wait_for(lambda: parked(queue) == 0, "nothing to be parked")
        assert "buried" not in run.pool.log()


def test_each_waits_once_and_the_next_pool_finds_it(beanstalkd: Beanstalkd, queue: Queue, tmp_path: Path) -> None:
    run = KeyRun(tmp_path, beanstalkd, processes=2)
    with run.pool:
        hold = run.pool.dir / "hold"
        hold.touch()
        run.put(["hot"] * 100)
        run.pool.start().ready()
        wait_for(lambda: parked(queue) == 99, "all but one to be parked")
        wait_for(lambda: queue.stats_tube("glassq").reserved == 1, "what was parked to be proven")
        # What follows puts nothing, so nobody needs the syncer, whose probes beanstalkd counts as it counts deliveries:
        # each of its connections puts one, and each round releases one.
        beanstalkd.syncer.stop()
        assert sorted(_ever_put(queue).values()) == [99, 100], "each was put once, and parked once"
        put, released = queue.max_job_id(), _released(queue)
        # an operator pauses the tube: what it has parked waits as well
        assert queue.pause(60)
        hold.unlink()
        _all_wait(run, queue, done=1)
        assert run.pool.process is not None
        run.pool.process.end()
        run.pool.start()
        _all_wait(run, queue, done=1)
        assert queue.pause(0)
        run.finish(100)
        assert queue.max_job_id() == put + 1, "nothing was put since, but for a probe of ours"
        assert _released(queue) == released
        assert run.at_once() == []


def _all_wait(run: KeyRun, queue: Queue, *, done: int) -> None:
    """Waits until both children wait for deliveries; so many are done then, and all others are parked."""
    wait_for(lambda: queue.stats_tube("glassq").waiting == 2, f"both children to wait\n{run.pool.log()[-3000:]}")
    assert (run.count(), parked(queue)) == (done, 100 - done)


def _ever_put(queue: Queue) -> dict[str, int]:
    """How many jobs have come into each tube where deliveries are, since it was there."""
    tubes = [tube for tube in queue.tubes() if tube == "glassq" or parking_tube("glassq", tube)]
    return {tube: queue._call(methodcaller("stats_tube", tube))["total-jobs"] for tube in tubes}


def _released(queue: Queue) -> int:
    """How many jobs have been released since the server was started."""
    stats = queue._call(lambda client: client.stats())
    return int(stats["cmd-release"])


def test_a_route_that_fails_pauses_itself_and_goes_on(beanstalkd: Beanstalkd, queue: Queue, tmp_path: Path) -> None:
    with PoolRun(tmp_path, beanstalkd, processes=2, backoff="1s") as pool:
        pool.write_handlers(FRAGILE)
        pool.write_settings(route='name = "photos"\nbreaker = 5\n')
        (pool.dir / "down").touch()
        made = [msgspec.structs.replace(envelope.new("mirror", b"{}", {}), tube="glassq") for _ in range(60)]
        for each in made:
            queue.put(envelope.encode(each), tube="glassq")
        place = tmp_path / "run"
        place.mkdir()
        pool.start(RUNTIME_DIRECTORY=str(place)).ready()
        wait_for(lambda: queue.stats_tube("glassq.held.photos").ready > 50, "deliveries to be parked")
        wait_for(lambda: paused_routes(place), "the route to be on record")
        (route,) = paused_routes(place)
        assert (route.route, route.failures, route.why) == ("photos", 5, "Retry: the target is down")
        (pool.dir / "down").unlink()
        wait_for(lambda: _lines(pool, "done") == len(made), "all to be done")
        wait_for(lambda: not paused_routes(place), "the route to be off the record")
        attempts = dict(map(str.split, (pool.dir / "attempts").read_text().splitlines()))
        assert max(attempts.values()) == "1", "nothing has lost an attempt but those that opened it"
        assert list(attempts.values()).count("1") in (5, 6), "the other child may have been at work"
        assert pool.log().count("route pauses itself") == 1
        assert pool.log().count("route goes on") == 1


def _lines(pool: PoolRun, file: str) -> int:
    path = pool.dir / file
    return len(path.read_text().splitlines()) if path.exists() else 0
