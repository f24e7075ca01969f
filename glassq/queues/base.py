"""What glassq asks of a queue, by intent, in three roles: Producer, Receiver, Inspector.

An engine is a package beside this file; its classes carry its name (BeanstalkProducer). A job is what an engine holds:
a delivery under a reference of the engine's own, which is an opaque string everywhere else. References may be given
again over time, so nothing is kept under one: what an operator names is the delivery's own id.

Every call may raise QueueUnavailable; the next one connects anew. After it, reservations are no longer ours, and what
was asked for may have happened or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.errors import QueueError

# What a job is while nobody works it, and what it is at all.
WaitingState = Literal["ready", "delayed", "buried"]
State = Literal["ready", "reserved", "delayed", "buried"]
WAITING_STATES: frozenset[WaitingState] = frozenset({"ready", "delayed", "buried"})
ALL_STATES: frozenset[State] = frozenset({"ready", "reserved", "delayed", "buried"})


@dataclass(frozen=True, slots=True)
class NewJob:
    """A delivery to put: its id, its encoded form, where to, and after how many seconds it is ready."""

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
    """A job that is ours until its lease of so many seconds ends, unless it is extended.

    `losses` is how many attempts at this job ended with their process. With `kicked` an operator asked for another try
    since it was put. `undelayed`: it was ready from the start. Without `durable` the engine keeps it in memory only.
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
    Reservation. `counters` is what the engine counts of it, for people.
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
    """How many jobs of a tube are in which state, and how many consumers wait for one; all zero where there is none.

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
    disk, as far as can be told without a put. `accepting`: it takes jobs. `consumers` are the connections that have
    reserved so far and are still there. `details` is what only this engine tells, for machines.
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
    """Something that an engine tells of itself: fine (`ok`), wrong, or neither (None), and what to do about it.

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
        """Where the server keeps its files, each with what it keeps there; nothing where it runs elsewhere."""

    def other_server(self, active: str, boots: str) -> Iterator[Fact]:
        """What to do about `other_unit`, whose ActiveState and UnitFileState these are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do. An operation that needs more refuses by name before it does anything.

    `lists`: jobs of these states can be found. `oldest`: the next job of a tube can be seen. `exact_counts`: counts are
    those of this moment. `by_key`: a delivery is found by its id without a search. `pause`: a tube can be paused.
    `max_delay`, `max_lease` in seconds. `frees_at_once`: the jobs of a consumer that dies are ready at once. `fenced`:
    who has lost a lease cannot settle. `many_held`: one receiver holds several reservations. `exact_losses`: losses are
    counted, not guessed. `atomic`: an outcome and its new form happen together or not at all. `keeps_for` in seconds;
    None: for ever.
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
        """Puts them in order within so many seconds, and says of each what came of it.

        A bad job refuses itself alone; after a connection broke, the rest is refused. With `again` what is in doubt is
        put once more on a new connection: worked twice rather than not at all.
        """

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        """Returns when these are proven durable. Raises NotDurable, or QueueError."""

    def check(self, *, within: float, thorough: bool = False) -> None:
        """Raises QueueError where a put would not be kept durably now: by one cheap question.

        A `thorough` check also believes nothing that failed since the last one until it has seen it work.
        """

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        """Deletes what nobody has reserved yet; whether it could. Raises QueueError."""

    def close(self) -> None:
        """Closes the connections that nobody uses now; more are made where they are needed."""


class Receiver(Protocol):
    """Works jobs: one connection, which belongs to one thread of one process and is made after a fork.

    What follows from a reservation is durable before the reservation ends: where we die in between, the delivery is
    worked twice rather than not at all. Each of `complete`, `retry`, `bury`, `release` raises JobNotFound where the job
    is no longer ours.
    """

    def reserve(self, tubes: Sequence[str], wait: float, finished: Reservation | None = None) -> Reservation | None:
        """The oldest ready job of these tubes, ours for its lease; None where none came for `wait` seconds.

        None may come earlier, so that leases of other reservations of ours can be extended in time.
        `finished` is completed first, as by `complete`, in the same round trip where the engine can.
        """

    def extend(self, reservation: Reservation) -> None:
        """Begins its lease anew. May be called from another thread while no other call runs. Raises JobNotFound."""

    def complete(self, reservation: Reservation) -> None:
        """Its work is done: the job goes."""

    def retry(self, reservation: Reservation, body: bytes, *, delay: float, tube: str) -> str:
        """The delivery's next form takes its place, ready after `delay` seconds; returns that job's reference.

        Raises JobTooBig or QueueRefused with the reservation as it was. With JobNotFound there is no next form either.
        """

    def bury(self, reservation: Reservation, body: bytes | None = None) -> str:
        """Puts the delivery aside in this form (None: as it is) until an operator decides; raises as `retry` does."""

    def release(self, reservation: Reservation) -> None:
        """Gives the job back as it is, ready at once; no loss is counted."""

    def close(self) -> None:
        """Closes the connection; what is reserved becomes ready at once where the engine can."""

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
        """From now on no call goes on past `deadline` (time.monotonic()): it raises QueueUnavailable then."""

    def status(self) -> EngineStatus:
        """The engine as a whole."""

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        """What is wrong with the engine, by cheap questions; with `thorough`, everything that is worth a line.

        `tubes` are ours, `job_size` is the largest job that we put, in bytes. Raises QueueError.
        """

    def explain(self, error: QueueError) -> Fact:
        """What to do about an error that the engine's calls raised."""

    def check(self) -> None:
        """Raises QueueRefused where no job would be taken now, tried with one that nobody works."""

    def counts(self, tubes: Sequence[str] | None = None) -> list[TubeCounts]:
        """The counts of these tubes; without any, those of all tubes that exist."""

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

        It ends as soon as it has found as many as the counts promised when it began. `hints` are references of jobs
        that may be such: they are looked at first, and where they are all, nothing else is. `since` is what `newest`
        returned: only jobs that were put later. `progress` is told how many of how many it has looked at. Raises
        SearchIncomplete at the end where not all could be found.
        """

    def newest(self) -> str:
        """A mark behind all jobs put so far, for `since`. Raises QueueRefused where no job is taken now."""

    def is_ref(self, text: str) -> bool:
        """Whether an operator's text can only be a job's reference."""

    def get(self, ref: str) -> Job:
        """A job. Raises JobNotFound."""

    def peek(self, ref: str) -> bytes:
        """A job's body, by the cheapest look there is. Raises JobNotFound."""

    def insert(self, body: bytes, *, tube: str, state: WaitingState, delay: float = 0.0) -> str:
        """Puts a job in this state; returns its reference. `delay` is in seconds, for a delayed one.

        Raises JobTooBig, QueueRefused, or JobNotFound where somebody took it before it was buried.
        """

    def change(
        self, job: Job, *, state: WaitingState, body: bytes | None = None, tube: str = "", delay: float = 0.0
    ) -> str:
        """Gives a waiting job another state, and another form or tube where given; returns its reference from then on.

        The new form is kept before the old one goes. Raises JobNotFound unless the job is still as it was seen.
        """

    def delete(self, job: Job) -> None:
        """Removes a job that nobody has reserved. Raises JobNotFound."""

    def pause(self, tube: str, seconds: float) -> bool:
        """Nobody reserves from the tube for so long; 0: it goes on. False for a tube that does not exist now."""

    def close(self) -> None:
        """Closes the connection."""
