"""Measures how many programs a pool runs per second: `/bin/true` for each job, beside a bare loop of subprocess.run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import servers
from measure import median, rate_of_drain, say
from run import fill

# The minimum rate on two cores, per second.
MIN_RATE = 150
PROGRAM = "/bin/true"


def pool(place: Path, jobs: int, processes: int) -> float:
    """Jobs per second of a pool whose handler is the program."""
    place.mkdir(parents=True)
    with (
        servers.queue(place) as queue,
        servers.client(queue.port) as client,
        servers.pool(place, queue, processes, handler=f"exec:{PROGRAM}"),
    ):
        fill(client, jobs)
        return rate_of_drain(client, "glassq", jobs)


def bare(runs: int) -> float:
    """The rate of one process that does nothing else."""
    started = time.perf_counter()
    for _ in range(runs):
        subprocess.run([PROGRAM], check=True, capture_output=True)
    return runs / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rates, alone = [], []
    with tempfile.TemporaryDirectory(prefix="glassq-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        for number in range(arguments.rounds):
            say(f"programs: round {number + 1} of {arguments.rounds}")
            rates.append(pool(Path(name) / str(number), arguments.jobs, arguments.processes))
            alone.append(bare(200))
    print(
        f"{median(rates):.0f} programs/s ({min(rates):.0f} to {max(rates):.0f}) in {arguments.processes} children; "
        f"{median(alone):.0f}/s ({min(alone):.0f} to {max(alone):.0f}) in a bare loop"
    )
    sys.exit(0 if median(rates) >= MIN_RATE else f"bench: fewer than {MIN_RATE} programs/s")


if __name__ == "__main__":
    main()
