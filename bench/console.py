"""What the console costs: `make bench-console`.

A queue holds very many buried deliveries, and the ledger as many rows; a pool works beside a console that eight clients
poll, as open tabs do. The pool drains in turn with them and without: then the console's processes are stopped, and
nobody asks. Printed are what the first census costs, the times of the pages after it and the processor's time for each,
the memory of the console, its share of a processor beside the drain, and the ratio of the drains.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import backlog
import console_scene as scene
import servers
from measure import PAUSE, compared, say

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

CHILDREN, CLIENTS = 2, 8
# The reaches: ms of a page, MiB of the console, and the share of the drain without it.
MAX_PAGE_MS, MAX_MIB, MIN_RATIO = 50, 100, 0.95
# What the clients look at, in turn, and how often, in seconds.
TABS = (("/", 5.0), ("/buried", 5.0), ("/live", 2.0), ("/queues", 5.0))
# The census may take so long, in seconds.
PATIENCE = 1_200.0
# Between two requests, in seconds: a session may ask 20 times a second.
APART = 0.06
TICK = os.sysconf("SC_CLK_TCK")
# Every kind of page; GROUP, DELIVERY, BEGINNING and DONE stand for ids.
PAGES = (
    "/",
    "/?hours=24",
    "/buried",
    "/buried?source=mirror",
    "/buried?older=1h",
    "/buried?words=photo",
    "/buried?group=0",
    "/buried?group=0&older=1h",
    "/buried/GROUP",
    "/d/DELIVERY",
    "/d/DELIVERY/body",
    "/d/DELIVERY/edit",
    "/d/BEGINNING",
    "/d/DONE",
    "/search",
    "/search?q=photo",
    "/search?q=zzzz",
    "/search?q=DELIVERY",
    "/search?q=user-777",
    "/queues",
    "/queues/glassq",
    "/sources",
    "/sources/mirror",
    "/schedules",
    "/live",
    "/live?state=buried",
    "/live?state=retrying",
    "/live?state=deleted",
    "/live?source=github",
    "/live?tube=glassq.queue.other",
    "/health",
    "/activity",
    "/activity?who=nobody",
    "/activity?did=kick&since=1h",
)


class Spent(NamedTuple):
    """Processor's time of some processes from a moment on."""

    pids: Sequence[int]
    before: float

    @classmethod
    def of(cls, *pids: int) -> Spent:
        return cls(pids, sum(map(cpu, pids)))

    def seconds(self) -> float:
        return sum(map(cpu, self.pids)) - self.before


