"""PostgreSQL as the queue, beside a plain psycopg loop of the same statements: `python -m bench.postgres`.

Each round measures ours and the plain one in turn, on two disks. (a) puts of one connection; (b) two children of a pool
that drain a tube: they end and reserve several quick jobs with one statement, the plain loop one; (c) from a put to its
handler; (d) puts of four connections into three nodes, each commit on two disks. (e) sets one database with many jobs
waiting, and a dead past in its indexes, beside an empty one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.queues import open_producer
from glassq.queues.base import NewJob
from tests.postgres import PostgresServer
from tests.postgres_cluster import PostgresCluster

sys.path.insert(0, str(Path(__file__).parent))
from disk import AS_IT_IS, Disk, disks
from measure import compared, median, say, side_by_side
from postgres_scene import PLAIN, TUBE, Scene, in_turn, our_put, plain_drain, plain_put

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = {"shared_buffers": "256MB", "max_wal_size": "2GB"}
# So many processes put at once into three nodes.
CONNECTIONS = 4
PARTS = ("node", "nodes", "backlog")


def check_disk(server: PostgresServer, disk: Disk) -> None:
    """Ends the program if the server does without the library that makes its disk a slow one."""
    if disk.env.get("LD_PRELOAD", "") not in Path(f"/proc/{server.pid}/maps").read_text():
        sys.exit(f"bench: the server has not loaded the library of the disk ({disk.name})")


def puts(scene: Scene, connections: int, seconds: float) -> tuple[float, float]:
    """Puts a second, each by itself: ours, and the plain loop's."""
    makers = [lambda: our_put(scene.settings), lambda: plain_put(scene.url.whole)]
    ours, plain = in_turn(connections, seconds, *makers)
    scene.empty(PLAIN)
    return ours, plain


def drains(scene: Scene, jobs: int) -> tuple[float, float]:
    """What two children of a pool, and two plain loops, drain a second."""
    scene.fill(TUBE, jobs)
    scene.pause()
    with scene.pool():
        scene.pause(0)
        ours = drained(scene, TUBE, jobs)
    scene.fill(PLAIN, jobs)
    with side_by_side(2, plain_drain, scene.url.whole, PLAIN):
        return ours, drained(scene, PLAIN, jobs)


def drained(scene: Scene, tube: str, jobs: int) -> float:
    """Jobs a second, until the tube is empty."""
    began = time.perf_counter()
    with scene.plain() as connection:
        there = "SELECT EXISTS (SELECT FROM glassq_jobs WHERE tube = %s)"
        while connection.execute(there, [tube]).fetchone() != (False,):
            time.sleep(0.02)
    return jobs / (time.perf_counter() - began)


def latencies(scene: Scene, pings: int) -> list[float]:
    """From a put to its handler, in seconds; one at a time."""
    with scene.pool("stamp"), closing(open_producer(scene.settings)) as producer:
        for _ in range(pings):
            data = envelope.encode(envelope.new("mirror", b'{"sent": %f}' % time.time(), {}))
            producer.put([NewJob(envelope.new_id(), data, TUBE)], within=10)
            time.sleep(0.03)
        time.sleep(1)
    found = [float(line) for path in scene.place.glob("late.*") for line in path.read_text().split()]
    return sorted(found)


def compare(what: str, rounds: int, one: Callable[[], tuple[float, float]], beside: str = "plain") -> None:
    """Prints the medians of both, and of the ratios."""
    pairs = [one() for _ in range(rounds)]
    mine, theirs, ratio = compared([a for a, _ in pairs], [b for _, b in pairs])
    print(f"  {what:<28} {mine:>8}/s   {beside} {theirs:>8}/s   {ratio}", flush=True)


def on_one_node(place: Path, disk: Disk, options: argparse.Namespace) -> None:
    """(a), (b) and (c)."""
    server = PostgresServer(place, options=OPTIONS, env=disk.env)
    try:
        check_disk(server, disk)
        scene = Scene(place / "scene", server.url(server.database()))
        compare("put", options.rounds, lambda: puts(scene, 1, options.seconds))
        compare("drain", options.rounds, lambda: drains(scene, options.jobs))
        late = latencies(scene, 100)
        p50, p95 = (1000 * late[int(len(late) * part)] for part in (0.5, 0.95))
        print(f"  put to handler: p50 {p50:.1f} ms, p95 {p95:.1f} ms", flush=True)
    finally:
        server.remove()


