"""The values in the replies of beanstalkd's protocol. Their names are the protocol's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from glassq.queues.base import State

# The highest id that a job can have.
MAX_ID = (1 << 64) - 1
# The maximum delay or pause of the protocol, in seconds: 136 years.
MAX_SECONDS = (1 << 32) - 1

# Tubes that hold nothing but probes: empty jobs by which we, and the syncer, try whether the server writes.
PROBE_TUBE, SYNCER_TUBE = "glassq.probe", "glassq.syncer"

# The error text for a server that takes no jobs any more.
DRAINING = "beanstalkd is draining: it takes no jobs until it is restarted"

# The progress of a scan: (examined ids, all ids).
ScanProgress = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScanShort:
    """The final item of an incomplete scan: `found` of `promised` jobs, among `looked` ids."""

    found: int
    promised: int
    looked: int


class JobBody(msgspec.Struct, frozen=True):
    """A job's id and body. The server reuses ids after a restart without its binlog."""

    id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class JobStats:
    """One job's state ("ready", "reserved", "delayed", "buried"), its times in seconds, and its counters.

    `file` is the number of the binlog file that contains it; 0: none does.
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
        """The number of attempts at this job that died with their process. Valid for a job that we have just reserved.

        Each earlier reservation ended in a release, a bury, or a loss. A closed connection increments no counter, so
        the difference is the number of losses.
        """
        return max(0, self.reserves - 1 - self.releases - self.buries)

    @property
    def lost_before(self) -> int:
        """The same number for a job that nobody has reserved."""
        return max(0, self.reserves - self.releases - self.buries)


@dataclass(frozen=True, slots=True)
class TubeStats:
    """The number of jobs of a tube in each state. `paused_for` is in seconds, 0 if the tube is not paused.

    `pause` is the length of its pause in all, in seconds. `using` is the number of connections that put into it.
    `total` counts the jobs that were put into it, `deleted` those that were deleted from it; both begin anew with the
    tube.
    """

    name: str
    ready: int
    reserved: int
    delayed: int
    buried: int
    waiting: int
    paused_for: int
    using: int = 0
    total: int = 0
    deleted: int = 0
    pause: int = 0


@dataclass(frozen=True, slots=True)
class ServerStats:
    """The server as a whole. `id` is new at each start; `uptime` is in seconds.

    `durable`: the server was started with a binlog. `puts` and `records` count puts and binlog records since the start:
    if only `puts` grows, the server has stopped writing. `files` is the number of binlog files, `newest_file` the
    number of the last one (0: there is none). `pid` is the server's process on its machine. `reserved` is the number of
    reserved jobs in all tubes. `workers` is the number of open connections that have reserved a job; each of ours holds
    one at a time. `max_job` is the maximum size of a job in bytes, `jobs` the number of jobs taken since the start.
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
