"""What the rest of glassq asks of a queue. The words are beanstalkd's, and mean what they mean there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from glassq.queues.base import State, WaitingState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Waiting = WaitingState

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
class Job:
    """What the queue holds: a body under the queue's own id, which is not unique over time."""

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


class Queue(Protocol):
    """One connection to where deliveries wait.

    Every call may raise QueueUnavailable; the next one connects anew. After it, whatever was reserved is no
    longer ours, and a put may have happened or not.
    """

    @property
    def tube(self) -> str:
        """The tube that put, reserve and first look at."""

    def set_deadline(self, deadline: float) -> None:
        """From now on no call goes on past `deadline` (time.monotonic()): it raises QueueUnavailable then."""

    def put(self, body: bytes, *, delay: int = 0, tube: str | None = None) -> int:
        """Keeps a job and returns its id. `delay` is in whole seconds.

        Raises JobTooBig, or QueueRefused where the job would not be kept durably.
        """

    def reserve(self, timeout: int, tubes: Sequence[str] = ()) -> Job | None:
        """The next ready job, ours for the queue's ttr; None if there is none for `timeout` whole seconds.

        It is the oldest one of these tubes; of `tube` where none is named.
        """

    def reserve_job(self, job_id: int) -> Job:
        """This very job, ours now, be it ready, delayed or buried. Raises JobNotFound."""

    def touch(self, job_id: int) -> None:
        """Renews our lease of a reserved job. Raises JobNotFound when it is no longer ours."""

    def release(self, job_id: int, *, delay: int = 0) -> None:
        """Gives a reserved job back, to be ready after `delay` seconds. Raises JobNotFound."""

    def bury(self, job_id: int) -> None:
        """Puts a reserved job aside until an operator decides. Raises JobNotFound."""

    def delete(self, job_id: int, *, held: bool = False) -> None:
        """Removes a job that is ours, ready, delayed or buried. Raises JobNotFound.

        With `held` only one that we reserved on this connection: after a break the same id may be another job's.
        """

    def kick(self, job_id: int) -> None:
        """Makes a buried or delayed job ready. Raises JobNotFound."""

    def peek(self, job_id: int) -> Job:
        """A look at a job, which changes nothing. Raises JobNotFound."""

    def stats_job(self, job_id: int) -> JobStats:
        """A job's state and counters. Raises JobNotFound."""

    def oldest_ready(self, tube: str | None = None) -> JobStats | None:
        """The ready job that is reserved next, which is the oldest of the tube; None if none is ready."""

    def head(self, state: Waiting, tube: str | None = None) -> Job | None:
        """The tube's first job in this state, which stays as it is; None if there is none.

        Of the ready ones it is the oldest, of the delayed ones the next to be ready, of the buried ones the first that
        was buried.
        """

    def pause(self, seconds: int, tube: str | None = None) -> bool:
        """For so many whole seconds nobody reserves from the tube; 0: it goes on.

        The server forgets it when it is restarted, or when the tube ends: one without jobs that nobody watches. False
        for a tube that does not exist now.
        """

    def stats_tube(self, tube: str | None = None) -> TubeStats:
        """A tube's counts; all zero for a tube that does not exist now."""

    def stats(self) -> ServerStats:
        """The server as a whole."""

    def tubes(self) -> list[str]:
        """The names of all tubes that exist now."""

    def probe(self) -> JobStats:
        """What becomes of a job put now: an empty one, where nobody looks, taken out again at once.

        Raises QueueRefused like `put`.
        """

    def newest_job(self) -> int:
        """The highest job id given so far. Raises QueueRefused like `put`."""

    def scan(
        self, states: frozenset[str], *tubes: str, hints: Sequence[int] = (), since: int = 0
    ) -> Iterator[JobStats | ScanProgress | ScanShort]:
        """The jobs of these tubes (of `tube` where none is named) in these states, with a ScanProgress now and then.

        They come newest first; nothing is changed. It ends as soon as it has found as many as the tubes' counts
        promised when it began. `hints` are ids of jobs that may be such: they are looked at first, and where they are
        all, no other id is. Where there are enough of them but some are wrong, what they left out comes last. Ids up to
        `since` are left out.
        Where the queue takes no job now, nobody can say where its ids end: it looks around those that can be seen, and
        may end with a ScanShort.
        """

    def close(self) -> None:
        """Closes the connection; what is reserved becomes ready at once."""

    def close_inherited(self) -> None:
        """Called in a process forked from ours: lets go of our connection, which would keep what we reserved."""
