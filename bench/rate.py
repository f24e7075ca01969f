"""Checks that the rate of a push queue is kept: all tasks that its token bucket allows, and not one more.

The pool has more tasks than it may deliver, and the target records when each one arrives. The total is compared with
`bucket + rate * t`, and so is each window between two arrivals. If a task arrives late, the next ones seem early
although they started on time. So requests are sent to the same target meanwhile; their lateness is the tolerance.
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
from measure import PAUSE, say
from target import arrivals, target

if TYPE_CHECKING:
    from collections.abc import Iterator

# The minimum share of the bound that must be delivered.
MIN_RATIO = 0.95
# The interval of the requests that measure lateness, in seconds.
PROBE_INTERVAL = 0.02


def measure(
    place: Path, *, rate: float = 50, bucket: int = 10, seconds: float = 30, processes: int = 4
) -> dict[str, float]:
    """(h) tasks delivered at `rate` per second, beside the bound; by how much the worst window exceeds its own."""
    place.mkdir(parents=True)
    yaml = f"queue:\n- name: default\n  rate: {rate:g}/s\n  bucket_size: {bucket}\n"
    bound = bucket + rate * seconds
    with (
        target(place) as (port, record),
        servers.queue(place) as queue,
        servers.client(queue.port, push.TUBE) as client,
        servers.pool(place, queue, processes, push=push.settings(place, port, yaml)),
    ):
        client.pause_tube(push.TUBE, PAUSE)
        push.add(place, math.ceil(bound * 1.2))
        say(f"rate: {rate:g} tasks/s for {seconds:g} s")
        with probes(port) as lateness:
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
    """By how many arrivals the worst of all windows exceeds `bucket + rate * t`; below 0 if none does."""
    worst, least = -math.inf, math.inf
    for number, at in enumerate(came):
        least = min(least, number - rate * at)
        worst = max(worst, number + 1 - rate * at - least - bucket)
    return worst


@contextmanager
def probes(port: int) -> Iterator[list[float]]:
    """Sends requests meanwhile. Yields how long after its sending the target read each one, in seconds."""
    lateness: list[float] = []
    stopped = threading.Event()

    def send() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while not stopped.wait(PROBE_INTERVAL):
                sent = time.monotonic()
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                lateness.append(float(connection.recv(4096).rpartition(b"\n")[2]) - sent)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield lateness
    finally:
        stopped.set()
        thread.join()


def kept(found: dict[str, Any]) -> bool:
    """Whether the rate was kept."""
    late = found["rate"] * found["jitter_ms"] / 1000
    # one token too many would be a whole task
    return MIN_RATIO <= found["ratio"] <= 1 and found["worst_window_over"] < 1 + late


def rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows for the table of all results."""
    yield (
        f"tasks delivered at {found['rate']:g}/s", f"{found['delivered']:.0f}", f"{found['bound']:.0f}",
        "the token bucket's bound", f"{found['ratio']:.3f}", f"{MIN_RATIO} to 1",
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
