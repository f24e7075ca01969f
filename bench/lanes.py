"""Handlers that wait, many at once in two lane children: an async one that waits 1 s, and a URL that takes 2 s.

Prints what it measures as JSON: deliveries a second between the first and the last fifth, the most attempts under way
at once, and memory (PSS) of the pool's processes at the end. Run it as `make bench-lanes`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from servers import client, pool, queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    import greenstalk

sys.path.insert(0, str(Path(__file__).parent.parent))
from glassq import delivery as envelope

TUBE = "glassq.route.waits"
# How often the queue is looked at, in seconds, and how long the whole may take.
LOOK, PATIENCE = 0.2, 120.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def memory(pid: int) -> dict[str, float]:
    """The proportional memory of the pool's processes, in MiB, by title."""
    found: dict[str, float] = {}
    for each in [pid, *_children(pid)]:
        title = Path(f"/proc/{each}/cmdline").read_bytes().rstrip(b"\0").decode()
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        found[title] = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return found


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in threads for child in path.read_text().split()]


def measure(directory: Path, count: int, concurrency: int, *, handler: str, more: str = "") -> dict[str, object]:
    """Works `count` deliveries of this handler, `concurrency` at once."""
    directory.mkdir()
    route = f'name = "waits"\nconcurrency = {concurrency}\n{more}'
    with (
        queue(directory) as found,
        client(found.port, TUBE) as tube,
        pool(directory, found, 2, handler, push=route) as process,
    ):
        tube.pause_tube(TUBE, 1000)
        for number in range(count):
            tube.put(envelope.encode(envelope.new("mirror", b"%d" % number, {})), ttr=600)
        tube.pause_tube(TUBE, 0)
        looks, most, used = _looks(tube, process.pid)
    rates = _rate(looks, count)
    lanes = {title: mib for title, mib in used.items() if title.endswith((": pool", ": child 513", ": child 514"))}
    return {
        "handler": handler,
        "deliveries": count,
        "per_second": round(rates, 1),
        "most_at_once": most,
        "seconds": round(looks[-1][0] - looks[0][0], 1),
        "pool_and_lanes_mib": round(sum(lanes.values()), 1),
        "mib": {title: round(mib, 1) for title, mib in used.items()},
    }


def _looks(tube: greenstalk.Client[bytes], pid: int) -> tuple[list[tuple[float, int]], int, dict[str, float]]:
    """When how many were left, the most at once, and the largest memory."""
    looks: list[tuple[float, int]] = []
    most, used = 0, dict[str, float]()
    began = time.monotonic()
    while not looks or looks[-1][1]:
        stats = tube.stats_tube(TUBE)
        left = int(stats["current-jobs-ready"]) + int(stats["current-jobs-reserved"])
        looks.append((time.monotonic(), left))
        most = max(most, int(stats["current-jobs-reserved"]))
        if len(looks) % 5 == 0:
            now = memory(pid)
            used = max(used, now, key=lambda each: sum(each.values()))
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"bench: {left} are left after {PATIENCE:g} s")
        time.sleep(LOOK)
    return looks, most, used


def _rate(looks: list[tuple[float, int]], count: int) -> float:
    """Deliveries a second while between a fifth and four fifths of them were done."""
    middle = [(at, left) for at, left in looks if 0.2 * count <= left <= 0.8 * count]
    (first, before), (last, after) = middle[0], middle[-1]
    return (before - after) / (last - first) if last > first else 0.0


@contextmanager
def slow_target(seconds: float) -> Iterator[int]:
    """An HTTP target that takes so long for each answer; yields its port."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
                )
                await reader.readexactly(length)
                await asyncio.sleep(seconds)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def start() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    def run() -> None:
        loop.create_task(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def main() -> None:
    count = int(os.environ.get("DELIVERIES", "8000"))
    with tempfile.TemporaryDirectory() as place:
        found = [measure(Path(place, "async"), count, 1_200, handler="handlers:waits")]
        print(json.dumps(found[-1]))
        with slow_target(2.0) as port:
            yaml = Path(place, "queue.yaml")
            yaml.write_text("queue:\n- name: default\n  rate: 500/s\n")
            push = f'[push]\nqueue_yaml = "{yaml}"\ntargets = {{ default = "http://127.0.0.1:{port}" }}\n'
            url = f"http://127.0.0.1:{port}/work"
            found.append(measure(Path(place, "url"), count // 4, 500, handler=url, more=push))
        print(json.dumps(found[-1]))


if __name__ == "__main__":
    main()
