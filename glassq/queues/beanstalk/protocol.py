"""The values that beanstalkd's protocol answers with. The words are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq.queues.base import State

# The longest delay or pause that the protocol allows, in seconds: 136 years.
MAX_SECONDS = (1 << 32) - 1

DRAINING = "beanstalkd is draining: it takes no jobs until it is restarted"

# How far a scan is: (ids looked at, ids in all).
ScanProgress = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScanShort:
    """The final item of an incomplete scan: it found `found` of `promised` jobs among `looked` ids."""

    found: int
    promised: int
    looked: int


@dataclass(frozen=True, slots=True)
class JobBody:
    """A job's id and body. The server gives ids again after a restart without its binlog."""

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
        """Attempts at this job that ended with their process, read by the consumer that has just reserved it.

        Every reservation ends in a release, a bury, or the one that runs now; a closed connection adds to no
        counter, so what is missing was lost.
        """
        return max(0, self.reserves - 1 - self.releases - self.buries)

    @property
    def lost_before(self) -> int:
        """The same for a job that no consumer has reserved now."""
        return max(0, self.reserves - self.releases - self.buries)


@dataclass(frozen=True, slots=True)
class TubeStats:
    """How many jobs of a tube are in each state; `paused_for` is in seconds, 0 when it is not paused."""

    name: str
    ready: int
    reserved: int
    delayed: int
    buried: int
    waiting: int
    paused_for: int


@dataclass(frozen=True, slots=True)
class ServerStats:
    """The server as a whole. `id` changes with each start; `uptime` is in seconds.

    `durable` says whether it was started to write to disk. `puts` and `records` count puts and binlog records since it
    started: if the first grows and the second stands still, the server has stopped writing. `files` is how many binlog
    files there are, `newest_file` the number of the last one (0: it has none). `pid` is the server's process on its
    machine. `reserved` is how many jobs are reserved now, in all tubes. `workers` are the open connections that have
    reserved a job at least once; each of ours holds one job at a time. `max_job` is the largest job it takes, in
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
