"""What glassq asks of a queue, by intent, in three roles: Producer, Receiver, Inspector.

An engine is a package beside this file; its classes carry its name (BeanstalkProducer), and engine.py says what else it
has. A job is a delivery in an engine, under a reference of the engine's own. Everywhere else the reference is an opaque
string. An engine may reuse references over time, so nothing is stored under one: operators name a delivery by its own
id.

Every call may raise QueueUnavailable; the next call connects again. After that error our reservations are lost, and
nobody knows whether the call took effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from glassq.errors import QueueError

# The states of a job that nobody works, and all states.
WaitingState = Literal["ready", "delayed", "buried"]
State = Literal["ready", "reserved", "delayed", "buried"]
WAITING_STATES: frozenset[WaitingState] = frozenset({"ready", "delayed", "buried"})
ALL_STATES: frozenset[State] = frozenset({"ready", "reserved", "delayed", "buried"})


class NewJob(msgspec.Struct, frozen=True):
    """A delivery to put: its id, its encoded form, the tube, and the delay until it is ready, in seconds."""

    key: str
    body: bytes
    tube: str
    delay: float = 0.0


class Receipt(msgspec.Struct, frozen=True):
    """The engine has taken this delivery. It is durable once `Producer.confirm` has returned for it.

    `server` says which run of the engine took it ("": the engine needs no such mark).
    """

    key: str
    ref: str
    server: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """The engine has not taken this delivery, because of `error`.

    With `in_doubt` the connection broke before the answer came: the engine may have taken it all the same.
    """

    key: str
    error: QueueError
    in_doubt: bool = False


class Reservation(msgspec.Struct, frozen=True):
    """A job that is ours until its lease ends, which is in `lease` seconds at the earliest. It can be extended.

    `tube` is "" where the engine did not say which of several it was. `losses` is the number of attempts at this job
    that died with their process, None if nobody has looked. `kicked`: an operator has asked for another attempt since
    the put, as far as somebody has looked. `Receiver.examine` looks. `handle` is what `Receiver.free` needs, of an
    engine that is `Capabilities.bearer`.
    """

    ref: str
    tube: str
    body: bytes
    lease: float
    losses: int | None = None
    kicked: bool = False
    handle: str = ""


class Job(msgspec.Struct, frozen=True):
    """A job in the queue. Times are in seconds.

    `age` is the time since the put, and `time_left` the time until a delayed job is ready, or until a lease ends.
    `ready_for` is how long a ready job has been ready, None if the engine cannot tell. `losses` and `kicked` are as in
    Reservation. Not `durable`: it is in memory only. `counters` are the engine's counters of the job, for people.
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
    counters: Mapping[str, int] = {}


class NewForm(msgspec.Struct, frozen=True):
    """A job that an operator puts: its body, its tube, its state, and for a delayed job its delay in seconds."""

    body: bytes
    tube: str
    state: WaitingState
    delay: float = 0.0


class Change(msgspec.Struct, frozen=True):
    """What becomes of a waiting job: another state, and a new body or tube if given. `delay` is as in NewForm."""

    job: Job
    state: WaitingState
    body: bytes | None = None
    tube: str = ""
    delay: float = 0.0


class TubeCounts(msgspec.Struct, frozen=True):
    """The number of jobs of a tube in each state, and of consumers that wait for one; all 0 if there is no such tube.

    `paused_for` is the time until the tube goes on, in seconds; 0 if it is not paused. `pause` is the length of that
    pause in all (None: the engine knows its end alone). `total` and `deleted` are how many jobs were put and deleted
    since the server started, or the tube began: their growth is what comes and goes. A delivery that is tried again is
    another job. None: the engine does not count them.
    """

    name: str
    ready: int = 0
    reserved: int = 0
    delayed: int = 0
    buried: int = 0
    waiting: int = 0
    paused_for: int = 0
    total: int | None = None
    deleted: int | None = None
    pause: int | None = None

    @property
    def jobs(self) -> int:
        """All jobs of the tube."""
        return self.ready + self.reserved + self.delayed + self.buried


