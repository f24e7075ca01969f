"""The values that beanstalkd's protocol answers with. The words are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq.queues.base import State

# The longest delay or pause that the protocol allows, in seconds: 136 years.
MAX_SECONDS = (1 << 32) - 1

# What people are told of a server that takes no jobs any more.
DRAINING = "beanstalkd is draining: it takes no jobs until it is restarted"

# How a scan names itself while it goes: (ids looked at, ids in all).
ScanProgress = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScanShort:
    """The last word of a scan that could not find all: `found` of `promised` jobs, among `looked` ids."""

    found: int
    promised: int
    looked: int


@dataclass(frozen=True, slots=True)
class JobBody:
    """A job's body under its id, which the server gives again after a restart without its binlog."""

    id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class JobStats:
    """One job's state ("ready", "reserved", "delayed", "buried"), times in seconds, and its counters.

    `file` is the binlog file that keeps it; 0: none does.
    """

    id: int
    tube: str
    state: State
    age: int
    delay: int
    ttr: int
    time_left: int
    file: int
    reserves: int
    timeouts: int
    releases: int
    buries: int
    kicks: int

    @property
    def lost(self) -> int:
        """Attempts at this job that ended with their process, as seen by whoever has just reserved it.

        Every reservation ends in a release, a bury, or the one that runs now; a closed connection adds to no
        counter, so what is missing was lost.
        """
        return max(0, self.reserves - 1 - self.releases - self.buries)

    @property
    def lost_before(self) -> int:
        """The same of a job that nobody has reserved now."""
        return max(0, self.reserves - self.releases - self.buries)


@dataclass(frozen=True, slots=True)
class TubeStats:
    """How many jobs of a tube are in which state; `paused_for` is in seconds, 0 when it is not paused."""

    name: str
    ready: int
    reserved: int
    delayed: int
    buried: int
    waiting: int
    paused_for: int


@dataclass(frozen=True, slots=True)
class ServerStats:
    """The server as a whole. `id` is another one after each start; `uptime` is in seconds.

    `durable` says whether it was started to write to disk. `puts` and `records` count puts and binlog records since it
    started: where the one grows and the other stands still, nothing is written any more. `files` is how many binlog
    files there are, `newest_file` the number of the last one (0: it has none). `pid` is the server's process on its
    machine. `reserved` is how many jobs are reserved now, in all tubes. `workers` are the connections that have
    reserved so far and are still there; each of ours holds one job at a time. `max_job` is the largest job it takes, in
    bytes; `jobs` is how many it has taken since it started.
    """

    id: str
    version: str
    durable: bool
    draining: bool
    connections: int
    uptime: int
    puts: int
    records: int
    files: int
    workers: int
    max_job: int
    jobs: int
    newest_file: int = 0
    pid: int = 0
    reserved: int = 0