def on_three_nodes(place: Path, disk: Disk, options: argparse.Namespace) -> None:
    """(d)"""
    with PostgresCluster(place, options=OPTIONS, env=disk.env, proxied=False) as cluster:
        check_disk(cluster.primary.running, disk)
        scene = Scene(place / "scene", cluster.url(cluster.database()))
        what = f"put, three nodes, {CONNECTIONS} at once"
        compare(what, options.rounds, lambda: puts(scene, CONNECTIONS, options.seconds))


def with_a_backlog(place: Path, disk: Disk, options: argparse.Namespace) -> None:
    """(e) Both databases are in one server, and so on one log: its checkpoints slow both."""
    server = PostgresServer(place, options=OPTIONS, env=disk.env)
    try:
        full, empty = (Scene(place / name, server.url(server.database())) for name in ("full", "empty"))
        say(f"{options.waiting:,} jobs are put, then {options.past:,} of them worked and put again")
        full.fill("elsewhere", options.waiting // 2)
        full.fill(TUBE, options.waiting // 2)
        work_off(full, options.past)
        full.fill(TUBE, options.past)
        compare(
            "put, beside an empty one", options.rounds, lambda: puts_into_both(full, empty, options.seconds), "empty"
        )
        with ExitStack() as pools:
            for scene in (full, empty):
                scene.fill(TUBE, 4 * options.jobs)
                scene.pause()
                pools.enter_context(scene.pool())
            drain = one_drain(options)
            compare("drain, beside an empty one", options.rounds, lambda: (drain(full), drain(empty)), "empty")
    finally:
        server.remove()


def puts_into_both(full: Scene, empty: Scene, seconds: float) -> tuple[float, float]:
    """Our puts a second, of one connection to each."""
    full_rate, empty_rate = in_turn(
        1, seconds, *(lambda scene=scene: our_put(scene.settings) for scene in (full, empty))
    )
    for scene in (full, empty):
        scene.empty(PLAIN)
    return full_rate, empty_rate


def one_drain(options: argparse.Namespace) -> Callable[[Scene], float]:
    """The pool's rate in a tube that does not become empty; what it has worked is put again."""

    def act(scene: Scene) -> float:
        before = scene.waiting(TUBE)
        began = time.perf_counter()
        scene.pause(0)
        time.sleep(options.seconds / 2)
        scene.pause()
        over = time.perf_counter()
        done = before - scene.waiting(TUBE)
        if done >= before:
            sys.exit("bench: the tube has become empty: more --jobs")
        scene.fill(TUBE, done)
        return done / (over - began)

    return act


def work_off(scene: Scene, jobs: int) -> None:
    """A pool works so many jobs of the tube."""
    left = scene.waiting(TUBE) - jobs
    scene.pause()
    with scene.pool():
        scene.pause(0)
        last, rates = left + jobs, []
        while last > left:
            began = time.perf_counter()
            time.sleep(5)
            now = scene.waiting(TUBE)
            rates.append((last - now) / (time.perf_counter() - began))
            last = now
        scene.pause()
    say(f"worked, a second: {', '.join(f'{rate:,.0f}' for rate in rates)}; median {median(rates):,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement of a rate")
    parser.add_argument("--jobs", type=int, default=5_000, help="to drain in a round")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="of (e)")
    parser.add_argument("--past", type=int, default=200_000, help="jobs of (e) that were put and drained")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given again")
    options = parser.parse_args()
    parts = options.part or PARTS
    with tempfile.TemporaryDirectory() as made:
        # the server is another user where we are root, and loads the disk's library
        Path(made).chmod(0o755)
        for number, disk in enumerate(disks(Path(made))):
            print(f"{disk.name}:", flush=True)
            for part, act in (("node", on_one_node), ("nodes", on_three_nodes), ("backlog", with_a_backlog)):
                # how much waits is not the disk's matter
                if part in parts and (part != "backlog" or disk is AS_IT_IS):
                    place = Path(made) / f"{part}{number}"
                    place.mkdir()
                    act(place, disk, options)


if __name__ == "__main__":
    main()