class EngineGauge(msgspec.Struct, frozen=True):
    """A metric that only this engine has."""

    name: str
    help: str
    value: float


class EngineStatus(msgspec.Struct, frozen=True):
    """The engine as a whole.

    `uptime` is in seconds, `max_job` is the maximum size of a job in bytes. `durable`: the engine writes new jobs to
    disk, as far as that is known without a put. `unproven` says why nobody can prove that now; not `durable` then.
    `accepting`: it takes jobs. `consumers` is the number of open connections that have reserved a job. `details` are
    facts that only this engine has, for machines: no code of ours reads them. `behind`: a server answers that takes no
    writes, and may not have the last of them (a standby).
    """

    engine: str
    version: str
    uptime: int
    durable: bool
    accepting: bool
    consumers: int
    max_job: int
    unproven: str = ""
    behind: bool = False
    details: Mapping[str, object] = {}
    gauges: tuple[EngineGauge, ...] = ()


class Fact(msgspec.Struct, frozen=True):
    """A fact about an engine: good (`ok`), bad, or neither (None). `todo` is what to do about it.

    `files_lost`: files that the engine has written are no longer there. Commands of ours appear in `todo` in
    backquotes: `glassq ...`.
    """

    name: str
    ok: bool | None
    said: str
    todo: str = ""
    files_lost: bool = False

    def __str__(self) -> str:
        return f"{self.said}: {self.todo}" if self.todo else self.said


