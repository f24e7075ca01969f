"""`make bench-peers`: glassq and other job queues do the same work in turn, on two disks; writes docs/comparison.md.

Redis runs with `appendfsync always`: what it has answered is on disk, as with glassq. A job does nothing.
The speed of a drain is that between one and nine tenths of the jobs, so that no start of a program counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import load
import servers
from disk import Disk, disks
from measure import say
from rich.console import Console
from rich.table import Table

from glassq import delivery as envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent / "peers"
DOCUMENT = Path(__file__).parent.parent / "docs" / "comparison.md"
CONNECTIONS = 32
# threads of each of the two gunicorn processes of the others' endpoints
THREADS = 16
# No drain is watched for longer than this, in seconds: some need minutes on a slow disk.
DRAIN_LIMIT = 12.0
out = Console(highlight=False)


class Peers:
    """What tools/setup-peers has made available in a directory."""

    def __init__(self, directory: Path) -> None:
        self.python = str(directory / "venv" / "bin" / "python")
        self.bin = directory / "venv" / "bin"
        self.node = directory / "node"
        unpacked = directory / "redis" / "usr"
        self.redis = shutil.which("redis-server") or shutil.which("redis-server", path=str(unpacked / "bin"))
        self.libraries = ":".join(str(path) for path in unpacked.glob("lib/*") if path.is_dir())
        missing = (directory / "missing").read_text().splitlines()
        self.missing = missing if self.redis else [*missing, "Redis"]

    def has(self, name: str) -> bool:
        """Whether it can be measured."""
        return not any(name in line for line in self.missing)


@contextmanager
def redis(peers: Peers, directory: Path, disk: Disk) -> Iterator[str]:
    """Yields the URL of a Redis that syncs each command to disk before it answers."""
    port = servers.free_port()
    (directory / "redis").mkdir(parents=True)
    assert peers.redis
    command = [peers.redis, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory / "redis")]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    env = {**disk.env, **({"LD_LIBRARY_PATH": peers.libraries} if peers.libraries else {})}
    with servers.process(command, directory / "redis.log", **env):
        servers.wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"


class Peer:
    """One of the other queues. `words` say how it runs."""

    def __init__(self, name: str, title: str, words: str, *worker: str) -> None:
        self.name, self.title, self.words, self._worker = name, title, words, worker

    @contextmanager
    def web(self, peers: Peers, place: Path, disk: Disk) -> Iterator[int]:
        """Yields the port of an endpoint that adds a job for each ping."""
        with redis(peers, place, disk) as url, ExitStack() as stack:
            port = servers.free_port()
            command = [peers.python, "-m", "gunicorn", "--worker-class", "gthread", "--bind", f"127.0.0.1:{port}"]
            command += ["--workers", str(servers.WEB_WORKERS), "--threads", str(THREADS), "--no-control-socket"]
            stack.enter_context(servers.process([*command, "web:app"], place / "web.log", **self._env(url)))
            servers.wait_for_port(port)
            yield port

    def drain(self, peers: Peers, place: Path, disk: Disk, jobs: int, body: str) -> float:
        """Jobs worked per second."""
        with redis(peers, place, disk) as url, ExitStack() as stack:
            env = self._env(url)
            # The adding is not measured.
            ask = _client(url)
            ask("CONFIG SET appendfsync no")
            subprocess.run([*self._adder(peers), str(jobs), body], env={**os.environ, **env}, cwd=HERE, check=True)
            ask("CONFIG SET appendfsync always")
            for number in range(2 if self.name == "rq" else 1):
                command = [word.format(bin=peers.bin, here=HERE, node=peers.node, url=url) for word in self._worker]
                stack.enter_context(servers.process(command, place / f"worker{number}.log", **env))
            waiting = "bull:bench:wait" if self.name == "bullmq" else _LISTS[self.name]
            return drained(lambda: int(ask(f"LLEN {waiting}")), jobs)

    def _adder(self, peers: Peers) -> list[str]:
        if self.name == "bullmq":
            return ["node", str(peers.node / "worker.mjs"), "add"]
        return [peers.python, "-c", "import sys, tasks; tasks.add_many(int(sys.argv[1]), sys.argv[2])"]

    def _env(self, url: str) -> dict[str, str]:
        return {"BENCH_REDIS": url, "REDIS_URL": url, "BENCH_PEER": self.name, "PYTHONPATH": str(HERE)}


_LISTS = {
    "huey": "huey.redis.bench",
    "dramatiq": "dramatiq:default",
    "rq": "rq:queue:default",
    "celery": "celery",
    "sidekiq": "queue:default",
}
PEERS = (
    Peer("huey", "Huey", "2 processes", "{bin}/huey_consumer", "tasks.huey", "-k", "process", "-w", "2"),
    Peer("dramatiq", "Dramatiq", "2 processes of 8 threads", "{bin}/dramatiq", "tasks", "-p", "2", "-t", "8"),
    Peer("rq", "RQ", "2 workers", "{bin}/rq", "worker", "--url", "{url}", "--quiet", "default"),
    Peer(
        "celery", "Celery", "2 processes, acks_late",
        "{bin}/celery", "-A", "tasks", "worker", "-c", "2", "-l", "error", "--without-gossip", "--without-mingle",
    ),
    Peer("bullmq", "BullMQ", "1 process, concurrency 50", "node", "{node}/worker.mjs", "work", "50"),
    Peer(
        "sidekiq", "Sidekiq", "1 process, concurrency 10",
        "sidekiq", "-q", "default", "-c", "10", "-r", "{here}/worker.rb",
    ),
)  # fmt: skip
WEB_PEERS = ("huey", "dramatiq")


def _client(url: str) -> Callable[[str], str]:
    """Sends commands to Redis in its own protocol; returns their one-line answers without the first character."""
    host, _, port = url.removeprefix("redis://").removesuffix("/0").partition(":")
    sock = socket.create_connection((host, int(port)))

    def ask(command: str) -> str:
        sock.sendall(f"{command}\r\n".encode())
        return sock.recv(64)[1:].decode()

    return ask


def drained(left: Callable[[], int], jobs: int) -> float:
    """Jobs per second between one and nine tenths of the drain, or until its limit."""
    first = (0.0, jobs)
    limit = time.perf_counter() + DRAIN_LIMIT + servers.START_TIMEOUT
    while True:
        now, waiting = time.perf_counter(), left()
        if not first[0] and waiting <= jobs * 0.9:
            first, limit = (now, waiting), now + DRAIN_LIMIT
        if first[0] and (waiting <= jobs * 0.1 or now > limit):
            return (first[1] - waiting) / (now - first[0])
        if now > limit:
            sys.exit("bench: a worker does not start: see its log")
        time.sleep(0.01)


def glassq_drain(place: Path, disk: Disk, jobs: int, processes: int) -> float:
    """Deliveries worked per second by the pool."""
    ping = load.request(0).partition(b"\r\n\r\n")[2]
    labels = {"collection": "timeline", "operation": "INSERT"}
    with servers.queue(place, disk) as queue, servers.client(queue.port) as client:
        for _ in range(jobs):
            client.put(envelope.encode(envelope.new("mirror", ping, labels)))
        with servers.pool(place, queue, processes, "handlers:noop", wait=False):
            return drained(lambda: int(client.stats_tube("glassq")["current-jobs-ready"]), jobs)


def acknowledge(peers: Peers, place: Path, disk: Disk, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Acknowledged pings per second, by who took them."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ports = {"glassq": stack.enter_context(servers.intake(place / "glassq", disk))[0]}
        ports["bare"] = stack.enter_context(servers.plain_app(place / "bare", "bare", disk, threads=THREADS))
        for peer in PEERS:
            if peer.name in WEB_PEERS:
                ports[peer.name] = stack.enter_context(peer.web(peers, place / peer.name, disk))
        for number in range(rounds):
            for name, port in ports.items():
                say(f"{disk.name}: acknowledge: round {number + 1} of {rounds}, {name}")
                result = load.full_speed(port, connections=CONNECTIONS, seconds=seconds)
                if result.failed:
                    sys.exit(f"bench: {result.failed} pings were not acknowledged by {name}")
                found.setdefault(name, []).append(result.rate)
    return found


def drain(peers: Peers, place: Path, disk: Disk, rounds: int, jobs: int) -> dict[str, list[float]]:
    """Jobs worked per second, by who worked them."""
    found: dict[str, list[float]] = {}
    body = load.request(0).partition(b"\r\n\r\n")[2].decode()
    for number in range(rounds):
        for processes in (2, 4):
            say(f"{disk.name}: drain: round {number + 1} of {rounds}, glassq, {processes} children")
            directory = place / f"glassq{processes}.{number}"
            directory.mkdir(parents=True)
            found.setdefault(f"glassq{processes}", []).append(glassq_drain(directory, disk, jobs, processes))
        for peer in PEERS:
            if not peers.has(peer.title):
                continue
            say(f"{disk.name}: drain: round {number + 1} of {rounds}, {peer.title}")
            directory = place / f"{peer.name}.{number}"
            few = min(jobs, 400) if peer.name == "rq" else jobs
            found.setdefault(peer.name, []).append(peer.drain(peers, directory, disk, few, body))
    return found


def rows(results: dict[str, dict[str, dict[str, list[float]]]]) -> Iterator[list[str]]:
    """A row for each: what, who, then for each disk the median with its range, and glassq's ratio to it."""
    titles = {
        "glassq": ("glassq", "2 web processes"),
        "glassq2": ("glassq", "2 children"),
        "glassq4": ("glassq", "4 children"),
        "bare": ("bare Falcon app, queues nothing", "gunicorn's threads"),
        **{peer.name: (peer.title, peer.words) for peer in PEERS},
    }
    first = next(iter(results.values()))
    for what in first:
        for name in first[what]:
            title, words = titles[name]
            if what == "acknowledged/s" and name in WEB_PEERS:
                words = f"2 processes of {THREADS} threads"
            row = [what, title, words]
            for found in results.values():
                mine = found[what]["glassq" if what == "acknowledged/s" else "glassq2"]
                row += cells(found[what][name], mine)
            yield row


