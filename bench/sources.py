"""What verification costs: `python bench/sources.py [ROUNDS]`, or `make bench-sources`.

One intake acknowledges pings of 1 kB at full speed, Mirror's and GitHub's in turn. The processor time of its processes
is told beside, as it depends less on what else the machine does.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

import load
import servers

CONNECTIONS = 32
SIZE = 1000
# A round of each, in seconds.
SECONDS = 4.0
TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """What this process's children named glassq-web, and their children, have used so far."""
    ticks = 0
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        if b"glassq-web" in Path(f"/proc/{child}/cmdline").read_bytes():
            ticks += sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]))
            ticks += round(processor_seconds(child) * TICKS)
    return ticks / TICKS


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place, servers.intake(Path(place)) as (port, _):
        padding = "x" * (SIZE - len(load.request(port, x="").partition(b"\r\n\r\n")[2]))
        pings = {"mirror": load.request(port, x=padding), "github": load.github_request(port, SIZE)}
        rates: dict[str, list[float]] = {name: [] for name in pings}
        costs: dict[str, list[float]] = {name: [] for name in pings}
        for data in pings.values():
            load.full_speed(port, connections=CONNECTIONS, seconds=1, data=data)
        for _ in range(rounds):
            for name, data in pings.items():
                before = processor_seconds(os.getpid())
                result = load.full_speed(port, connections=CONNECTIONS, seconds=SECONDS, data=data)
                if result.failed:
                    sys.exit(f"bench: {result.failed} pings of {name} were not acknowledged")
                rates[name].append(result.rate)
                costs[name].append((processor_seconds(os.getpid()) - before) / len(result.times) * 1e6)
                cost = f"{costs[name][-1]:6.0f} us of processor a ping"
                print(f"{name:<8} {result.rate:8.0f}/s  p99 {1000 * result.quantile(0.99):6.1f} ms  {cost}", flush=True)
    for what, found in (("pings/s", rates), ("us a ping", costs)):
        mirror, github = (statistics.median(found[name]) for name in ("mirror", "github"))
        print(f"median of {what}: mirror {mirror:.0f}, github {github:.0f}: {100 * (github / mirror - 1):+.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
