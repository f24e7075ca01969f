"""A failover as an operator sees it: `make failover` prints it, each line with the second in which it happened.

Two intakes and two pools work pings on three nodes. The primary dies for good; the operator looks, promotes the standby
that has most, and brings the dead node back as a standby. Exits 0 only if no ping was lost or answered other than 200.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.chaos.harness import ROOT
from tests.chaos.load import Load
from tests.chaos.report import Counted, count, read_handled
from tests.chaos.site import HOSTS, Site
from tests.postgres import ROLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RATE, CLIENTS = 50.0, 4
# How long the load goes on before the fault and after all is well again, and between two looks at the logs, in seconds.
CALM, INTERVAL = 3.0, 0.05
# What an operator does not have to read to understand a failover: the torture's handler fails one attempt in 20.
_NOISE = re.compile(r"^\S+ (info|debug) |^  \| |.* retrying delivery=")
_STAMP = re.compile(r"^\S+ (\w+) ([\w.]+)\[\d+\]: ")
# Lines of doctor that concern the queue.
_ABOUT_QUEUE = re.compile(r"\b(queue|standbys|durability|primary|journal|pool)\b")
# What differs between two lines of the same kind.
_NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


class Transcript:
    """Prints what happens at the site, while the context lasts also the programs' warnings, each kind once a host."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._seen: set[str] = set()
        self._read: dict[Path, int] = {}
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        # what was said at the start belongs to no failover
        for path, _ in self._logs():
            self._read[path] = path.stat().st_size
        self._follower.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._follower.join()

    def event(self, text: str) -> None:
        """What somebody did, or what has come about."""
        self._print([f"== {text}"])

    def command(self, *words: str, keep: re.Pattern[str] | None = None) -> None:
        """Runs glassq on the first host, and prints those lines of its output that `keep` finds."""
        config = str(self._site.hosts[0].directory / "glassq.toml")
        environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
        ran = subprocess.run(
            [sys.executable, str(ROOT / "bin/glassq"), "--config", config, *words],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        lines = [line.rstrip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        shown = [line for line in lines if keep is None or keep.search(line)]
        self._print([f"$ glassq {' '.join(words)}", *(f"    {line}" for line in shown), f"    (exit {ran.returncode})"])

    def _print(self, lines: Iterable[str]) -> None:
        at = time.monotonic() - self._began
        with self._lock:
            for line in lines:
                print(f"{at:6.1f} s  {self._named(line)}", flush=True)

    def _named(self, line: str) -> str:
        """The nodes by their names, and the hosts' files without the directory of this run."""
        for node in self._site.cluster.nodes:
            line = line.replace(f"127.0.0.1:{node.proxy.port}", f"db-{node.name}")
            line = line.replace(f'"127.0.0.1", port {node.proxy.port}', f"db-{node.name}")
        for host in self._site.hosts:
            line = line.replace(f"{host.directory}/", "")
        return line

    def _logs(self) -> Iterator[tuple[Path, str]]:
        for host in self._site.hosts:
            for service in host.services:
                yield service.log, f"{host.directory.name} glassq-{service.name}"

    def _follow(self) -> None:
        while not self._stopped.wait(INTERVAL):
            for path, who in self._logs():
                with path.open("rb") as log:
                    log.seek(self._read.get(path, 0))
                    whole, newline, _ = log.read().rpartition(b"\n")
                self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
                self._print(self._new(who, whole.decode().splitlines()))

    def _new(self, who: str, lines: list[str]) -> Iterator[str]:
        for line in lines:
            kind = f"{who} {_NUMBERS.sub('', line)}"
            if not _NOISE.match(line) and kind not in self._seen:
                self._seen.add(kind)
                words = _STAMP.sub(r"\1: ", line)
                yield f"{who}: {words}"


def fail_over(site: Site, transcript: Transcript) -> None:
    """The primary dies, another one is promoted, and the dead one follows it."""
    dead = site.primary
    time.sleep(CALM)
    transcript.command("status")
    transcript.event(f"the host of db-{dead.name}, the primary, is gone (SIGKILL)")
    dead.kill()
    time.sleep(CALM / 2)
    transcript.command("status")
    transcript.command("doctor", keep=_ABOUT_QUEUE)
    chosen = site.cluster.longest()
    transcript.event(f"db-{chosen.name} has received most: SELECT pg_promote() there")
    site.cluster.promote(chosen)
    transcript.event(f"db-{chosen.name} takes writes, the other one follows it")
    site.wait(lambda: not sum(host.journaled() for host in site.hosts), "the journals to be empty")
    transcript.event("both journals are empty: their pings are in the queue")
    transcript.command("status")
    transcript.event(f"db-{dead.name} comes back as a standby: pg_basebackup -R")
    site.cluster.rejoin(dead)
    site.cluster.wait_until_in_sync(2)
    transcript.event("two standbys confirm again")
    transcript.command("doctor", keep=_ABOUT_QUEUE)
    time.sleep(CALM)


def run(directory: Path, rate: float) -> bool:
    """Prints the whole of it; whether nothing was lost, and each ping answered 200."""
    with Site(directory) as site:
        site.primary.running.execute(f"GRANT pg_read_all_stats TO {ROLE}")
        with ExitStack() as stack:
            transcript = stack.enter_context(Transcript(site))
            transcript.event(f"{rate:g} pings a second come to two intakes; a is the primary, b and c confirm")
            loads = [
                stack.enter_context(
                    Load(
                        host.port,
                        site.token,
                        host.directory / "client.log",
                        name=host.directory.name,
                        clients=CLIENTS,
                        rate=rate / HOSTS,
                    )
                )
                for host in site.hosts
            ]
            fail_over(site, transcript)
        settled = site.settle()
        handled = [entry for host in site.hosts for entry in read_handled(host.directory / "handled.log")]
    counted = Counted()
    count(counted, loads, handled)
    tries = [each for load in loads for each in load.tries]
    answered = sorted(each.sent + each.seconds for each in tries if each.acknowledged)
    others = len(tries) - len(answered)
    longest = max(after - before for before, after in itertools.pairwise(answered))
    worked = max(after - before for before, after in itertools.pairwise(sorted(entry.at for entry in handled)))
    print(
        f"pings {counted.attempted}, answered 200 {counted.acknowledged}, other answers {others}, lost "
        f"{len(counted.lost)}, worked twice {counted.worked_twice}, taken twice {counted.taken_twice}; longest time "
        f"without a 200 {longest:.2f} s, longest time without work {worked:.1f} s; settled: {settled}"
    )
    return settled and not counted.lost and not counted.unexpected and not others


def main() -> int:
    parser = argparse.ArgumentParser(prog="make failover", description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="pings a second, to both intakes together")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        return 0 if run(Path(made) / "site", arguments.rate) else 1


if __name__ == "__main__":
    sys.exit(main())
