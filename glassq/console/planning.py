"""Makes a plan of a form: what is chosen, fixed as it is now, and how it is carried out.

What lies buried the census knows already, so a plan of very many needs no walk through the queue.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, overload

from glassq.console.filtering import conditions, filter_of, options
from glassq.console.plans import SAMPLE, ActionPlan, new_id, reasons
from glassq.errors import InvalidRequest, NotFound
from glassq.operations import archive, bury, edited_copy, kick, move, replay
from glassq.operations.bulk import Chosen, Plan
from glassq.operations.filters import Selection
from glassq.operations.move import Move
from glassq.operations.pace import AT_ONCE
from glassq.operations.progress import Silent
from glassq.operations.replay_plan import STATES, ReplayFilter
from glassq.operations.result import Did
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from datetime import datetime

    from glassq.console.plans import RunFollower, Work
    from glassq.console.request import FormFields
    from glassq.operations import Operations
    from glassq.operations.census import Census
    from glassq.operations.census_table import CensusRows
    from glassq.operations.census_view import CensusView
    from glassq.operations.pace import Pace
    from glassq.operations.result import Report, Result
    from glassq.queues.base import Inspector

# What may be planned, in words.
VERBS = {"kick": "Kick", "archive": "Archive", "move": "Move", "bury": "Put aside", "replay": "Replay"}
# How a plan may be carried out: first one, then ten, then the rest; or all of it at once.
PACES = ("canary", "all")
# Ids of one form. The rate that a command shows, until another one is chosen.
MOST_IDS, RATE = 500, "20/s"
# What a form has beside what it chooses.
_NOT_AGAIN = frozenset({"try", "pace", "body"})
# Of the ids in a command that is shown, at most so many.
_SHOWN_IDS = 20


@dataclass(frozen=True, slots=True)
class Remarks(Silent):
    """The Progress of a plan: what it says is shown with it."""

    words: list[str]

    def warn(self, words: str) -> None:
        """A note of the plan."""
        self.words.append(words)

    def note(self, words: str) -> None:
        """A note of the plan."""
        self.words.append(words)


class Planner:
    """Plans for one operator, of one form."""

    def __init__(self, operations: Operations, census: Census, form: FormFields) -> None:
        """Raises InvalidRequest for a form that chooses by ids and otherwise, or far too many."""
        self._operations, self._census, self._form = operations, census, form
        self._ids = tuple(dict.fromkeys(each.strip() for each in form.all("id") if each.strip()))
        self._filter = filter_of(form)
        self._notes: list[str] = []
        if len(self._ids) > MOST_IDS:
            raise InvalidRequest(f"more than {MOST_IDS} are chosen one by one: choose them by a filter")
        if self._ids and self._filter:
            raise InvalidRequest("expected either some that are chosen, or a filter")

    def make(self, kind: str) -> ActionPlan:
        """Raises NotFound for what is no kind of plan, and what the operation raises."""
        if kind not in VERBS:
            raise NotFound(f"there is no plan of {kind}")
        check_pace(self._form)
        if not self._ids and not self._filter and self._form.get("all") != "1" and kind != "bury":
            # a form of which nothing is chosen must not mean everything
            raise InvalidRequest("nothing is chosen: choose some with their boxes first, or a group, or a filter")
        with self._operations.queue() as queue:
            if kind == "replay":
                return self._copy(queue) if "body" in self._form else self._replay(queue)
            if kind == "bury":
                return self._bury(queue)
            return self._buried(queue, kind)

    # -- of what lies buried -------------------------------------------------------------------------------------------

    def _buried(self, queue: Inspector, kind: str) -> ActionPlan:
        target = self._form.get("to", "").strip()
        asked = Move(selection=Selection(ids=self._ids or ("x",)), target=target)
        if kind == "move":
            asked.check()
        did = {"kick": Did.KICKED, "archive": Did.ARCHIVED, "move": Did.MOVED}[kind]
        if self._ids:
            plan = self._named(queue, kind, asked)
            return self._made(queue, kind, plan.chosen, plan.results, partial(_carry, did, plan.chosen, target), target)
        view = self._looked()
        entries = view.matching(self._filter, self._operations.clock())
        if kind == "move":
            entries = entries.elsewhere(target)
        one = self._form.get("try") == "1"
        if one:
            entries = entries[:1]
        # the newest first, but for those that keep their order, or of which the oldest is to be gone first
        ordered = entries if kind == "kick" else entries[::-1]
        now = self._operations.clock()
        work: Work = partial(_carry, did, ChosenRows(ordered, now), target)
        chosen = tuple(ChosenRows(entries[:SAMPLE], now))
        if one and chosen:
            self._ids = (chosen[0].delivery or chosen[0].ref,)
        made = self._made(queue, kind, chosen, (), work, target, entries.tubes)
        title = self._title(kind, len(entries), target)
        fixed = replace(made, chosen=len(entries), jobs=entries, title=title)
        return fixed if one else replace(fixed, wanted=self._filter, mark=view.mark)

    def _named(self, queue: Inspector, kind: str, asked: Move) -> Plan:
        selection, progress = Selection(ids=self._ids), Remarks(self._notes)
        if kind == "kick":
            return kick.plan(self._operations, queue, selection, progress)
        if kind == "archive":
            return archive.plan(self._operations, queue, selection, progress)
        return move.plan(self._operations, queue, replace(asked, selection=selection), progress)

    def _looked(self) -> CensusView:
        """What lies buried. Raises InvalidRequest before anybody has looked."""
        view = self._census.snapshot()
        if view.looked_at is None:
            why = view.trouble or "it begins with each start of the console: try again in a moment"
            raise InvalidRequest(f"nobody has looked yet at what lies buried: {why}")
        if not view.complete:
            self._notes.append("not all that lies buried was looked at yet: this is what was")
        if view.short:
            self._notes.append(view.short)
        return view

    # -- of others -----------------------------------------------------------------------------------------------------

    def _bury(self, queue: Inspector) -> ActionPlan:
        if not self._ids:
            raise InvalidRequest("expected those to put aside, each by its id")
        reason = self._form.get("reason", "").strip()
        plan = bury.plan(self._operations, queue, self._ids, Remarks(self._notes))
        return self._made(queue, "bury", plan.chosen, plan.results, partial(_carry_bury, plan.chosen, reason))

    def _replay(self, queue: Inspector) -> ActionPlan:
        again, state = self._form.get("again") == "1", self._form.get("state") or None
        if state not in (None, *STATES):
            raise InvalidRequest(f"state {state}: expected {' or '.join(STATES)}")
        asked = ReplayFilter(selection=Selection(ids=self._ids, filter=self._filter), state=state, again=again)
        plan = replay.plan(self._operations, queue, asked, Remarks(self._notes))
        work: Work = lambda operations, inspector, progress, pace: replay.carry_out(  # noqa: E731
            operations, inspector, plan, progress, pace
        )
        made = self._made(queue, "replay", (), plan.results, work)
        shown = tuple(Chosen(name, "", name, "", "over", 0.0, b"") for name in plan.chosen[:SAMPLE])
        return replace(made, chosen=len(plan.chosen), sample=shown, title=self._title("replay", len(plan.chosen)))

    def _copy(self, queue: Inspector) -> ActionPlan:
        if len(self._ids) != 1:
            raise InvalidRequest("an edited copy is one of one delivery")
        notes = Remarks(self._notes)
        plan = edited_copy.plan(self._operations, queue, self._ids[0], self._form["body"], notes)
        if not plan.diff:
            notes.note("nothing is changed in it")
        made = self._made(
            queue,
            "replay",
            (),
            (),
            lambda operations, _queue, progress, _pace: edited_copy.carry_out(operations, plan, progress),
        )
        old = Chosen(plan.old, "", plan.old, plan.put.tube, "copied", 0.0, b"")
        title = f"Replay an edited copy of {plan.old}"
        made = replace(made, kind="copy", chosen=1, sample=(old,), title=title, commands={})
        return replace(made, diff=plan.diff, digests=plan.digests)

    # -- what all have -------------------------------------------------------------------------------------------------

    def _made(
        self,
        queue: Inspector,
        kind: str,
        chosen: Sequence[Chosen],
        results: Sequence[Result],
        work: Work,
        target: str = "",
        tubes: tuple[str, ...] | None = None,
    ) -> ActionPlan:
        tubes = tuple(sorted({each.tube for each in chosen})) if tubes is None else tubes
        if kind == "kick":
            self._note_pauses(queue, tubes)
        return ActionPlan(
            id=new_id(),
            kind=kind,
            title=self._title(kind, len(chosen), target),
            maker=self._operations.actor,
            via=self._operations.via,
            made=self._operations.clock(),
            chosen=len(chosen),
            work=work,
            jobs=chosen,
            sample=tuple(chosen[:SAMPLE]),
            left_out=reasons(results),
            notes=tuple(self._notes),
            tubes=tubes,
            commands=self._commands(kind, target),
            cause=self._filter.cause or "",
            filter_=", ".join((*conditions(self._form), *self._ids[:_SHOWN_IDS])) or "all",
            target=target,
            fields=tuple(pair for pair in self._form.pairs if pair[0] not in _NOT_AGAIN),
            pace=check_pace(self._form),
        )

    def _note_pauses(self, queue: Inspector, tubes: Sequence[str]) -> None:
        for counts in queue.counts(tubes) if tubes else ():
            if counts.paused_for:
                self._notes.append(f"tube {counts.name} is paused: nothing of it is worked until it is resumed")

    def _title(self, kind: str, count: int, target: str = "") -> str:
        what = deliveries(count)
        if self._filter.cause:
            groups = self._census.snapshot().groups
            words = next((group.cause.words for group in groups if group.cause.id == self._filter.cause), "")
            what = f'{count} of "{words}"' if words else what
        elif len(self._ids) == 1:
            what = self._ids[0]
        return f"{VERBS[kind]} {what}" + (f" to tube {target}" if target else "")

    def _commands(self, kind: str, target: str) -> dict[str, str]:
        """What does the same, by the pace."""
        words = [kind, *(["--to", target] if target else [])]
        if self._ids:
            more = " ..." if len(self._ids) > _SHOWN_IDS else ""
            reason = self._form.get("reason", "").strip()
            words += ["--reason", reason] if kind == "bury" and reason else []
            ids = list(self._ids[:_SHOWN_IDS])
            # a trial of one waits for what comes of it
            options_ = ["--follow"] if kind == "kick" and len(ids) == 1 else []
            options_ += ["--again"] if kind == "replay" and self._form.get("again") == "1" else []
            odd = any(id_.startswith("-") for id_ in ids)
            return {"all": shlex.join([*words, *options_, "--", *ids] if odd else [*words, *ids, *options_]) + more}
        base = shlex.join(words) + (options(self._form) or " --all")
        if kind != "kick":
            return {"all": base}
        return {"canary": f"{base} --canary --rate {RATE}", "all": f"{base} --rate {RATE}"}


def check_pace(form: FormFields, otherwise: str = "canary") -> str:
    """The pace that a form names; PACES has them. Raises InvalidRequest."""
    named = form.get("pace", otherwise)
    if named not in PACES:
        raise InvalidRequest(f"pace {named}: expected {' or '.join(PACES)}")
    return named


def newer_than(plan: ActionPlan, view: CensusView, now: datetime) -> int | None:
    """How many fit that were seen after the plan was made; None where nobody knows."""
    return None if plan.wanted is None or plan.run else view.newer_than(plan.mark, plan.wanted, now)


class ChosenRows(Sequence[Chosen]):
    """Entries of the census as they are chosen; each is made when its turn comes, as there may be very many."""

    def __init__(self, entries: CensusRows, now: datetime) -> None:
        self._entries = entries
        self._now = now

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Chosen: ...
    @overload
    def __getitem__(self, index: slice) -> ChosenRows: ...
    def __getitem__(self, index: int | slice) -> Chosen | ChosenRows:
        if isinstance(index, slice):
            return ChosenRows(self._entries[index], self._now)
        entry = self._entries[index]
        age = entry.age(self._now)
        return Chosen(entry.ref, entry.ref, entry.delivery or None, entry.tube, "buried", age, entry.digest)


def _carry(
    did: Did,
    chosen: Sequence[Chosen],
    target: str,
    operations: Operations,
    queue: Inspector,
    progress: RunFollower,
    pace: Pace = AT_ONCE,
) -> Report:
    """Carries out what is chosen; what was left out before was told with the plan."""
    plan = Plan(did, chosen)
    if did is Did.KICKED:
        return kick.carry_out(operations, queue, plan, progress, pace)
    if did is Did.MOVED:
        return move.carry_out(operations, queue, plan, progress, target)
    directory = archive.default_directory(operations)
    return archive.carry_out(operations, queue, plan, progress, directory, progress.archived_in)


def _carry_bury(
    chosen: Sequence[Chosen],
    reason: str,
    operations: Operations,
    queue: Inspector,
    progress: RunFollower,
    _pace: Pace = AT_ONCE,
) -> Report:
    return bury.carry_out(operations, queue, Plan(Did.BURIED, chosen), progress, reason)
