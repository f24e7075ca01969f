"""What is being done: each run carries out one plan, in a thread and on a connection of its own.

It goes on when the browser is closed, and ends between two deliveries when somebody stops it, or the console ends.
"""

from __future__ import annotations

import shlex
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.console.alone import SharedState
from glassq.console.execution import Execution
from glassq.console.plans import ActionPlan, carried_out, new_id
from glassq.console.roles import is_console
from glassq.console.run import Run, recorded
from glassq.console.slots import RunSlots
from glassq.errors import Conflict, LedgerError, NotFound, SettingsError
from glassq.log import fields, logger
from glassq.operations import activity as activities
from glassq.operations import restore
from glassq.operations.activity import CameTo
from glassq.operations.pace import AT_ONCE
from glassq.operations.progress import Silent
from glassq.operations.result import Did

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from glassq.console.plans import RunFollower, Work
    from glassq.console.roles import Actor
    from glassq.console.run_progress import RunProgress
    from glassq.operations import Operations
    from glassq.operations.pace import Pace
    from glassq.operations.result import Report
    from glassq.queues.base import Inspector

log = logger("glassq.console")

# So many run at a time; the others wait.
AT_A_TIME = 2
# And so many wait, or go on, at all: each has a thread.
MOST_AT_ONCE = 50
# Of those that are over, so many are kept; the ledger has the others.
MOST_KEPT = 200
# How long a stop of the console waits for runs, in seconds.
PATIENCE = 15.0


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
            if is_console(each.via) and each.run.startswith(self._instance) and each.run not in self._runs:
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
        run = Run(id_, plan.kind, plan.title, actor.identity, operations.via, operations.clock(), plan.chosen, command)
        run.plan, run.cause, run.fields = replace(plan, work=carried_out, jobs=()), plan.cause, plan.fields
        execution = Execution(run, plan, operations, pace, self._slots, self._is_closing)
        with self._lock:
            if self._closing:
                raise Conflict("the console is about to end")
            if len(self._stops) >= MOST_AT_ONCE:
                raise Conflict(f"{MOST_AT_ONCE} runs go on or wait already: look at them first (`glassq activity`)")
            self._forget()
            self._runs[id_], self._stops[id_] = run, execution.progress
            thread = threading.Thread(target=self._carry, args=(execution,), name=f"run {id_}", daemon=True)
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
        return recorded(told[-1])

    def _recorded_undo(self, run: Run) -> Run | None:
        """The run before this process that put back what the run archived, or was to; the newest."""
        if not run.file:
            return None
        undoing = f"glassq {_restore(run.file)}"
        with self._itself.ledger() as ledger:
            told = ledger.activities(did="restore", since=run.began)
        return next((recorded(each) for each in told if each.run and each.command == undoing), None)

    def stop(self, id_: str, actor: Actor) -> None:
        """Ends it between two deliveries; does nothing to one that is over. Raises NotFound and Conflict."""
        run = self.get(id_)
        progress = self._stops.get(id_)
        if run.ended is None and id_ not in self._runs:
            raise Conflict("another process of the console carries it out, or nobody knows: it cannot be stopped here")
        if run.ended is None and progress is not None and not progress.stopping.is_set():
            progress.note(f"{actor.identity} stops it")
            run.stopped_by = f"{actor.identity} ({actor.via})"
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
            via=actor.via,
            made=self._itself.clock(),
            chosen=count,
            work=restoring(Path(run.file)),
            cause=run.cause,
        )
        return self.begin(plan, actor, command=_restore(run.file))

    def _carry(self, execution: Execution) -> None:
        try:
            execution.carry_out()
        finally:
            with self._lock:
                self._stops.pop(execution.run.id, None)
            self._left(job.ref for job in execution.plan.jobs)

    def _is_closing(self) -> bool:
        return self._closing

    def _forget(self) -> None:
        over = [id_ for id_, run in self._runs.items() if run.ended is not None]
        for id_ in over[:-MOST_KEPT]:
            del self._runs[id_]
            self._undos.pop(id_, None)


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
