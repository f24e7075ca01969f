"""What is being done: each run carries out one plan, in a thread and on a connection of its own.

It goes on when the browser is closed, and ends between two deliveries when somebody stops it, or the console ends.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq.console.alone import SharedState
from glassq.console.plans import ActionPlan, new_id, reasons
from glassq.console.slots import RunSlots
from glassq.console.troubles import problem_of
from glassq.errors import Conflict, GlassqError, LedgerError, NotFound, SettingsError, Stopped
from glassq.log import fields, logger
from glassq.operations import activity as activities
from glassq.operations import archive, restore
from glassq.operations.activity import CameTo
from glassq.operations.pace import AT_ONCE
from glassq.operations.progress import Silent
from glassq.operations.result import Did, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from datetime import datetime

    from glassq.console.plans import RunFollower, Work
    from glassq.console.roles import Actor
    from glassq.ledger.activity import Activity
    from glassq.operations import Operations
    from glassq.operations.pace import Pace
    from glassq.queues.base import Inspector

log = logger("glassq.console")

# So many run at a time; the others wait.
AT_A_TIME = 2
# And so many wait, or go on, at all: each has a thread.
MOST_AT_ONCE = 50
# Of those that are over, so many are kept; the ledger has the others.
MOST_KEPT = 200
# How often the ledger is told how far a run is, in seconds; and how long a stop of the console waits for runs.
TOLD_EVERY, PATIENCE = 2.0, 15.0
# So many steps and reasons are told.
MOST_STEPS = 100
# What an archive's report says of the way back.
_FILE = re.compile(r"`glassq restore ([^`]+)`")
OUTCOMES = "outcomes so far"


@dataclass(slots=True)
class Run:
    """A run, as it is now. Its thread writes it, others read.

    `state` is "waiting", "running", "done", "stopped", "failed" or "interrupted" (the console ended). `done` of `total`
    were dealt with, `doing` says what is done right now. `steps` are what happened, `sums` counts what came of the
    deliveries, `outcomes` what their work came to, `failed` says what failed again. `file` holds what was archived, and
    `undo` is the run that puts it back, or was to.
    """

    id: str
    kind: str
    title: str
    actor: str
    began: datetime
    total: int
    command: str = ""
    plan: ActionPlan | None = None
    ended: datetime | None = None
    state: str = "waiting"
    done: int = 0
    doing: str = ""
    steps: tuple[tuple[datetime, str], ...] = ()
    sums: dict[str, int] = field(default_factory=dict)
    left_out: tuple[tuple[str, int], ...] = ()
    failed: tuple[str, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)
    error: str = ""
    todo: str = ""
    file: str = ""
    undo: Run | None = None

    @property
    def can_stop(self) -> bool:
        """Whether it goes on."""
        return self.ended is None

    @property
    def can_undo(self) -> bool:
        """Whether what it archived can be put back."""
        undone = self.undo is not None and (self.undo.can_stop or self.undo.is_whole)
        return bool(self.file and self.ended and not undone)

    @property
    def is_whole(self) -> bool:
        """Whether it did all that it was to do, or found it done."""
        return self.state == "done" and not self.sums.get(Did.NOTHING)

    @property
    def undone_by(self) -> str:
        """The id of its undo; "" where there is none."""
        return self.undo.id if self.undo else ""

    def document(self) -> dict[str, Any]:
        """The run for JSON."""
        names = [name for name in self.__dataclass_fields__ if name not in ("plan", "steps", "left_out", "undo")]
        told = {name: getattr(self, name) for name in (*names, "undone_by")}
        steps = [{"at": at, "words": words} for at, words in self.steps]
        return {**told, "left_out": dict(self.left_out), "steps": steps}


class RunProgress:
    """The Progress of a run: numbers that pages show, and a flag that ends it."""

    def __init__(self, run: Run, slots: RunSlots, clock: Callable[[], datetime], told: Callable[[], None]) -> None:
        """`told` is called now and then, once the numbers have changed."""
        self._run = run
        self._slots = slots
        self._clock = clock
        self._told = told
        self._next = time.monotonic() + TOLD_EVERY
        self._followed = 0
        self.stopping = threading.Event()

    def advance(self, done: int, total: int, words: str) -> None:
        """Raises Stopped."""
        run = self._run
        if words == archive.WRITING:
            run.doing = f"{words}: {done} of {total}"
        elif words == OUTCOMES:
            # others may work meanwhile
            self._slots.give(run.id)
            if not self._followed:
                self.note(f"{total} kicked: waiting for what comes of {'it' if total == 1 else 'them'}")
            self._followed = total
            run.doing = f"waiting for outcomes, {done} of {total} are here"
        else:
            self.begin()
            if self._followed:
                went = "1 went well" if self._followed == 1 else f"{self._followed} went well"
                self.note(f"{went}: the next ones follow")
                self._followed = 0
            run.done, run.doing = done, words
        if time.monotonic() > self._next:
            self._told()
            self._next = time.monotonic() + TOLD_EVERY
        self.wait(0)

    def begin(self) -> None:
        """Returns once the run may work. Raises Stopped."""
        run = self._run

        def waits(words: str) -> None:
            run.doing = words

        self._slots.take(run.id, f'"{run.title}" by {run.actor}', self, waits)

    def archived_in(self, file: Path) -> None:
        """The file is the run's, and the ledger knows it before anything leaves the queue."""
        self._run.file = str(file)
        self._told()

    def wait(self, seconds: float) -> None:
        """Raises Stopped."""
        if self.stopping.wait(max(0.0, seconds)):
            raise Stopped

    def defer_signals(self) -> AbstractContextManager[None]:
        """Signals end no thread."""
        return nullcontext()

    def warn(self, words: str) -> None:
        """A step."""
        self.note(words)

    def note(self, words: str) -> None:
        """A step."""
        self._run.steps = (*self._run.steps, (self._clock(), words))[-MOST_STEPS:]


