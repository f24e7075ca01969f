"""What the console costs: `make bench-console`.

A queue holds very many buried deliveries, and the ledger as many rows; a pool works beside a console that eight clients
poll, as open tabs do. The pool drains in turn with them and without: then the console's processes are stopped, and
nobody asks. Printed are the times of the pages after the first census, the memory of the console, and the ratio of the
drains.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import re
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import backlog
import servers
from measure import PAUSE, compared, say
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.delivery import Evidence
from glassq.ledger import Entry, open_ledger
from glassq.settings import LedgerSettings

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

CHILDREN, CLIENTS = 2, 8
PACKET = 200
# The reaches: ms of a page, MiB of the console, and the share of the drain without it.
MAX_PAGE_MS, MAX_MIB, MIN_RATIO = 50, 100, 0.95
# What the clients look at, in turn, and how often, in seconds.
TABS = (("/", 5.0), ("/buried", 5.0), ("/live", 2.0), ("/queues", 5.0))
CAUSES = ("503 Service Unavailable from photos", "KeyError: 'photo'", "took longer than 60 s", "no consent of user {}")
# The census may take so long, in seconds.
PATIENCE = 600.0


class Visitor:
    """A browser that has signed in."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.port = port
        self.cookie = cookie
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method: str, path: str, body: str = "") -> tuple[int, bytes]:
        headers = {"Host": f"localhost:{self.port}", "Accept": "text/html", "Cookie": self.cookie}
        headers |= {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        if cookie := answer.headers.get("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        return answer.status, answer.read()


def bury(port: int, many: int) -> None:
    """Puts so many deliveries and buries them, before there is a pool."""
    now = datetime.now(UTC)
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
        sock.sendall(b"use glassq\r\n")
        answers.readline()
        for numbers in (range(first, min(first + PACKET, many)) for first in range(0, many, PACKET)):
            bodies = [_failed(number, now) for number in numbers]
            sock.sendall(b"".join(b"put 1024 0 120 %d\r\n%b\r\n" % (len(body), body) for body in bodies))
            ids = [int(answers.readline().split()[1]) for _ in bodies]
            sock.sendall(b"".join(b"reserve-job %d\r\nbury %d 1024\r\n" % (job, job) for job in ids))
            for _ in ids:
                size = int(answers.readline().split()[2])
                answers.read(size + 2)
                answers.readline()


def _failed(number: int, now: datetime) -> bytes:
    words = CAUSES[number % len(CAUSES)].format(number)
    at = now - timedelta(seconds=number % 40_000)
    failure = Evidence(attempt=1, outcome="bury", error="HttpError", message=words, at=at, duration=0.1, host="a")
    ping = json.dumps({"collection": "timeline", "itemId": f"item-{number}", "userToken": f"user-{number}"}).encode()
    made = envelope.new("mirror", ping, {"collection": "timeline", "operation": "INSERT"})
    return envelope.encode(replace(made, buried=words, evidence=(failure,)))


def record(file: Path, rows: int) -> None:
    """A ledger with so many rows of the last day."""
    ledger = open_ledger(LedgerSettings(url=f"sqlite:///{file}"))
    now = datetime.now(UTC)
    ledger.record(Entry("first", "mirror", now, "done", 1, now, 0.1))
    ledger.close()

    def stamp(number: int) -> str:
        return (now - timedelta(seconds=86_400 * number / rows)).isoformat(timespec="microseconds")[:-6] + "Z"

    with closing(sqlite3.connect(file)) as database, database:
        database.executemany(
            "INSERT INTO deliveries (delivery, source, received, state, attempts, updated, duration, job, result,"
            " reason, started, tube) VALUES (?, 'mirror', ?, ?, 1, ?, 0.1, '', 'stored a photo', '', ?, 'glassq')",
            (
                (f"01a2{n:032x}", stamp(n), "retrying" if n % 50 == 0 else "done", stamp(n), stamp(n))
                for n in range(rows)
            ),
        )


@contextmanager
def console(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], Visitor]]:
    """The console of these settings, and somebody who has signed in."""
    port, log = servers.free_port(), directory / "console.log"
    command = [sys.executable, "-m", "glassq.programs.console", "--config", str(directory / "glassq.toml")]
    with servers.process([*command, "--foreground", str(port)], log) as started:
        servers.wait_for_port(port)
        visitor = Visitor(port)
        while (found := re.search(r"http://\S+", log.read_text())) is None:
            time.sleep(0.05)
        link = urlsplit(found[0])
        code = link.query.removeprefix("code=")
        status, text = visitor.ask("POST", "/login", f"code={code}")
        if status != 303:
            sys.exit(f"bench: no login: {status} {text[:500]!r}")
        yield started, visitor


