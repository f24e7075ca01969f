"""What a million waiting deliveries cost: `make bench-backlog`.

Two queues run side by side, each with an intake and a pool: one has the deliveries waiting, the other one has none.
Both do the same work in turn, and a round begins with the one that the last round ended with. What came in, or was
worked, is made up for before the next measurement, so that both stay as they are.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import load
import servers
from disk import AS_IT_IS
from measure import PAUSE, compared, say

from glassq import delivery as envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import greenstalk

CONNECTIONS, CHILDREN = 32, 2
# Jobs of one packet.
PACKET = 500
# More deliveries than a pool works in a second.
SPEED = 20_000
# A measurement of a pool begins once it has worked so many.
WARM = 500
# The reach: as a share of the rates beside an empty queue.
MIN_RATIO = 0.9
# The rates of all rounds, by what was measured, and by side.
Found = dict[str, dict[str, list[float]]]
Side = tuple[int, servers.Queue]


def measure(place: Path, *, waiting: int = 1_000_000, rounds: int = 10, seconds: float = 3.0) -> Found:
    """(i) acknowledged pings/s and no-op deliveries/s with so many waiting, and beside an empty queue."""
    with ExitStack() as stack:
        sides = {name: stack.enter_context(servers.intake(place / name, AS_IT_IS)) for name in ("empty", "full")}
        say(f"backlog: {waiting:,} deliveries")
        put(sides["full"][1].port, waiting)
        clients = {name: stack.enter_context(servers.client(queue.port)) for name, (_, queue) in sides.items()}

        def turns(what: str, act: Callable[[Side, greenstalk.Client[bytes], float], float]) -> dict[str, list[float]]:
            """The rates of all rounds, by side; every second round begins with the other one."""
            found: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(rounds):
                for name in sorted(sides, reverse=number % 2 == 1):
                    say(f"backlog: {what}: round {number + 1} of {rounds}, {name}")
                    found[name].append(act(sides[name], clients[name], seconds))
            return found

        acknowledged_rates = turns("acknowledged", acknowledged)
        for name, (_, queue) in sides.items():
            clients[name].pause_tube("glassq", PAUSE)
            stack.enter_context(servers.pool(place / name, queue, CHILDREN))
        return {"acknowledged": acknowledged_rates, "drained": turns("drained", drained)}


def acknowledged(side: Side, client: greenstalk.Client[bytes], seconds: float) -> float:
    port, queue = side
    before = newest(client)
    done = load.full_speed(port, connections=CONNECTIONS, seconds=seconds)
    if done.failed:
        sys.exit(f"bench: {done.failed} pings were not acknowledged")
    delete(queue.port, range(before + 1, newest(client)))
    return done.rate


def drained(side: Side, client: greenstalk.Client[bytes], seconds: float) -> float:
    """How many deliveries per second the pool works, of those that have waited longest."""
    port = side[1].port
    ids = put(port, round(SPEED * seconds))
    before = deletes(client)
    client.pause_tube("glassq", 0)
    while (begun := deletes(client)) < before + WARM:
        time.sleep(0.02)
    started = time.perf_counter()
    time.sleep(seconds)
    rate = (deletes(client) - begun) / (time.perf_counter() - started)
    client.pause_tube("glassq", PAUSE)
    while client.stats_tube("glassq")["current-jobs-reserved"]:
        time.sleep(0.02)
    # as many are left as there were
    delete(port, ids[deletes(client) - before :])
    return rate


def deletes(client: greenstalk.Client[bytes]) -> int:
    return int(client.stats()["cmd-delete"])


def newest(client: greenstalk.Client[bytes]) -> int:
    """The id of the newest job; it is gone."""
    job = client.put(b"", delay=PAUSE)
    client.delete(job)
    return int(job)


def put(port: int, jobs: int) -> list[int]:
    """Puts so many deliveries, as fast as the queue takes them; returns their ids."""
    ping = load.request(0).partition(b"\r\n\r\n")[2]
    body = envelope.encode(envelope.new("mirror", ping, {"collection": "timeline", "operation": "INSERT"}))
    command = b"put 1024 0 120 %d\r\n%b\r\n" % (len(body), body)
    return [int(answer.split()[1]) for answer in packets(port, itertools.repeat(command, jobs))]


def delete(port: int, ids: Iterable[int]) -> None:
    """Deletes these jobs, as far as they are there."""
    deque(packets(port, (b"delete %d\r\n" % job for job in ids)), 0)


def packets(port: int, commands: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the answer to each command."""
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
        sock.sendall(b"use glassq\r\n")
        answers.readline()
        commands = iter(commands)
        while packet := list(itertools.islice(commands, PACKET)):
            sock.sendall(b"".join(packet))
            yield from (answers.readline() for _ in packet)


def rows(found: Found) -> Iterator[tuple[str, ...]]:
    """Rows for the table of all results."""
    for what, label in (
        ("acknowledged", "acknowledged pings/s"),
        ("drained", f"no-op deliveries/s, {CHILDREN} children"),
    ):
        own, other, ratio = compared(found[what]["full"], found[what]["empty"])
        yield f"{label}, a million waiting", own, other, "beside an empty queue", ratio, f"at least {MIN_RATIO}"


def main() -> None:
    """Measures, and prints a line for each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--waiting", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of one round")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        found = measure(Path(place), waiting=given.waiting, rounds=given.rounds, seconds=given.seconds)
    for row in rows(found):
        print("  ".join(row))


if __name__ == "__main__":
    main()