class Runs:
    """All runs of this process; those before it are in the ledger."""

    def __init__(
        self,
        operations_for: Callable[[Actor], Operations],
        itself: Operations,
        instance: str,
        left: Callable[[Iterable[str]], None],
        directory: Path,
    ) -> None:
        """`itself` are the operations of the console; its runs' ids begin with `instance`.

        The processes of this console share the directory. `left` is told the references of jobs that are perhaps not
        buried any more.
        """
        self._operations_for = operations_for
        self._itself = itself
        self._instance = instance
        self._left = left
        self._lock, self._undoing = threading.Lock(), threading.Lock()
        self._runs: dict[str, Run] = {}
        self._stops: dict[str, RunProgress] = {}
        self._threads: list[threading.Thread] = []
        self._undos: dict[str, Run] = {}
        self._slots = RunSlots(AT_A_TIME)
        self._shared = SharedState(directory)
        self._closing = False

    def start(self) -> None:
        """Marks what an earlier process did not bring to its end: killed, it could not."""
        try:
            self._shared.join()
            self._mark()
        except (OSError, LedgerError, SettingsError) as error:
            # it is tried again as soon as somebody looks at such a run
            log.warning("runs that were interrupted cannot be marked %s", fields(why=error))

    def _mark(self) -> None:
        """Marks runs that no process carries out. Raises OSError, LedgerError and SettingsError."""
        if not self._shared.is_alone():
            return
        unended = activities.newest(self._itself, state="running")
        written = self._itself.activities(Silent())
        for each in unended:
            if each.via == "console" and each.run.startswith(self._instance) and each.run not in self._runs:
                log.warning("a run was interrupted %s", fields(run=each.run, actor=each.actor, did=each.did))
                words = f"the console ended; until then {each.done} of {each.chosen}"
                # the note before says the way back
                note = "; ".join(filter(None, (words, each.note)))
                written.end(each.id, CameTo("interrupted", note=note))

    def close(self) -> None:
        """Has all runs end between two deliveries, and record how far they came."""
        with self._lock:
            self._closing = True
            threads, stops = self._threads, list(self._stops.values())
        for progress in stops:
            progress.stopping.set()
        until = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._shared.leave()

    def begin(self, plan: ActionPlan, actor: Actor, pace: Pace = AT_ONCE, command: str = "") -> str:
        """Begins to carry out a plan; the run's id. Raises Conflict while the console ends."""
        operations = self._operations_for(actor)
        id_ = f"{self._instance}{new_id()}"
        run = Run(id_, plan.kind, plan.title, actor.identity, operations.clock(), plan.chosen, command)
        run.plan = replace(plan, work=_done, jobs=())
        carrying = _Carrying(run, plan, operations, pace, self._slots, self._is_closing)
        with self._lock:
            if self._closing:
                raise Conflict("the console is about to end")
            if len(self._stops) >= MOST_AT_ONCE:
                raise Conflict(f"{MOST_AT_ONCE} runs go on or wait already: look at them first (`glassq activity`)")
            self._forget()
            self._runs[id_], self._stops[id_] = run, carrying.progress
            thread = threading.Thread(target=self._carry, args=(carrying,), name=f"run {id_}", daemon=True)
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
            thread.start()
        return id_

    def get(self, id_: str) -> Run:
        """The run. Raises NotFound; LedgerError and SettingsError where the ledger cannot be asked for an older one."""
        with self._lock:
            run = self._runs.get(id_)
        if run is None:
            run = self._recorded(id_)
            run.undo = self._undos.get(id_) or self._recorded_undo(run)
        return run

    def _recorded(self, id_: str) -> Run:
        """The run as the ledger has it."""
        run = self._read(id_)
        if run.ended is None:
            with suppress(OSError):
                self._mark()
            run = self._read(id_)
        return run

    def _read(self, id_: str) -> Run:
        with self._itself.ledger() as ledger:
            told = ledger.activities(run=id_)
        if not told:
            raise NotFound("there was no such run, or the ledger has forgotten it")
        return _from_ledger(told[-1])

    def _recorded_undo(self, run: Run) -> Run | None:
        """The run before this process that put back what the run archived, or was to; the newest."""
        if not run.file:
            return None
        undoing = f"glassq {_restore(run.file)}"
        with self._itself.ledger() as ledger:
            told = ledger.activities(did="restore", since=run.began)
        return next((_from_ledger(each) for each in told if each.run and each.command == undoing), None)

    def stop(self, id_: str, actor: Actor) -> None:
        """Ends it between two deliveries; does nothing to one that is over. Raises NotFound and Conflict."""
        run = self.get(id_)
        progress = self._stops.get(id_)
        if run.ended is None and id_ not in self._runs:
            raise Conflict("another process of the console carries it out, or nobody knows: it cannot be stopped here")
        if run.ended is None and progress is not None and not progress.stopping.is_set():
            progress.note(f"{actor.identity} stops it")
            progress.stopping.set()

    def undo(self, id_: str, actor: Actor) -> str:
        """Puts back what the run archived; the id of the run that does, or did. Raises NotFound and Conflict.

        What failed, or was stopped, may be undone again: what is back already is left out.
        """
        with self._undoing:
            run = self.get(id_)
            if run.can_undo:
                run.undo = self._undos[id_] = self._runs[self._undo(run, actor)]
            return run.undone_by or self._undo(run, actor)

    def _undo(self, run: Run, actor: Actor) -> str:
        if not run.can_undo:
            raise Conflict("this run archived nothing, or goes on: only what is in a file can be put back")
        count = run.sums.get(Did.ARCHIVED, run.done)
        plan = ActionPlan(
            id=new_id(),
            kind="restore",
            title=f"Put {count} back, buried as they were",
            maker=actor.identity,
            made=self._itself.clock(),
            chosen=count,
            work=restoring(Path(run.file)),
            cause=run.plan.cause if run.plan else "",
        )
        return self.begin(plan, actor, command=_restore(run.file))

    def _carry(self, carrying: _Carrying) -> None:
        try:
            carrying.carry_out()
        finally:
            with self._lock:
                self._stops.pop(carrying.run.id, None)
            self._left(job.ref for job in carrying.plan.jobs)

    def _is_closing(self) -> bool:
        return self._closing

    def _forget(self) -> None:
        over = [id_ for id_, run in self._runs.items() if run.ended is not None]
        for id_ in over[:-MOST_KEPT]:
            del self._runs[id_]
            self._undos.pop(id_, None)


