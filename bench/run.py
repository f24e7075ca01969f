"""`make bench`: measures glassq beside plain programs that do less, in one run on one machine.

Compare the ratios: absolute numbers depend on the machine. Each number is the median of several rounds. The rounds of
the programs alternate, so that a noisy minute affects all of them.
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
from typing import Any

import load
import push
import rate
import servers
from measure import PAUSE, median, rate_of_drain, say, side_by_side
from rich.console import Console
from rich.table import Table

from glassq import delivery as envelope

CHILDREN = 4
CONNECTIONS = 16
RESULTS = Path(__file__).parent / "results.json"
out = Console(highlight=False)


def acknowledge(place: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """(a) acknowledged pings/s of the intake, of a bare app and of a naive one."""
    kinds = {"glassq": servers.intake, "naive": None, "bare": None}
    found: dict[str, list[load.Load]] = {name: [] for name in kinds}
    with ExitStack() as stack:
        ports = {}
        for name in kinds:
            directory = place / name
            directory.mkdir()
            server = servers.intake(directory) if name == "glassq" else servers.plain_app(directory, name)
            ports[name], _ = stack.enter_context(server)
        for name in kinds:
            load.full_speed(ports[name], connections=CONNECTIONS, seconds=1)
        for number in range(rounds):
            for name in kinds:
                say(f"acknowledge: round {number + 1} of {rounds}, {name}")
                found[name].append(load.full_speed(ports[name], connections=CONNECTIONS, seconds=seconds))
    failed = sum(result.failed for results in found.values() for result in results)
    if failed:
        sys.exit(f"bench: {failed} pings were not acknowledged")
    return {
        name: {
            "per_second": median(result.rate for result in results),
            "p50_ms": median(result.quantile(0.5) for result in results) * 1000,
            "p99_ms": median(result.quantile(0.99) for result in results) * 1000,
        }
        for name, results in found.items()
    }


def drain(place: Path, rounds: int, jobs: int) -> dict[str, float]:
    """(b) no-op deliveries/s of the pool, beside a bare loop of reserve, stats-job, delete."""
    found: dict[str, list[float]] = {"pool": [], "loop": []}
    ping = load.request(0).partition(b"\r\n\r\n")[2]
    body = envelope.encode(envelope.new("mirror", ping, {"collection": "timeline", "operation": "INSERT"}))
    for number in range(rounds):
        for name in found:
            say(f"drain: round {number + 1} of {rounds}, {name}")
            directory = place / f"{name}{number}"
            directory.mkdir()
            with servers.beanstalkd(directory) as port, ExitStack() as stack:
                client = stack.enter_context(servers.client(port))
                if name == "pool":
                    stack.enter_context(servers.pool(directory, port, CHILDREN, "handlers:noop"))
                else:
                    stack.enter_context(side_by_side(CHILDREN, bare_loop, port))
                client.pause_tube("glassq", PAUSE)
                for _ in range(jobs):
                    client.put(body)
                client.pause_tube("glassq", 0)
                found[name].append(rate_of_drain(client, "glassq", jobs))
    return {name: median(rates) for name, rates in found.items()}


def bare_loop(port: int) -> None:
    client = servers.client(port)
    while True:
        job = client.reserve()
        client.stats_job(job)
        client.delete(job)


def latency(place: Path, seconds: float, speed: float) -> dict[str, float]:
    """(c) the time from the sending of a ping to the start of its handler, at a steady rate."""
    place.mkdir()
    with servers.intake(place) as (port, queue_port), servers.pool(place, queue_port, CHILDREN, "handlers:stamp"):
        load.steady(port, rate=speed, seconds=1)
        for file in place.glob("late.*"):
            file.write_text("")
        say(f"latency: {speed:g} pings/s for {seconds:g} s")
        sent = load.steady(port, rate=speed, seconds=seconds)
        with servers.client(queue_port) as client:
            rate_of_drain(client, "glassq", 1)
        late = [float(line) for file in place.glob("late.*") for line in file.read_text().splitlines()]
    if len(late) < len(sent.times) or sent.failed:
        sys.exit(f"bench: {len(sent.times)} pings sent, {len(late)} handled, {sent.failed} not acknowledged")
    return {"p50_ms": load.quantile(late, 0.5) * 1000, "p99_ms": load.quantile(late, 0.99) * 1000, "pings": len(late)}


def rest(place: Path, seconds: float) -> dict[str, float]:
    """(d) the memory of an idle pool (PSS: each process counts its part of shared pages), and its CPU time."""
    place.mkdir()
    with servers.beanstalkd(place) as port, servers.pool(place, port, CHILDREN, "glassq.glass.photos:store") as parent:
        pids = [parent.pid, *children(parent.pid)]
        say(f"rest: {seconds:g} s")
        before, started = sum(map(cpu_seconds, pids)), time.perf_counter()
        time.sleep(seconds)
        used = (sum(map(cpu_seconds, pids)) - before) / (time.perf_counter() - started)
        sizes = [pss(pid) for pid in pids]
    return {"parent_mib": sizes[0], "child_mib": statistics.mean(sizes[1:]), "idle_cpu_percent": used * 100}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> float:
    """The process's proportional set size in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def report(results: dict[str, Any]) -> None:
    ack, drained, late, idle = (results[name] for name in ("acknowledge", "drain", "latency", "rest"))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("what", "glassq", "beside", "", "ratio", "reach"):
        table.add_column(column, justify="left" if column in ("what", "") else "right")
    for name, words, reach in (
        ("naive", "naive app: json.loads, put", "0.9"),
        ("bare", "bare app: queues nothing", ""),
    ):
        table.add_row(
            "acknowledged pings/s",
            f"{ack['glassq']['per_second']:.0f}",
            f"{ack[name]['per_second']:.0f}",
            words,
            f"{ack['glassq']['per_second'] / ack[name]['per_second']:.2f}",
            reach,
        )
    for share in ("p50", "p99"):
        mine, naive = ack["glassq"][f"{share}_ms"], ack["naive"][f"{share}_ms"]
        table.add_row(
            f"  {share}, {CONNECTIONS} senders, ms", f"{mine:.1f}", f"{naive:.1f}", "naive app", f"{mine / naive:.2f}"
        )
    pool, loop = drained["pool"], drained["loop"]
    table.add_row(
        f"no-op deliveries/s, {CHILDREN} children", f"{pool:.0f}", f"{loop:.0f}",
        "bare loop: reserve, stats-job, delete", f"{pool / loop:.2f}", "0.6",
    )  # fmt: skip
    table.add_row("ping to handler p50, ms, 200/s", f"{late['p50_ms']:.2f}", "", "", "", "5")
    table.add_row("ping to handler p99, ms, 200/s", f"{late['p99_ms']:.2f}")
    table.add_row("memory of a child, MiB PSS", f"{idle['child_mib']:.1f}", f"{idle['parent_mib']:.1f}", "the parent")
    table.add_row(
        f"idle CPU of the pool, % of a core, {CHILDREN} children", f"{idle['idle_cpu_percent']:.2f}", "", "", "", "1"
    )
    for row in (*push.rows(results["dispatch"], CHILDREN), *rate.rows(results["rate"])):
        table.add_row(*row)
    out.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of (a), of (c), and of (d) twice")
    parser.add_argument("--jobs", type=int, default=6000, help="of one round of (b), and of (e)")
    parser.add_argument("--rate-seconds", type=float, default=30.0, help="of (f)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        place = Path(name)
        results = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "acknowledge": acknowledge(place, arguments.rounds, arguments.seconds),
            "drain": drain(place, arguments.rounds, arguments.jobs),
            "latency": latency(place / "latency", arguments.seconds * 2, 200),
            "rest": rest(place / "rest", arguments.seconds * 3),
            "dispatch": push.dispatch(
                place / "dispatch", arguments.rounds, arguments.jobs, arguments.seconds / 2, CHILDREN
            ),
            "rate": rate.measure(place / "rate", seconds=arguments.rate_seconds, processes=CHILDREN),
        }
    report(results)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    out.print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
