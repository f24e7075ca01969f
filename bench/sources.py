"""What verification costs: `python bench/sources.py [ROUNDS]`, or `make bench-sources`.

One intake acknowledges pings of 1 kB at full speed, Mirror's and GitHub's in turn.
"""

from __future__ import annotations

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


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place, servers.intake(Path(place)) as (port, _):
        padding = "x" * (SIZE - len(load.request(port, x="").partition(b"\r\n\r\n")[2]))
        pings = {"mirror": load.request(port, x=padding), "github": load.github_request(port, SIZE)}
        rates: dict[str, list[float]] = {name: [] for name in pings}
        for data in pings.values():
            load.full_speed(port, connections=CONNECTIONS, seconds=1, data=data)
        for _ in range(rounds):
            for name, data in pings.items():
                result = load.full_speed(port, connections=CONNECTIONS, seconds=SECONDS, data=data)
                if result.failed:
                    sys.exit(f"bench: {result.failed} pings of {name} were not acknowledged")
                rates[name].append(result.rate)
                print(f"{name:<8} {result.rate:8.0f}/s  p99 {1000 * result.quantile(0.99):6.1f} ms", flush=True)
    mirror, github = (statistics.median(rates[name]) for name in ("mirror", "github"))
    print(f"median: mirror {mirror:.0f}/s, github {github:.0f}/s: {100 * (1 - github / mirror):+.1f} % slower")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