def cells(theirs: list[float], mine: list[float]) -> list[str]:
    """Median (least to most), and glassq's ratio to it: the median of the rounds' ratios, with its range."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    speed = f"{statistics.median(theirs):,.0f} ({min(theirs):,.0f} to {max(theirs):,.0f})"
    if mine is theirs:
        return [speed, ""]
    return [speed, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]


def write_document(table: str) -> None:
    """Puts the figures between the marks of docs/comparison.md."""
    text = DOCUMENT.read_text()
    marked = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)
    DOCUMENT.write_text(marked.sub(lambda found: f"{found[1]}{table}{found[2]}", text))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of acknowledging")
    parser.add_argument("--jobs", type=int, default=8000, help="of one round of a drain")
    parser.add_argument("directory", type=Path, help="what tools/setup-peers has made")
    arguments = parser.parse_args()
    peers = Peers(arguments.directory.resolve())
    if not peers.redis:
        sys.exit("bench: Redis is missing: apt install redis-server")
    if (peers.node / "node_modules").is_dir():
        shutil.copy(HERE / "worker.mjs", peers.node)
    results = {}
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        place = Path(name)
        for number, disk in enumerate(disks(place)):
            here = place / f"disk{number}"
            results[disk.name] = {
                "acknowledged/s": acknowledge(peers, here / "web", disk, arguments.rounds, arguments.seconds),
                "drained/s": drain(peers, here / "drain", disk, arguments.rounds, arguments.jobs),
            }
    show(results, peers.missing)


def show(results: dict[str, dict[str, dict[str, list[float]]]], missing: list[str]) -> None:
    """Prints the table, and writes it into the document and into bench/peers.json."""
    heads = ["what", "by", "how"]
    for name in results:
        heads += [name, "glassq beside it"]
    shown = Table(*heads, box=None, padding=(0, 2, 0, 0))
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows(results):
        shown.add_row(*row)
        lines.append(f"| {' | '.join(row)} |")
    out.print(shown)
    for line in missing:
        out.print(f"not measured: {line}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    left_out = "".join(f"\nNot measured: {line}." for line in missing)
    write_document(f"\nMeasured on {date} on {machine}.{left_out}\n\n" + "\n".join(lines) + "\n\n")
    (Path(__file__).parent / "peers.json").write_text(
        json.dumps({"date": date, "machine": machine, **results}, indent=2)
    )


if __name__ == "__main__":
    main()