class Happened(msgspec.Struct, frozen=True):
    """Something that the engine has recorded of a delivery, in words, and when that was."""

    at: datetime
    words: str


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do. An operation that needs more names the missing capability and does nothing.

    `lists`: the states whose jobs can be found. `oldest`: the next job of a tube can be seen. `exact_counts`: counts
    are up to date. `by_key`: a delivery can be found by its id without a search. `pause`: a tube can be paused, and
    `keeps_pause`: a restart does not end that. `max_delay`, `max_lease` in seconds. `expires`: a lease that nobody
    extends ends by itself; else perhaps only with its connection, or at that connection's next call. `frees_at_once`:
    the jobs of a dead consumer are ready at once. `fenced`: a consumer that has lost a lease cannot settle the job.
    `many_held`: one receiver can hold several reservations. `exact_losses`: losses are counted, not guessed. `atomic`:
    the end of a reservation and the delivery's next form happen together or not at all. `keeps_for`: how long the
    engine keeps a job, in seconds; None: for ever. `withdraws`: a job that nobody has can be withdrawn. `bearer`: a
    reservation belongs to no connection; whoever knows its handle can end it. `sees_consumers`: the engine tells who
    waits, and who is connected. `buries_in_place`: to bury or to kick a job as it is needs no put. `never_forgets`:
    nobody can configure the engine so that it forgets what it has answered. `metered`: each look costs money, or counts
    against a limit of the account, so whoever watches looks less often. `unseen` says for people why jobs of other
    states than `lists` cannot be found, and what works.
    """

    lists: frozenset[State]
    oldest: bool
    exact_counts: bool
    by_key: bool
    pause: bool
    keeps_pause: bool = False
    max_delay: float
    max_lease: float
    expires: bool
    frees_at_once: bool
    fenced: bool
    many_held: bool
    exact_losses: bool
    atomic: bool
    keeps_for: float | None
    withdraws: bool = True
    bearer: bool = False
    sees_consumers: bool = True
    buries_in_place: bool = True
    never_forgets: bool = False
    metered: bool = False
    unseen: str = ""


class Producer(Protocol):
    """Puts deliveries. One serves all threads of a process; it may be made before a fork and used after it."""

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        """Puts the jobs in order, in as few packets as it can, within this number of seconds. A result for each.

        A bad job is refused alone. After the connection broke, all jobs without an answer are refused; those that had
        been sent are in doubt. With `again` they are put once more on a new connection: a job that is in doubt may be
        worked twice rather than not at all.
        """

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        """Returns once these deliveries, in any order, are proven durable: one proof for all of them.

        Raises NotDurable if they are not (put them again), NoProof if nobody knows in time, or QueueError.
        """

    def check(self, *, within: float) -> None:
        """Raises QueueError if a put would not be durable now. Asks one cheap question.

        It also tests what has failed since the last check, until it works again.
        """

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        """Deletes a job that nobody has reserved yet; whether it could. Raises QueueError."""

    def close(self) -> None:
        """Closes the connections that nobody uses now. The next call opens new ones."""


# A receiver leaves at most so many next forms unproven; what it holds when its process dies is worked twice. So many
# quick failures fit into one proof of a disk whose fsync takes 2 ms, on a busy machine. Of jobs that are only moved,
# more share a proof: one that waits behind ten thousand others is reached the sooner.
MAX_UNPROVEN, MAX_UNPROVEN_MOVES = 16, 64


class Receiver(Protocol):
    """Reserves and settles jobs: one connection for one thread of one process, made after a fork.

    The delivery's next form is proven durable before its reservation ends: after a crash in between, the delivery is
    worked twice rather than not at all. `complete`, `retry`, `bury` and `release` raise JobNotFound if the job is no
    longer ours. The first three take `then`: the tubes to reserve the next job from in the same round trip, if the
    engine can. The next `reserve` returns that job.
    """

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        """Reserves the oldest ready job of these tubes; None if none came for `wait` seconds, or after `interrupt`.

        It may return None earlier, so that the leases of our other reservations can be extended in time.
        """

    @property
    def has_next(self) -> bool:
        """Whether a job has come with the end of another one: the next `reserve` returns it, unless it is late by then.

        Asks the engine nothing, and never raises.
        """

    def filled(self, prefixes: tuple[str, ...]) -> list[str]:
        """The tubes that hold jobs and whose names begin with one of these. Raises QueueError."""

    def named(self, prefix: str) -> list[str]:
        """The tubes that exist and whose names begin so; some may hold no jobs. Raises QueueError."""

    def is_paused(self, tube: str) -> bool:
        """Whether an operator has paused the tube. Raises QueueError."""

    def interrupt(self) -> None:
        """Ends a `reserve` that waits, if the engine can; no later one waits.

        For a signal handler, and for another thread. A job that comes at that moment goes back, as at `close`.
        """

    def examine(self, reservation: Reservation) -> Reservation:
        """The reservation with all facts, at the price of a round trip. Raises JobNotFound."""

    def extend(self, reservation: Reservation) -> float:
        """Restarts its lease, and returns it in seconds. Another thread may call it while no other call runs.

        Raises JobNotFound.
        """

    def complete(
        self,
        reservation: Reservation,
        *,
        then: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        """Deletes the job, because its work is done.

        `meanwhile` is called while the engine works, if it is asked something: the time until its answer is not lost.

        With `failed` several jobs may be reserved from the tubes of `then`, where one after the other is worked in no
        time; and it may return before the engine has answered. What goes wrong later is told to `failed`. Those that
        wait behind a job that takes longer go back, by `begin` or `tend`.
        """

    def retry(
        self,
        reservation: Reservation,
        body: bytes,
        *,
        delay: float,
        tube: str,
        then: Sequence[str] = (),
        failed: Callable[[QueueError], None] | None = None,
    ) -> str:
        """Replaces the job by the delivery's next form, ready after `delay` seconds; returns the new reference.

        After JobTooBig, QueueRefused or NoProof the reservation is unchanged, and the next form is withdrawn, unless
        another consumer has it. After JobNotFound there is no next form either.

        With `failed` it may return before the next form is proven: the old one stays ours until then. What goes wrong
        later is told to `failed`. After QueueRefused or NoProof the job has been released by then, and the next
        `reserve` raises the error as well.
        """

    def move(
        self,
        reservation: Reservation,
        body: bytes,
        *,
        tube: str,
        put: Callable[[str], None],
        then: Sequence[str] = (),
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        """Puts the delivery into another tube, ready at once, and calls `put(tube)` once it is there. Else as `retry`.

        With `failed`, many moves share a packet and a proof, and `put` is called once for all of a packet into a tube.
        The packet goes at the latest with `begin`, or with the `reserve` that finds no job reserved ahead. JobTooBig is
        told to `failed` as well; the reservation is unchanged then.
        """

    def begin(self) -> None:
        """Call before a handler starts, or before a while without a reserve: gives back what has waited for too long.

        Of jobs that are only moved, all that were reserved ahead go back. Raises QueueError if the connection breaks.
        """

    @property
    def unproven(self) -> int:
        """How many jobs it may hold beside the one in hand, until the next `reserve`.

        They are reserved ahead, or ended without an answer, or their next form is not proven yet.
        """

    def tend(self) -> None:
        """Finishes what `complete` and `retry` have begun, without much waiting; what has waited for long goes back.

        From any thread, like `extend`, while a handler runs. Raises QueueError if the connection breaks: the job in
        hand is then no longer ours either.
        """

    def finish(self) -> None:
        """Finishes what `complete` and `retry` have begun, as `close` does. Raises QueueError as `reserve` would."""

    def bury(self, reservation: Reservation, body: bytes | None = None, *, then: Sequence[str] = ()) -> str:
        """Buries the delivery (dead-letters it) in this form (None: as it is); raises as `retry` does.

        Raises JobNotFound also if an operator took the new form before it was buried; the new form then stays.
        """

    def release(self, reservation: Reservation) -> None:
        """Releases the job as it is, ready at once. No loss is counted, as far as the engine can avoid that."""

    def free(self, handle: str) -> None:
        """Gives back what a dead process held, whose handle it left: ready, with a lost attempt.

        For an engine that is `Capabilities.bearer`; others need none. It may come too late, and never raises.
        """

    def close(self) -> None:
        """Closes the connection. Reserved jobs become ready at once if the engine can do that.

        A job that no `reserve` has returned yet is released: no loss is counted.
        """

    def close_inherited(self) -> None:
        """Call in a forked child: closes its copy of the socket, so that the parent's reservations end with it."""


