"""Puts deliveries that are done, dropped or lost again, as new deliveries, out of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from glassq import delivery as envelope
from glassq.errors import (
    BodyLost,
    GlassqError,
    JobNotFound,
    JobTooBig,
    LedgerError,
    QueueError,
    QueueRefused,
    SettingsError,
)
from glassq.operations.bulk import ended_by, packet_results, step_by_step, succeeded
from glassq.operations.find import unworked
from glassq.operations.large import fitted
from glassq.operations.pace import AT_ONCE
from glassq.operations.replay_plan import Replayed, ReplayPlan, ReplayPlanner
from glassq.operations.result import Did, Report, not_done
from glassq.push.request import SOURCE as PUSH
from glassq.push.request import tube_of
from glassq.queues.base import Change, NewForm
from glassq.settings import ping_tube
from glassq.worker.duplicates import REPLAY_OF

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.delivery import Delivery
    from glassq.ledger.corrections import Corrections
    from glassq.ledger.reader import LedgerReader, RecordedPing
    from glassq.operations import Operations
    from glassq.operations.pace import Pace
    from glassq.operations.progress import Progress
    from glassq.operations.replay_plan import ReplayFilter
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector

# A new delivery is ready after so many seconds at the latest, should we die before it is marked in the ledger.
MARK_WITHIN = 60.0
_TWICE = "somebody else replayed it meanwhile"


def plan(operations: Operations, queue: Inspector, asked: ReplayFilter, progress: Progress) -> ReplayPlan:
    """Which deliveries are replayed. Raises InvalidRequest, LedgerError, SettingsError, and for lost ones Conflict."""
    asked.check()
    with operations.ledger() as ledger:
        planner = ReplayPlanner(operations, ledger, queue, progress, asked.again)
        return planner.by_ids(asked.selection.ids) if asked.selection.ids else planner.by_filter(asked)


def carry_out(
    operations: Operations,
    queue: Inspector,
    plan: ReplayPlan,
    progress: Progress,
    pace: Pace = AT_ONCE,
    from_step: str = "",
) -> Report:
    """Puts each planned delivery again, at this pace, and marks it in the ledger.

    It begins with the step `from_step` ("": the first), if its route has steps.
    """
    from glassq.ledger.corrections import Corrections

    report, total = Report(list(plan.results)), len(plan.chosen)
    if not total:
        return report
    with operations.ledger() as ledger, Corrections(operations.settings.ledger) as corrections:
        replayer = Replayer(operations, ledger, queue, corrections, progress, plan.again, from_step)
        start = len(report.results)
        try:
            packets = pace.packets(plan.chosen, progress)
            step_by_step(report, packets, replayer.replay, progress, "replayed so far", total, start=start)
        except GlassqError as error:
            report.error = error
            marked = not (plan.again or replayer.unmarked)
            again = "goes on with the rest" if marked else "would replay those again"
            looked = f"{len(report.results) - start} of {total} were looked at"
            report.results.append(not_done("the rest", f"{ended_by(error)}: {looked}; the same command {again}"))
    return report


class _Kept(msgspec.Struct, frozen=True):
    """What the ledger kept beside body and labels."""

    content_type: str = ""
    headers: dict[str, str] = {}
    stored: envelope.StoredBody | None = None
    done: tuple[envelope.StepResult, ...] = ()


@dataclass(slots=True)
class _Again:
    """The delivery `new` that stands for the one with this `id`; `before` did so until now. `ref` is its job, or an
    error. Not `ours`: somebody else replayed the old one meanwhile.
    """

    id: str
    new: Delivery
    tube: str
    before: str
    ref: str | QueueError = ""
    ours: bool = False


@dataclass(slots=True)
class Replayer:
    """Puts deliveries again, each marked in the ledger once it is in the queue.

    `unmarked`: the ledger cannot be written, which was told.
    """

    operations: Operations
    ledger: LedgerReader
    queue: Inspector
    corrections: Corrections
    progress: Progress
    again: bool
    from_step: str = ""
    unmarked: bool = False
    _unworked: dict[str, str] = field(default_factory=dict)

    def replay(self, packet: Sequence[str]) -> Iterator[Result]:
        """What became of these deliveries. First all are put and proven, then marked: dying between the two makes
        duplicates, never a loss. Raises QueueError after the last result.
        """
        looked = [self._with_body(self._look(old)) for old in packet]
        again = [each for each in looked if isinstance(each, _Again)]
        # Delayed until they are marked as ours: two operators may replay the same delivery at once.
        largest = self.operations.settings.queue.url.largest
        forms = [NewForm(envelope.encode(each.new, largest), each.tube, "delayed", MARK_WITHIN) for each in again]
        put = []
        for each, ref in zip(again, self.queue.insert_all(forms), strict=True):
            each.ref = ref
            if isinstance(ref, str):
                put.append((each, ref))
            elif isinstance(ref, JobTooBig | QueueRefused):
                self._drop_body(each)
        self._mark([each for each, _ in put])
        self._end_delays(put)
        return packet_results(looked, _told, lambda each, error: _told_of(each.id, Did.NOTHING, str(error)))

    def _look(self, old: str) -> _Again | Replayed:
        """The delivery that stands for an old one from now on, or why there is none."""
        stored = self.ledger.recorded_ping(old)
        if stored is None:
            return _told_of(old, Did.NOTHING, "its entry went meanwhile")
        if stored.replayed and not self.again:
            return _told_of(old, Did.LEFT_OUT, _TWICE, stored.replayed)
        tube = self._tube(stored)
        if why := self._nobodys(tube):
            return _told_of(old, Did.NOTHING, why)
        labels, kept = {**stored.labels, REPLAY_OF: old}, msgspec.convert(stored.kept, _Kept)
        values = msgspec.structs.asdict(kept)
        results = values.pop("done")
        new = envelope.new(stored.source, stored.body, labels, tube=tube, **values)
        if self.from_step:
            earlier = self._steps_before(stored)
            if earlier is None:
                return _told_of(old, Did.NOTHING, f"its route has no step {self.from_step}")
            new = msgspec.structs.replace(new, done=tuple(result for result in results if result.step in earlier))
        return _Again(old, new, tube, stored.replayed)

    def _steps_before(self, stored: RecordedPing) -> list[str] | None:
        """The names of the steps before `from_step`; None if the route has no such step."""
        routes = self.operations.settings.routes
        found = next((route for route in routes if route.wants(stored.source, stored.labels)), None)
        names = [step.name for step in (found.steps if found and found.steps else ())]
        return names[: names.index(self.from_step)] if self.from_step in names else None

    def _with_body(self, each: _Again | Replayed) -> _Again | Replayed:
        """The same: what of it is stored, the new delivery has as well now, and what must be is stored."""
        if isinstance(each, Replayed):
            return each
        for old, new in zip(
            msgspec.structs.replace(each.new, id=each.id).stored_keys, each.new.stored_keys, strict=True
        ):
            try:
                self.operations.bodies.link(old, new)
            except BodyLost:
                if new == each.new.id:
                    return _told_of(each.id, Did.NOTHING, "its large body is no longer kept ([bodies] done_max)")
                # a result that is no longer kept: its step runs again
        try:
            each.new = fitted(self.operations.settings, self.operations.bodies, each.new)
        except SettingsError as error:
            return _told_of(each.id, Did.NOTHING, str(error))
        return each

    def _drop_body(self, each: _Again) -> None:
        """The new delivery is nowhere."""
        for key in each.new.stored_keys:
            self.operations.bodies.delete(key)

    def _end_delays(self, put: Sequence[tuple[_Again, str]]) -> None:
        """Makes ready what is ours, and deletes the rest. What is ready by itself already may be at work."""
        seen = [(each, job) for (each, _), job in zip(put, self.queue.get_all([ref for _, ref in put]), strict=True)]
        jobs = [(each, job) for each, job in seen if not isinstance(job, QueueError)]
        ours = [(each, job) for each, job in jobs if each.ours and job.state == "delayed"]
        others = [(each, job) for each, job in jobs if not each.ours]
        ready = self.queue.change_all([Change(job, "ready") for _, job in ours])
        gone = self.queue.delete_all([job for _, job in others])
        answers: list[tuple[_Again, object]] = [*seen]
        answers += [(each, answer) for (each, _), answer in zip(ours, ready, strict=True)]
        answers += [(each, answer) for (each, _), answer in zip(others, gone, strict=True)]
        for (each, _), error in zip(others, gone, strict=True):
            if error is None:
                self._drop_body(each)
        for each, answer in answers:
            if isinstance(answer, QueueError) and not isinstance(answer, JobNotFound):
                each.ref = answer

    def _tube(self, stored: RecordedPing) -> str:
        """A task goes into the tube of its push queue, a ping into that of its route or source."""
        if stored.source == PUSH:
            return tube_of(self.operations.tube, stored.labels.get("queue", ""))
        return ping_tube(self.operations.settings, stored.source)(stored.labels)

    def _nobodys(self, tube: str) -> str:
        if tube not in self._unworked:
            self._unworked[tube] = unworked(self.operations, tube)
        return self._unworked[tube]

    def _mark(self, put: Sequence[_Again]) -> None:
        """Finds out which of the new deliveries are the ones that stand for the old ones: all, where nobody knows."""
        ours = [True] * len(put)
        try:
            if put and not self.unmarked:
                ours = self.corrections.replayed([(each.id, each.new.id, each.before) for each in put])
        except (LedgerError, SettingsError) as error:
            self.unmarked = True
            words = "what is replayed cannot be marked, so the same command would replay it again"
            self.progress.warn(f"{words}: {error}")
        for each, is_ours in zip(put, ours, strict=True):
            each.ours = is_ours


def _told(each: _Again | Replayed) -> Replayed:
    """Raises the error of one that could not be put."""
    if isinstance(each, Replayed):
        return each
    ref = succeeded(each.ref)
    if not each.ours:
        return _told_of(each.id, Did.LEFT_OUT, _TWICE)
    return Replayed(each.id, ref, each.id, Did.REPLAYED, f"as {each.new.id}, job {ref}", replayed_as=each.new.id)


def _told_of(old: str, did: Did, why: str, replayed_as: str | None = None) -> Replayed:
    return Replayed(old, None, old, did, why, replayed_as=replayed_as)