class _Carrying:
    """What one thread does."""

    def __init__(
        self,
        run: Run,
        plan: ActionPlan,
        operations: Operations,
        pace: Pace,
        slots: RunSlots,
        closing: Callable[[], bool],
    ) -> None:
        self.run, self.plan = run, plan
        self._operations, self._pace, self._slots, self._closing = operations, pace, slots, closing
        self.progress = RunProgress(run, slots, operations.clock, self._tell)
        self._written = operations.activities(self.progress)
        self._activity = ""

    def carry_out(self) -> None:
        run = self.run
        about = {"command": f"glassq {run.command}" if run.command else "", "filter_": self.plan.filter_}
        self._activity = self._written.begin(run.kind, chosen=run.total, run=run.id, **about)
        report = self._report()
        came_to = CameTo.of_report(report, run.total)
        if came_to.state == "stopped" and self._closing():
            came_to = replace(came_to, state="interrupted")
        self._show(report, came_to)
        self._written.end(self._activity, came_to)
        run.ended, run.state = self._operations.clock(), came_to.state

    def _report(self) -> Report:
        """What came of it. It raises nothing."""
        run = self.run
        try:
            self.progress.begin()
            run.state, run.doing = "running", ""
            with self._operations.queue() as queue:
                return self.plan.work(self._operations, queue, self.progress, self._pace)
        except GlassqError as error:
            return Report(error=error)
        except Exception as error:
            log.error("bug in a run of glassq-console %s", fields(run=run.id), exc_info=error)
            return Report(error=GlassqError("this is a bug of ours: the log of glassq-console has it"))
        finally:
            self._slots.give(run.id)

    def _tell(self) -> None:
        file = self.run.file
        self._written.update(
            self._activity, CameTo(done=self.run.done, note=archive.way_back(Path(file)) if file else None)
        )

    def _show(self, report: Report, came_to: CameTo) -> None:
        run = self.run
        general = [result for result in report.results if result.general]
        run.failed = tuple(result.why for result in general if result.id == "--canary")
        for words in (*report.words, *(f"{each.id}: {each.why}" for each in general if each.id != "--canary")):
            self.progress.note(words)
        run.sums, run.outcomes, run.doing = report.sums(), dict(report.outcomes), ""
        run.left_out = reasons(each for each in report.results if each.did in (Did.NOTHING, Did.LEFT_OUT))
        run.done = max(run.done, came_to.done or 0)
        run.file = str(getattr(report, "file", None) or run.file)
        if report.error is not None and not isinstance(report.error, Stopped):
            problem = problem_of(report.error)
            run.error, run.todo = problem.words, problem.todo


