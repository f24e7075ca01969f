"""Large bodies: the memory of a 25 MB push, and small pings while 200 senders push 1 MB each.

Prints what it measures as JSON. Run it as `make bench-large`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import selectors
import socket
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from load import Load, github_request, quantile, request
from servers import client, intake

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent.parent))
from glassq.bodies import DirectoryBodies, check
from glassq.delivery import decode

LARGEST, SENDERS, PUSH = 25_000_000, 200, 1_000_000
# One such crowd after the other: small pings meet only some hundred moments of each.
CROWDS = 5
# Small pings beside: so many a second; alone for a while, once all workers have started.
RATE, BESIDE, WARM, CONNECTIONS = 200.0, 8.0, 2.0, 64


def workers() -> list[int]:
    """The web workers' process ids: of all that we have started, only glassq-web has children."""
    ours = _children(os.getpid())
    return [pid for child in ours for pid in _children(child)]


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in threads for child in path.read_text().split()]


def memory(pid: int) -> dict[str, int]:
    """The process's memory in KiB: all of it, its peak, and what is its own."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM", "RssAnon")}


def ask(port: int, data: bytes) -> tuple[float, bytes]:
    """Seconds from the first byte to the answer, and its first line."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        began = time.perf_counter()
        sock.sendall(data)
        answer = sock.recv(4096)
        return time.perf_counter() - began, answer.partition(b"\r\n")[0]


def one_push(directory: Path) -> dict[str, object]:
    """A push of 25 MB."""
    with intake(directory) as (port, queue):
        for _ in range(40):
            ask(port, github_request(port, 1000))
        data = github_request(port, LARGEST)
        for path in workers():
            Path(f"/proc/{path}/clear_refs").write_text("5")
        before = {pid: memory(pid) for pid in workers()}
        seconds, status = ask(port, data)
        more = {pid: memory(pid)["VmHWM"] - told["VmRSS"] for pid, told in before.items()}
        with closing(client(queue.port)) as jobs:
            kept = []
            while len(kept) < 41:
                job = jobs.reserve(5)
                kept.append(decode(job.body))
                jobs.delete(job)
        store = DirectoryBodies(directory / "bodies")
        (stored,) = [each for each in kept if each.stored]
        check(store, stored.id, stored.stored)
        with store.open(stored.id) as file:
            same = file.read() == data.partition(b"\r\n\r\n")[2]
    return {"status": status.decode(), "seconds": seconds, "more_memory_mib": max(more.values()) / 1024, "same": same}


def beside(port: int, load: Load, over: Callable[[], bool]) -> None:
    """Small pings at a steady rate, whether the ones before are answered or not; each web worker gets some of them."""
    data, waiting = request(port), 0
    with selectors.DefaultSelector() as selector:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        due = time.perf_counter()
        while waiting or not over():
            while not over() and due <= time.perf_counter() and idle:
                sock = idle.pop(0)
                sock.sendall(data)
                selector.register(sock, selectors.EVENT_READ, due)
                due, waiting = due + 1 / RATE, waiting + 1
            for key, _ in selector.select(max(0.0, min(0.1, due - time.perf_counter())) if idle else 0.1):
                load.failed += not key.fileobj.recv(4096).startswith(b"HTTP/1.1 200")
                # from when it was due: who falls behind must not look better
                load.times.append(time.perf_counter() - key.data)
                selector.unregister(key.fileobj)
                idle.append(key.fileobj)
                waiting -= 1
    for sock in idle:
        sock.close()


def crowd(port: int) -> dict[str, object]:
    """200 senders, each with one push of 1 MB, at once."""
    data = memoryview(github_request(port, PUSH))
    times, statuses = [], []
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        for _ in range(SENDERS):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE, [0])
        while selector.get_map():
            for key, events in selector.select():
                if events & selectors.EVENT_WRITE:
                    key.data[0] += key.fileobj.send(data[key.data[0] : key.data[0] + (256 << 10)])
                    if key.data[0] == len(data):
                        selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                else:
                    statuses.append(key.fileobj.recv(4096).partition(b"\r\n")[0].decode())
                    times.append(time.perf_counter() - began)
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    found = {status: statuses.count(status) for status in set(statuses)}
    return {"statuses": found, "seconds": max(times), "median_seconds": quantile(times, 0.5)}


def small_beside_crowd(directory: Path) -> dict[str, object]:
    """The small pings have a process of their own, as the crowd has."""
    with intake(directory) as (port, _):
        alone, during = Load(), Load()
        for load, seconds in ((Load(), WARM), (alone, BESIDE)):
            until = time.perf_counter() + seconds
            beside(port, load, lambda until=until: time.perf_counter() > until)
        crowds = []
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
            processes.submit(os.getpid).result()
            for _ in range(CROWDS):
                pushes = processes.submit(crowd, port)
                beside(port, during, pushes.done)
                crowds.append(pushes.result())
        peak = max(memory(pid)["VmHWM"] for pid in workers()) / 1024
    return {"crowds": crowds, "alone": told(alone), "beside": told(during), "peak_mib": peak}


def told(load: Load) -> dict[str, float]:
    ms = {f"p{share:g}_ms": 1000 * quantile(load.times, share / 100) for share in (50, 99)}
    return {**ms, "max_ms": 1000 * max(load.times), "pings": len(load.times), "failed": load.failed}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for name, measure in (("push", one_push), ("crowd", small_beside_crowd)):
            place = Path(directory) / name
            place.mkdir()
            print(json.dumps({name: measure(place)}, indent=2))


if __name__ == "__main__":
    main()
