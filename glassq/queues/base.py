"""What glassq asks of a queue, by intent, in three roles: Producer, Receiver, Inspector.

An engine is a package beside this file; its classes carry its name (BeanstalkProducer). A job is what an engine holds:
a delivery under a reference of the engine's own, which is an opaque string everywhere else. References may be given
again over time, so nothing is kept under one: what an operator names is the delivery's own id.

Every call may raise QueueUnavailable; the next call connects again. After a QueueUnavailable all reservations are lost,
and the failed call may have taken effect or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.errors import QueueError

# The states of a job while no consumer has it, and all states.
WaitingState = Literal["ready", "delayed", "buried"]
State = Literal["ready", "reserved", "delayed", "buried"]
WAITING_STATES: frozenset[WaitingState] = frozenset({"ready", "delayed", "buried"})
ALL_STATES: frozenset[State] = frozenset({"ready", "reserved", "delayed", "buried"})


@dataclass(frozen=True, slots=True)
class NewJob:
    """A delivery to put: its id, its encoded form, the tube, and a delay in seconds until it is ready."""

    key: str
    body: bytes
    tube: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The engine has taken this delivery. It is durable once `Producer.confirm` has returned for it."""

    key: str
    ref: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine has not taken this delivery, and why.

    With `in_doubt` the connection broke before its answer came: it may have been put all the same.
    """

    key: str
    error: QueueError
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reserved job. It is ours for `lease` seconds, unless the lease is extended.

    `losses` is how many attempts at this job ended with their process. `kicked`: an operator asked for another try
    since the job was put. `undelayed`: it was ready from the start. Without `durable` the engine keeps it in memory
    only.
    """

    ref: str
    tube: str
    body: bytes
    lease: float
    losses: int = 0
    kicked: bool = False
    undelayed: bool = True
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it lies in the queue. Times are in seconds.

    `age` counts from its put; `time_left` runs until a delayed job is ready, or until a lease ends. `ready_for` is how
    long a ready job has been ready, None where the engine cannot tell. `losses`, `kicked` and `durable` are those of a
    Reservation. `counters` are the engine's own counters of the job, for people.
    """

    ref: str
    tube: str
    state: State
    body: bytes
    age: float
    time_left: float = 0.0
    ready_for: float | None = None
    losses: int = 0
    kicked: bool = False
    durable: bool = True
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TubeCounts:
    """How many jobs of a tube are in each state, and how many consumers wait for one; all zero for an absent tube.

    `paused_for` is in seconds, 0 where the tube is not paused.
    """

    name: str
    ready: int = 0
    reserved: int = 0
    delayed: int = 0
    buried: int = 0
    waiting: int = 0
    paused_for: int = 0

    @property
    def jobs(self) -> int:
        """All jobs of the tube."""
        return self.ready + self.reserved + self.delayed + self.buried


@dataclass(frozen=True, slots=True)
class EngineGauge:
    """A number that only this engine has, for the metrics."""

    name: str
    help: str
    value: float


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The engine as a whole.

    `uptime` is in seconds, `max_job` is the largest job it takes, in bytes. `durable`: jobs put now are written to
    disk, as far as can be told without a put. `accepting`: it takes jobs. `consumers` are the open connections that
    have reserved a job at least once. `details` are facts that only this engine has, for JSON.
    """

    engine: str
    version: str
    uptime: int
    durable: bool
    accepting: bool
    consumers: int
    max_job: int
    details: Mapping[str, object] = field(default_factory=dict)
    gauges: tuple[EngineGauge, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about an engine: fine (`ok`), wrong, or neither (None), and what to do about it.

    A command of ours stands in `todo` as `glassq ...`, in backquotes.
    """

    name: str
    ok: bool | None
    said: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.said}: {self.todo}" if self.todo else self.said


class LocalEngine(Protocol):
    """What this machine has of an engine, whether its server answers or not.

    `packages` are the Python packages that the engine needs. `units` are our systemd units of its server, in the order
    of their start. `other_unit` is a unit of the same server that is not ours ("": there is none).
    """

    @property
    def packages(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def other_unit(self) -> str: ...

    def directories(self) -> Iterator[tuple[str, Path]]:
        """The directories of the server, each after a word for its contents; none if it runs on another machine."""

    def other_server(self, active: str, boots: str) -> Iterator[Fact]:
        """What to do about `other_unit`, given its ActiveState and UnitFileState."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do. An operation that needs more refuses by name before it does anything.

    `lists`: jobs of these states can be found. `oldest`: the next job of a tube can be seen. `exact_counts`: counts are
    those of this moment. `by_key`: a delivery is found by its id without a search. `pause`: a tube can be paused.
    `max_delay`, `max_lease` in seconds. `frees_at_once`: the jobs of a consumer that dies are ready at once. `fenced`:
    a consumer that has lost its lease cannot settle the job. `many_held`: one receiver can hold several reservations.
    `exact_losses`: losses are counted, not guessed. `atomic`: the end of a job and the put of its next form happen
    together or not at all. `keeps_for`: how long the engine keeps a job, in seconds; None: for ever.
    """

    lists: frozenset[State]
    oldest: bool
    exact_counts: bool
    by_key: bool
    pause: bool
    max_delay: float
    max_lease: float
    frees_at_once: bool
    fenced: bool
    many_held: bool
    exact_losses: bool
    atomic: bool
    keeps_for: float | None


class Producer(Protocol):
    """Puts deliveries. One serves all threads of a process; it may be made before a fork and used after it."""

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        """Puts the jobs in order, for at most `within` seconds; returns an answer for each.

        A bad job is refused alone. After a connection broke, the rest is refused. With `again`, jobs that the broken
        connection left are put once more on a new one: rather worked twice than lost.
        """

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        """Returns when these are proven durable, in whatever order they are given. Raises NotDurable, or QueueError."""

    def check(self, *, within: float, thorough: bool = False) -> None:
        """Raises QueueError if a put would not be kept durably now. Costs one cheap request.

        After any failure, a `thorough` check passes only once it has seen a put work.
        """

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        """Deletes a job unless a consumer has reserved it; returns whether it did. Raises QueueError."""

    def close(self) -> None:
        """Closes the idle connections. A later call opens new ones."""


class Receiver(Protocol):
    """Works jobs: one connection, which belongs to one thread of one process and is made after a fork.

    A delivery's next form is durable before its reservation ends: a crash in between makes a duplicate, never a loss.
    Each of `complete`, `retry`, `bury`, `release` raises JobNotFound if the job is no longer ours.
    """

    def reserve(self, tubes: Sequence[str], wait: float, finished: Reservation | None = None) -> Reservation | None:
        """The oldest ready job of these tubes, ours for its lease; None if none came within `wait` seconds.

        It may return None earlier, in time to extend the leases of our other reservations.
        `finished` is completed first, as by `complete`, in the same round trip where the engine can.
        """

    def extend(self, reservation: Reservation) -> None:
        """Begins its lease anew. May be called from another thread while no other call runs. Raises JobNotFound."""

    def complete(self, reservation: Reservation) -> None:
        """Removes the job: its work is done."""

    def retry(self, reservation: Reservation, body: bytes, *, delay: float, tube: str) -> str:
        """Replaces the job by the delivery's next form, ready after `delay` seconds; returns the new job's reference.

        Raises JobTooBig or QueueRefused with the reservation as it was, and JobNotFound without a next form.
        """

    def bury(self, reservation: Reservation, body: bytes | None = None) -> str:
        """Puts the delivery aside in this form (None: as it is) until an operator decides.

        Raises as `retry` does, and JobNotFound also if an operator took the new form before it was buried.
        """

    def release(self, reservation: Reservation) -> None:
        """Gives the job back as it is, ready at once; no loss is counted."""

    def close(self) -> None:
        """Closes the connection. The jobs it holds become ready at once, if the engine can do that."""

    def close_inherited(self) -> None:
        """Call in a forked child: closes its copy of the socket, so that the parent's reservations end with it."""


class Inspector(Protocol):
    """Looks at jobs and decides on them, for operators. One connection, for one thread of one process."""

    @property
    def engine(self) -> str:
        """The engine's name, for people."""

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""

    def set_deadline(self, deadline: float) -> None:
        """Later calls end by `deadline` (time.monotonic()): they raise QueueUnavailable then."""

    def status(self) -> EngineStatus:
        """The engine as a whole."""

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        """What is wrong with the engine, as far as cheap requests tell; with `thorough`, a line for every check.

        `tubes` are ours, `job_size` is the size of the largest job that we put, in bytes. Raises QueueError.
        """

    def explain(self, error: QueueError) -> Fact:
        """What to do about an error that a call of the engine raised."""

    def check(self) -> None:
        """Puts and deletes a job that no consumer sees. Raises QueueRefused if the engine takes no job now."""

    def counts(self, tubes: Sequence[str] | None = None) -> list[TubeCounts]:
        """The counts of these tubes; None: of all tubes that exist."""

    def first(self, state: WaitingState, tube: str) -> Job | None:
        """The tube's first job in this state: the next to be reserved, to be ready, or the first that was buried."""

    def find(
        self,
        states: frozenset[State],
        tubes: Sequence[str],
        *,
        hints: Sequence[str] = (),
        since: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Job]:
        """The jobs of these tubes in these states, newest first.

        The search ends once it has found as many jobs as the counts promised when it began. `hints` are references of
        jobs that may match: they are looked at first, and if they are all of them, nothing else is. `since` is a value
        of `newest`: only jobs that were put later count. `progress` is called with (looked at, total). Raises
        SearchIncomplete at the end if jobs are missing.
        """

    def newest(self) -> str:
        """A mark after all jobs put so far, for `since`. Raises QueueRefused if the engine takes no job now."""

    def is_ref(self, text: str) -> bool:
        """Whether an operator's text can only be a job's reference."""

    def get(self, ref: str) -> Job:
        """A job. Raises JobNotFound."""

    def peek(self, ref: str) -> bytes:
        """A job's body, by the cheapest look there is. Raises JobNotFound."""

    def insert(self, body: bytes, *, tube: str, state: WaitingState, delay: float = 0.0) -> str:
        """Puts a job in this state; returns its reference. `delay` is in seconds, for a delayed one.

        Raises JobTooBig, QueueRefused, or JobNotFound if another client took the job before it was buried.
        """

    def change(
        self, job: Job, *, state: WaitingState, body: bytes | None = None, tube: str = "", delay: float = 0.0
    ) -> str:
        """Changes the state of a waiting job, and its form or tube where given; returns its reference from then on.

        The new form is durable before the old one goes. Raises JobNotFound unless the job is still as it was seen.
        """

    def delete(self, job: Job) -> None:
        """Removes a job that no consumer has reserved. Raises JobNotFound."""

    def pause(self, tube: str, seconds: float) -> bool:
        """Pauses the tube: no job of it is reserved for `seconds`; 0 resumes it. False if the tube does not exist."""

    def close(self) -> None:
        """Closes the connection."""