class Visitor:
    """A browser that has signed in."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.port = port
        self.cookie = cookie
        self._tags: dict[str, str] = {}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: str = "", *, live: bool = False) -> tuple[int, bytes]:
        """The status and the body; with `live` as a page asks for its own live parts. A redirect's body is its path."""
        headers = {"Host": f"localhost:{self.port}", "Accept": "text/html", "Cookie": self.cookie}
        headers |= {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
        if live:
            headers |= {"Glassq-Live": "1", "If-None-Match": self._tags.get(path, "")}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        if cookie := answer.headers.get("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        if tag := answer.headers.get("ETag"):
            self._tags[path] = tag
        text = answer.read()
        return answer.status, (answer.headers.get("Location") or "").encode() or text

    def post(self, path: str, body: str) -> str:
        """Where the form leads to."""
        status, there = self.ask("POST", path, body)
        if status != 303:
            sys.exit(f"bench: {path} answers {status}: {there[:500]!r}")
        return there.decode()


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


def pages(visitor: Visitor, pid: int, times: int) -> Iterator[str]:
    """A line for each page: its times, one request after the other, and what they cost the console."""
    group = json.loads(visitor.ask("GET", "/buried.json")[1])["groups"][0]
    known = {
        "GROUP": group["id"],
        "DELIVERY": group["example"],
        "BEGINNING": group["example"][:-4],
        "DONE": scene.done(7),
    }
    paths = [re.sub("[A-Z]{4,}", lambda found: known[found[0]], path) for path in PAGES]
    paths += [visitor.post("/plan/archive", "all=1"), visitor.post("/plan/kick", f"cause={group['id']}")]
    one = visitor.post("/plan/kick", f"cause={group['id']}&try=1")
    paths += [visitor.post(one, "pace=all")]
    twins = (path.replace("?", ".json?") if "?" in path else f"{path}.json" for path in paths if path[1:2] != "?")
    for path in (*paths, "/.json", *twins):
        spent, took = Spent.of(pid), []
        for _ in range(times):
            began = time.perf_counter()
            status, text = visitor.ask("GET", path)
            took.append((time.perf_counter() - began) * 1_000)
            time.sleep(APART)
            if status not in (200, 303):
                sys.exit(f"bench: {path} answers {status}: {text[:500]!r}")
        own = spent.seconds() * 1_000 / times
        yield f"{path:60.60} {statistics.median(took):7.1f} {max(took):7.1f} {own:7.1f}"


def poll(port: int, cookie: str) -> None:
    """Eight open tabs."""

    def tab(path: str, every: float, number: int) -> None:
        visitor = Visitor(port, cookie)
        time.sleep(every * number / CLIENTS)
        while True:
            visitor.ask("GET", path, live=True)
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


def cpu(pid: int) -> float:
    """The processor's time that the process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def mebibytes(pid: int, file: str, name: str) -> float:
    """A figure of a process's memory."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    return int(found[1]) / 1_024 if found else 0.0


def memory(pids: Sequence[int]) -> str:
    """What the processes have by themselves, and their shares of what several have; and the worker as top shows it."""
    shares = [mebibytes(pid, "smaps_rollup", "Pss") for pid in pids]
    worker = pids[-1]
    resident, most = mebibytes(worker, "status", "VmRSS"), mebibytes(worker, "status", "VmHWM")
    return (
        f"memory: {max(shares):.0f} MiB, with its arbiter {sum(shares):.0f} (at most {MAX_MIB});"
        f" resident {resident:.0f}, at most so far {most:.0f}"
    )


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


def measure(place: Path, *, buried: int, rows: int, rounds: int, seconds: float, times: int) -> None:
    """Measures, and prints a line for each."""
    console_settings = f'[console]\nstate = "{place}/console"\n'
    with ExitStack() as stack:
        queue = stack.enter_context(servers.queue(place))
        say(f"console: {buried:,} buried, {rows:,} rows of the ledger")
        scene.record(place / "ledger.db", rows, scene.fill(queue.port, buried, round(rows * scene.RETRYING)))
        servers.settings(
            place, queue, servers.free_port(), handler="handlers:noop", processes=CHILDREN, push=console_settings
        )
        client = stack.enter_context(servers.client(queue.port))
        server = Spent.of(int(client.stats()["pid"]))
        started, visitor = stack.enter_context(console(place))
        worker = tree(started.pid)[-1]
        print(memory(tree(started.pid)))
        took = until_counted(visitor, buried)
        own, queue_work = cpu(worker), server.seconds()
        print(f"first census: {took:.0f} s, of which the console worked {own:.1f}, beanstalkd {queue_work:.1f}")
        print(memory(tree(started.pid)))
        print(f"{'page, ms (at most ' + str(MAX_PAGE_MS) + ')':60} {'half':>7} {'worst':>7} {'worked':>7}")
        for line in pages(visitor, worker, times):
            print(line, flush=True)
        print(memory(tree(started.pid)))
        client.pause_tube("glassq", PAUSE)
        stack.enter_context(servers.pool(place, queue, CHILDREN, push=console_settings))
        found: dict[bool, list[float]] = {True: [], False: []}
        shares = []
        for number in range(rounds):
            for on in (True, False) if number % 2 else (False, True):
                say(f"console: drained: round {number + 1} of {rounds}, {'with' if on else 'without'}")
                with watched(started, visitor, on=on):
                    spent, began = Spent.of(worker), time.perf_counter()
                    found[on].append(backlog.drained((0, queue), client, seconds))
                    if on:
                        shares.append(100 * spent.seconds() / (time.perf_counter() - began))
        with_it, without, ratio = compared(found[True], found[False])
        print(f"drained with {CLIENTS} clients {with_it}/s, without {without}/s: {ratio} (at least {MIN_RATIO})")
        print(
            f"the console took {statistics.median(shares):.1f} % of a processor meanwhile (at most {max(shares):.1f})"
        )
        print(memory(tree(started.pid)))


def main() -> None:
    """Reads the options."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--buried", type=int, default=100_000)
    arguments.add_argument("--rows", type=int, default=300_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--times", type=int, default=30, help="that each page is asked for")
    arguments.add_argument("--seconds", type=float, default=6.0, help="of one round")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        measure(
            Path(place),
            buried=given.buried,
            rows=given.rows,
            rounds=given.rounds,
            seconds=given.seconds,
            times=given.times,
        )


if __name__ == "__main__":
    main()