def until_counted(visitor: Visitor, buried: int) -> float:
    """How long the first census took, in seconds."""
    started = time.perf_counter()
    while time.perf_counter() - started < PATIENCE:
        groups = json.loads(visitor.ask("GET", "/buried.json")[1]).get("groups", [])
        if sum(group["count"] for group in groups) == buried:
            return time.perf_counter() - started
        time.sleep(0.5)
    sys.exit("bench: the census does not end")


def pages(visitor: Visitor, times: int = 30) -> dict[str, list[float]]:
    """The ms that each page takes, one request after the other."""
    groups = json.loads(visitor.ask("GET", "/buried.json")[1])["groups"]
    paths = (*(path for path, _ in TABS), f"/buried/{groups[0]['id']}", "/buried?group=0", "/activity", "/sources")
    found: dict[str, list[float]] = {}
    for path in paths:
        for _ in range(times):
            began = time.perf_counter()
            status, _text = visitor.ask("GET", path)
            found.setdefault(path, []).append((time.perf_counter() - began) * 1_000)
            # a session may ask 20 times a second
            time.sleep(0.06)
            if status != 200:
                sys.exit(f"bench: {path} answers {status}")
    return found


def poll(port: int, cookie: str) -> None:
    """Eight open tabs."""

    def tab(path: str, every: float, number: int) -> None:
        visitor = Visitor(port, cookie)
        time.sleep(every * number / CLIENTS)
        while True:
            visitor.ask("GET", path)
            time.sleep(every)

    tabs = [threading.Thread(target=tab, args=(*TABS[n % len(TABS)], n), daemon=True) for n in range(CLIENTS)]
    for each in tabs:
        each.start()
    for each in tabs:
        each.join()


def tree(pid: int) -> list[int]:
    """The process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def mebibytes(pid: int) -> float:
    """What a process has in memory for itself, and its share of what several have."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) / 1_024  # type: ignore[index]


@contextmanager
def watched(started: subprocess.Popen[bytes], visitor: Visitor, *, on: bool) -> Iterator[None]:
    """With the console and its clients, or without: then its processes are stopped."""
    if not on:
        for pid in tree(started.pid):
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in tree(started.pid):
                os.kill(pid, signal.SIGCONT)
        return
    clients = multiprocessing.Process(target=poll, args=(visitor.port, visitor.cookie), daemon=True)
    clients.start()
    time.sleep(1)
    try:
        yield
    finally:
        clients.kill()
        clients.join()


def measure(place: Path, *, buried: int, rows: int, rounds: int, seconds: float) -> None:
    """Measures, and prints a line for each."""
    own = f'[console]\nstate = "{place}/console"\n'
    with ExitStack() as stack:
        queue = stack.enter_context(servers.queue(place))
        say(f"console: {buried:,} buried, {rows:,} rows of the ledger")
        bury(queue.port, buried)
        record(place / "ledger.db", rows)
        servers.settings(place, queue, servers.free_port(), handler="handlers:noop", processes=CHILDREN, push=own)
        started, visitor = stack.enter_context(console(place))
        print(f"first census: {until_counted(visitor, buried):.0f} s")
        for path, times in pages(visitor).items():
            half, worst = statistics.median(times), sorted(times)[int(len(times) * 0.95)]
            print(f"{path:24} {half:6.1f} ms, 95 of 100 under {worst:6.1f} ms (at most {MAX_PAGE_MS})")
        memory = [mebibytes(pid) for pid in tree(started.pid)]
        print(f"memory: {max(memory):.0f} MiB, with its arbiter {sum(memory):.0f} (at most {MAX_MIB})")
        client = stack.enter_context(servers.client(queue.port))
        client.pause_tube("glassq", PAUSE)
        stack.enter_context(servers.pool(place, queue, CHILDREN, push=own))
        found: dict[bool, list[float]] = {True: [], False: []}
        for number in range(rounds):
            for on in (True, False) if number % 2 else (False, True):
                say(f"console: drained: round {number + 1} of {rounds}, {'with' if on else 'without'}")
                with watched(started, visitor, on=on):
                    found[on].append(backlog.drained((0, queue), client, seconds))
        with_it, without, ratio = compared(found[True], found[False])
        print(f"drained with {CLIENTS} clients {with_it}/s, without {without}/s: {ratio} (at least {MIN_RATIO})")


def main() -> None:
    """Reads the options."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--buried", type=int, default=100_000)
    arguments.add_argument("--rows", type=int, default=300_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=6.0, help="of one round")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        measure(Path(place), buried=given.buried, rows=given.rows, rounds=given.rounds, seconds=given.seconds)


if __name__ == "__main__":
    main()
