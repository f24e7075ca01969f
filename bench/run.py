"""`make bench`: measures glassq beside plain programs that do less, in one run on one machine.

Compare the ratios: absolute numbers depend on the machine. Each number is the median of several rounds. The rounds of
the programs alternate, so that a noisy minute affects all of them. All that concerns the disk is measured on two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backlog
import load
import push
import rate
import servers
from disk import Disk, disks
from measure import PAUSE, compared, rate_of_drain, say, side_by_side
from rich.console import Console
from rich.table import Table

from glassq import delivery as envelope

if TYPE_CHECKING:
    from collections.abc import Iterator

    import greenstalk

CHILDREN = (2, 4)
CONNECTIONS = 32
# pings per second of the measurement of latency
SPEED = 500
# so many senders at once, and the p99 of their answers in ms that is to be reached
CROWD, MAX_CROWD_MS = 1_000, 500
RESULTS = Path(__file__).parent / "results.json"
out = Console(highlight=False)


def acknowledge(place: Path, disk: Disk, rounds: int, seconds: float) -> dict[str, list[load.Load]]:
    """(a) acknowledged pings/s of the intake, of a bare app and of a naive one."""
    found: dict[str, list[load.Load]] = {}
    with ExitStack() as stack:
        ports = {"glassq": stack.enter_context(servers.intake(place / "glassq", disk))[0]}
        for name in ("naive", "bare"):
            ports[name] = stack.enter_context(servers.plain_app(place / name, name, disk))
        for port in ports.values():
            load.full_speed(port, connections=CONNECTIONS, seconds=1)
        for number in range(rounds):
            for name, port in ports.items():
                say(f"{disk.name}: acknowledge: round {number + 1} of {rounds}, {name}")
                found.setdefault(name, []).append(load.full_speed(port, connections=CONNECTIONS, seconds=seconds))
    failed = sum(result.failed for results in found.values() for result in results)
    if failed:
        sys.exit(f"bench: {failed} pings were not acknowledged")
    return found


def crowd(place: Path, disk: Disk, rounds: int, seconds: float) -> list[load.Load]:
    """(j) the answers to CROWD senders, each of which has one ping in flight at any time; none may be refused."""
    found = []
    with servers.intake(place, disk) as (port, _):
        for number in range(rounds):
            say(f"{disk.name}: {CROWD} senders: round {number + 1} of {rounds}")
            found.append(load.full_speed(port, connections=CROWD, seconds=seconds))
    return found


def drain(place: Path, disk: Disk, rounds: int, jobs: int) -> dict[str, list[float]]:
    """(b) no-op deliveries/s of pools of 2 and 4 children, beside bare loops of reserve, stats-job, delete."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for children in CHILDREN:
            for kind in ("pool", "loop"):
                say(f"{disk.name}: drain: round {number + 1} of {rounds}, {kind} of {children}")
                directory = place / f"{kind}{children}.{number}"
                worked = drain_once(directory, disk, jobs, children, bare=kind == "loop")
                found.setdefault(f"{kind}{children}", []).append(worked)
    return found


def drain_once(place: Path, disk: Disk, jobs: int, children: int, *, bare: bool) -> float:
    with ExitStack() as stack:
        if bare:
            port = stack.enter_context(servers.plain_queue(place, disk))
            stack.enter_context(side_by_side(children, bare_loop, port))
        else:
            queue = stack.enter_context(servers.queue(place, disk))
            stack.enter_context(servers.pool(place, queue, children, "handlers:noop"))
            port = queue.port
        client = stack.enter_context(servers.client(port))
        fill(client, jobs)
        return rate_of_drain(client, "glassq", jobs)


def fill(client: greenstalk.Client[bytes], jobs: int) -> None:
    """Puts so many deliveries while the tube is paused."""
    client.pause_tube("glassq", PAUSE)
    ping = load.request(0).partition(b"\r\n\r\n")[2]
    labels = {"collection": "timeline", "operation": "INSERT"}
    for _ in range(jobs):
        client.put(envelope.encode(envelope.new("mirror", ping, labels)))
    client.pause_tube("glassq", 0)


def bare_loop(port: int) -> None:
    client = servers.client(port)
    while True:
        job = client.reserve()
        client.stats_job(job)
        client.delete(job)


def retries(place: Path, disk: Disk, rounds: int, jobs: int) -> list[float]:
    """(c) retries/s of a pool of 2 children whose every attempt fails."""
    found = []
    for number in range(rounds):
        say(f"{disk.name}: retries: round {number + 1} of {rounds}")
        directory = place / str(number)
        with (
            servers.queue(directory, disk) as queue,
            servers.pool(directory, queue, 2, "handlers:fail"),
            servers.client(queue.port) as client,
        ):
            fill(client, jobs)
            found.append(rate_of_drain(client, "glassq", jobs))
    return found


def latency(place: Path, disk: Disk, seconds: float, speed: float) -> dict[str, float]:
    """(d) the time from the sending of a ping to the start of its handler, at a steady rate."""
    with servers.intake(place, disk) as (port, queue), servers.pool(place, queue, 4, "handlers:stamp"):
        load.steady(port, rate=speed, seconds=1)
        for file in place.glob("late.*"):
            file.write_text("")
        say(f"{disk.name}: latency: {speed:g} pings/s for {seconds:g} s")
        sent = load.steady(port, rate=speed, seconds=seconds)
        with servers.client(queue.port) as client:
            rate_of_drain(client, "glassq", 1)
        late = [float(line) for file in place.glob("late.*") for line in file.read_text().splitlines()]
    if len(late) < len(sent.times) or sent.failed:
        sys.exit(f"bench: {len(sent.times)} pings sent, {len(late)} handled, {sent.failed} not acknowledged")
    return {"p50": load.quantile(late, 0.5) * 1000, "p99": load.quantile(late, 0.99) * 1000}