class Inspector(Protocol):
    """Shows and changes jobs, for operators. One connection for one thread of one process."""

    @property
    def engine(self) -> str:
        """The engine's name, for people."""

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""

    def set_deadline(self, deadline: float) -> None:
        """From now on a call that is not done at `deadline` (time.monotonic()) raises QueueUnavailable."""

    def only_looks(self) -> None:
        """Nothing is changed by this one: a server that takes no writes may answer, and be behind (a standby).

        An engine that is `Capabilities.metered` may count once for all that asks within a second; after another call of
        this it counts anew.
        """

    def status(self) -> EngineStatus:
        """The status of the engine as a whole."""

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        """The engine's troubles, found by cheap questions; with `thorough`, all facts that are worth a line.

        `tubes` are our tubes, `job_size` is the size of the largest job that we put, in bytes. Raises QueueError.
        """

    def explain(self, error: QueueError) -> Fact:
        """The error of a call as a fact, with what to do about it."""

    def check(self, *, aside: bool = False) -> None:
        """Raises QueueRefused if the engine takes no jobs now. Tries it with a job that nobody works.

        With `aside` also if it can bury none now, or none can be due in a long time.
        """

    def counts(self, tubes: Sequence[str] | None = None, *, states: frozenset[State] = ALL_STATES) -> list[TubeCounts]:
        """The counts of these tubes; None: of all tubes that exist.

        With `states` the numbers of these are wanted alone, and tubes that have such jobs: an engine may leave out all
        else, where that saves calls.
        """

    def tubes(self) -> list[str]:
        """The names of all tubes that exist, at the least cost."""

    def first(self, state: WaitingState, tube: str) -> Job | None:
        """The tube's first job in this state: the oldest ready, the next delayed, or the first buried one."""

    def find(
        self,
        states: frozenset[State],
        tubes: Sequence[str],
        *,
        hints: Sequence[str] = (),
        since: str = "",
        wanted: Callable[[str], bool] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Job]:
        """The jobs of these tubes in these states, newest first.

        The search ends when it has found as many jobs as the counts promised at its start. `hints` are references of
        jobs that may match: the search examines them first, and nothing else if they are all that it needs. With
        `since`, a result of `newest`, it yields only jobs that were put later. With `wanted` it may leave out what has
        an id that `wanted` refuses: an engine that is `Capabilities.by_key` need not read that. It calls
        `progress(examined, total)`.
        Raises SearchIncomplete at the end if it could not find all jobs.
        """

    def newest(self) -> str:
        """A mark after all jobs so far, for `since`. Raises QueueRefused if the engine takes no jobs now."""

    def is_ref(self, text: str) -> bool:
        """Whether an operator's text can only be a job's reference."""

    def ref_of(self, key: str) -> str:
        """The reference of the job of the delivery with this id, if there is one, of an engine that is `by_key`."""

    def get(self, ref: str) -> Job:
        """The job with this reference. Raises JobNotFound."""

    def get_all(self, refs: Sequence[str]) -> list[Job | QueueError]:
        """The jobs with these references: for each the job, or why it cannot be seen. Never raises."""

    def still(self, refs: Sequence[str], state: State) -> list[bool]:
        """For each of these jobs, whether it is in this state: without their bodies. Raises QueueError."""

    def history(self, key: str) -> list[Happened]:
        """What the engine has recorded of the delivery with this id, oldest first; nothing where it records nothing.

        Also of one that is over, for as long as the engine keeps that. Raises QueueError.
        """

    def peek(self, ref: str) -> bytes:
        """A job's body, at the least cost. Raises JobNotFound."""

    def peek_all(self, refs: Sequence[str]) -> list[bytes | QueueError]:
        """The same of these jobs: for each its body, or why it cannot be seen. Never raises."""

    def insert(self, body: bytes, *, tube: str, state: WaitingState, delay: float = 0.0) -> str:
        """Puts a job in this state; returns its reference. `delay` is in seconds, for a delayed job.

        On return it is durable. Raises JobTooBig, QueueRefused, NoProof, or JobNotFound if a consumer reserved the job
        before it was buried.
        """

    def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        """Puts these jobs in order, with one proof for all of them: for each its reference, or why it is not there.

        An error that holds for all that are left stands at each of them. Never raises.
        """

    def change(
        self, job: Job, *, state: WaitingState, body: bytes | None = None, tube: str = "", delay: float = 0.0
    ) -> str:
        """Gives a waiting job another state, and a new body or tube if given; returns its new reference.

        The new form is durable before the old one is deleted. Raises JobNotFound if `job` is no longer as it was seen.
        """

    def change_all(self, changes: Sequence[Change]) -> list[str | QueueError]:
        """Changes these jobs: puts all new forms, has them proven once, and only then deletes the old ones.

        For each job its new reference, or why it is as it was, as `insert_all`. After QueueUnavailable both forms of a
        job may be there, or the new one alone. A change that makes no new form needs no proof.
        """

    def delete(self, job: Job) -> None:
        """Deletes a job that nobody has reserved. Raises JobNotFound."""

    def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]:
        """Deletes these jobs: for each None, or why it is still there; `insert_all` says more."""

    def pause(self, tube: str, seconds: float) -> bool:
        """Pauses the tube for this time; 0 ends the pause. False if the tube does not exist now."""

    def close(self) -> None:
        """Closes the connection."""