def restoring(file: Path) -> Work:
    """The work that puts back what is in this file."""

    def carry_out(operations: Operations, queue: Inspector, progress: RunFollower, _pace: Pace) -> Report:
        with restore.locked([file]):
            plan = restore.plan(operations, queue, [file], progress)
            return restore.carry_out(operations, queue, plan, progress)

    return carry_out


def _restore(file: str) -> str:
    """The command that puts back what is in the file."""
    return f"restore {shlex.quote(file)}"


def _done(_operations: Operations, _queue: Inspector, _progress: RunFollower, _pace: Pace) -> Report:
    """What is kept of a run's plan is for people."""
    raise NotFound("this plan was carried out")


def _from_ledger(told: Activity) -> Run:
    """A run of an earlier process, as far as the ledger knows it."""
    run = Run(told.run, told.did, f"{told.did.capitalize()} {told.chosen}", told.actor, told.at, told.chosen)
    run.command = told.command.removeprefix("glassq ")
    run.ended, run.state, run.done = told.ended, told.state, told.done
    if run.ended is None:
        run.doing = "by what the ledger knows: another process of the console carries it out"
    run.steps = ((told.ended or told.at, told.note),) if told.note else ()
    run.sums = dict(Counter({"done": told.done, Did.NOTHING.value: told.failed}))
    run.file = _file_in(told.note) if told.did == "archive" else ""
    return run


def _file_in(note: str) -> str:
    """The file whose way back a note says; "" where it says none."""
    found = _FILE.search(note)
    if found is None:
        return ""
    try:
        return next(iter(shlex.split(found[1])), "")
    except ValueError:
        return found[1]
