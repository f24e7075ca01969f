"""Whether a queue's rate is kept: as many tasks as its token bucket allows, and never one more.

A pool has more tasks than it may deliver; the target notes when each one comes. What has come by the end is set beside
`bucket + rate * t`, and so is every window between two arrivals. A task can come late, so that the next ones seem early
though they began on time: the lateness of requests that are sent to the same target meanwhile says by how much.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import push
import servers
from measure import LONG, say
from target import arrivals, target

if TYPE_CHECKING:
    from collections.abc import Iterator

# What must be reached of the bound.
REACH = 0.95
# How often the target is asked for its time meanwhile, in seconds.
EVERY = 0.02


def measure(
    place: Path, *, rate: float = 50, bucket: int = 10, seconds: float = 30, processes: int = 4
) -> dict[str, float]:
    """(f) tasks delivered at `rate` a second, beside the bound; how far the worst window is over its own."""
    place.mkdir(parents=True)
    yaml = f"queue:\n- name: default\n  rate: {rate:g}/s\n  bucket_size: {bucket}\n"
    bound = bucket + rate * seconds
    with (
        target(place) as (port, record),
        servers.beanstalkd(place) as queue_port,
        servers.client(queue_port, push.TUBE) as client,
        servers.pool(place, queue_port, processes, push=push.settings(place, port, yaml)),
    ):
        client.pause_tube(push.TUBE, LONG)
        push.add(place, math.ceil(bound * 1.2))
        say(f"rate: {rate:g} tasks/s for {seconds:g} s")
        with asked_meanwhile(port) as lateness:
            started = time.monotonic()
            client.pause_tube(push.TUBE, 0)
            time.sleep(started + seconds - time.monotonic())
        if not client.stats_tube(push.TUBE)["current-jobs-ready"]:
            sys.exit("bench: the pool ran out of tasks")
        came = [at for at in arrivals(record) if at <= started + seconds]
    return {
        "delivered": len(came),
        "bound": bound,
        "ratio": len(came) / bound,
        "worst_window_over": worst_window(came, rate, bucket),
        "jitter_ms": (max(lateness) - min(lateness)) * 1000,
        "rate": rate,
    }


def worst_window(came: list[float], rate: float, bucket: int) -> float:
    """How many arrivals more than `bucket + rate * t` there were in the worst of all windows; below 0: fewer."""
    worst, least = -math.inf, math.inf
    for number, at in enumerate(came):
        least = min(least, number - rate * at)
        worst = max(worst, number + 1 - rate * at - least - bucket)
    return worst


@contextmanager
def asked_meanwhile(port: int) -> Iterator[list[float]]:
    """Yields how much later than sent the target read each of many requests, in seconds."""
    lateness: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while not over.wait(EVERY):
                sent = time.monotonic()
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                lateness.append(float(connection.recv(4096).rpartition(b"\n")[2]) - sent)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lateness
    finally:
        over.set()
        thread.join()


def kept(found: dict[str, Any]) -> bool:
    """Whether it is what it must be."""
    late = found["rate"] * found["jitter_ms"] / 1000
    # a token that was not there would be a whole task too many
    return REACH <= found["ratio"] <= 1 and found["worst_window_over"] < 1 + late


def rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """For the table of all results."""
    yield (
        f"tasks delivered at {found['rate']:g}/s", f"{found['delivered']:.0f}", f"{found['bound']:.0f}",
        "the token bucket's bound", f"{found['ratio']:.3f}", f"{REACH} to 1",
    )  # fmt: skip
    late = found["rate"] * found["jitter_ms"] / 1000
    over, words = f"{found['worst_window_over']:.2f}", f"the target's jitter, {found['jitter_ms']:.1f} ms, in tasks"
    yield "  over its bound in the worst window", over, f"{late:.2f}", words, "", "below 1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--bucket", type=int, default=10)
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        found = measure(Path(name) / "rate", **vars(arguments))
    print(json.dumps(found, indent=2))
    sys.exit(0 if kept(found) else "bench: the rate was not kept")


if __name__ == "__main__":
    main()