def adding(place: Path, disk: Disk, tasks: int) -> dict[str, float]:
    """(e) the time of one taskqueue.add, by one program, one after the other."""
    with servers.queue(place, disk) as queue:
        say(f"{disk.name}: taskqueue.add: {tasks} tasks")
        times = push.adding(place, queue, tasks)
    return {"p50": load.quantile(times, 0.5) * 1000, "p99": load.quantile(times, 0.99) * 1000}


def rest(place: Path, seconds: float) -> dict[str, float]:
    """(f) the memory of an idle pool (PSS: each process counts its part of shared pages), and its CPU time."""
    with servers.queue(place) as queue, servers.pool(place, queue, 4, "glassq.glass.photos:store") as parent:
        pids = [parent.pid, *children(parent.pid)]
        say(f"rest: {seconds:g} s")
        before, started = sum(map(cpu_seconds, pids)), time.perf_counter()
        time.sleep(seconds)
        used = (sum(map(cpu_seconds, pids)) - before) / (time.perf_counter() - started)
        shared, own = [smaps(pid, "Pss") for pid in pids], [smaps(pid, "Private_Dirty") for pid in pids]
    return {
        "parent_mib": shared[0],
        "child_mib": statistics.mean(shared[1:]),
        "child_own_mib": statistics.mean(own[1:]),
        "idle_cpu_percent": used * 100,
    }


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def smaps(pid: int, name: str) -> float:
    """A sum over the process's memory in MiB: "Pss", its proportional set size; "Private_Dirty", its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of one disk."""
    ack = found["acknowledge"]
    mine = [result.rate for result in ack["glassq"]]
    for name, words in (("naive", "naive app: json.loads, put"), ("bare", "bare app: queues nothing")):
        own, theirs, ratio = compared(mine, [result.rate for result in ack[name]])
        yield "acknowledged pings/s", own, theirs, words, ratio
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        own, theirs, ratio = compared(
            *([result.quantile(share) * 1e6 for result in ack[name]] for name in ("glassq", "naive"))
        )
        yield f"  {label}, {CONNECTIONS} senders, microseconds", own, theirs, "naive app", ratio
    for children in CHILDREN:
        own, theirs, ratio = compared(found["drain"][f"pool{children}"], found["drain"][f"loop{children}"])
        words = "bare loops: reserve, stats-job, delete"
        yield f"no-op deliveries/s, {children} children", own, theirs, words, ratio
    many = found["crowd"]
    times = [1000 * result.quantile(0.99) for result in many]
    refused = sum(result.failed for result in many)
    yield (
        f"p99 of {CROWD:,} senders at once, ms; refused", f"{statistics.median(times):,.0f}; {refused}",
        f"{min(times):,.0f} to {max(times):,.0f}", "", "", f"below {MAX_CROWD_MS}; 0",
    )  # fmt: skip
    yield "retries/s, 2 children", f"{statistics.median(found['retries']):,.0f}", "", "", ""
    for name, words in (("latency", f"ping to handler, {SPEED}/s, ms"), ("adding", "taskqueue.add alone, ms")):
        yield f"{words}: p50, p99", f"{found[name]['p50']:.2f}, {found[name]['p99']:.2f}", "", "", ""


def report(results: dict[str, Any]) -> None:
    table = Table("what", "glassq", "beside", "", "ratio", "reach", box=None, padding=(0, 2, 0, 0))
    for name, found in results["disks"].items():
        table.add_row(f"[bold]{name}")
        for row in rows(found):
            table.add_row(*row)
    table.add_row("[bold]either disk")
    idle = results["rest"]
    own = f"{idle['child_own_mib']:.1f} own, {idle['child_mib']:.1f}"
    table.add_row("memory of an idle child, MiB: own, PSS", own, f"{idle['parent_mib']:.1f}", "the parent")
    table.add_row("idle CPU of the pool, % of a core, 4 children", f"{idle['idle_cpu_percent']:.2f}")
    for row in (*backlog.rows(results["backlog"]), *push.rows(results["dispatch"], 4), *rate.rows(results["rate"])):
        table.add_row(*row)
    out.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of (a), of (d), and of (f) twice")
    parser.add_argument("--jobs", type=int, default=6000, help="of one round of (b), of (c), and of (g)")
    parser.add_argument("--rate-seconds", type=float, default=30.0, help="of (h)")
    given = parser.parse_args()
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "disks": {},
    }
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        place = Path(name)
        for number, disk in enumerate(disks(place)):
            here = place / f"disk{number}"
            results["disks"][disk.name] = {
                "acknowledge": acknowledge(here / "web", disk, given.rounds, given.seconds),
                "drain": drain(here / "drain", disk, given.rounds, given.jobs),
                "crowd": crowd(here / "crowd", disk, min(given.rounds, 3), given.seconds),
                "retries": retries(here / "retries", disk, given.rounds, given.jobs),
                "latency": latency(here / "latency", disk, given.seconds * 2, SPEED),
                "adding": adding(here / "adding", disk, given.jobs // 10),
            }
        results |= {
            "backlog": backlog.measure(place / "backlog", rounds=given.rounds),
            "rest": rest(place / "rest", given.seconds * 3),
            "dispatch": push.dispatch(place / "dispatch", given.rounds, given.jobs, given.seconds / 2, 4),
            "rate": rate.measure(place / "rate", seconds=given.rate_seconds, processes=4),
        }
    report(results)
    RESULTS.write_text(json.dumps(results, indent=2, default=lambda value: value.summary()) + "\n")
    out.print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
