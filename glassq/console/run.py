"""A run: one plan that is carried out, or was, as far as it has come."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glassq.operations import archive
from glassq.operations.result import Did

if TYPE_CHECKING:
    from datetime import datetime

    from glassq.console.plans import ActionPlan
    from glassq.ledger.activity import Activity
    from glassq.operations.result import FailedAgain

_CAUSE = re.compile(r"\bcause=([0-9a-f]{12})\b")
# Who has stopped a run that did so by itself, as those failed again that it tried.
BY_ITSELF = "itself"


@dataclass(slots=True)
class Run:
    """A run, as it is now. Its thread writes it, others read.

    `state` is "waiting", "running", "done", "stopped", "failed" or "interrupted" (the console ended). `done` of `total`
    were dealt with, `left` are those that it did not touch (None: nobody knows), `doing` says what is done right now.
    `steps` are what happened, `sums` counts what came of the deliveries, `outcomes` what their work came to, `failed`
    are those that failed again. `stopped_by` is who has stopped it, or BY_ITSELF. `file` holds what was archived, and
    `undo` is the run that puts it back, or was to. `cause` is the group that it was for, and `fields` are those of a
    form that plans the same again.
    """

    id: str
    kind: str
    title: str
    actor: str
    via: str
    began: datetime
    total: int
    command: str = ""
    cause: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    plan: ActionPlan | None = None
    ended: datetime | None = None
    state: str = "waiting"
    done: int = 0
    left: int | None = None
    doing: str = ""
    steps: tuple[tuple[datetime, str], ...] = ()
    sums: dict[str, int] = field(default_factory=dict)
    left_out: tuple[tuple[str, int], ...] = ()
    failed: tuple[FailedAgain, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)
    stopped_by: str = ""
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
    def can_go_on(self) -> bool:
        """Whether it was a trial, or ended early, so that the rest may follow."""
        single = self.total == 1 and all(name != "id" for name, _ in self.fields)
        part = single or self.state in ("stopped", "interrupted")
        return bool(self.kind == "kick" and self.ended and self.fields and part)

    @property
    def again(self) -> tuple[tuple[str, str], ...]:
        """The fields of a form that tries one of those again that failed; () where none did."""
        if not (self.ended and self.failed):
            return ()
        return (("cause", self.cause), ("try", "1")) if self.cause else (("id", self.failed[0].key),)

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
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _OTHERWISE}
        steps = [{"at": at, "words": words} for at, words in self.steps]
        failed = [{"id": each.key, "why": each.why} for each in self.failed]
        more = {"undone_by": self.undone_by, "left_out": dict(self.left_out), "steps": steps, "failed": failed}
        return {**told, **more}


_OTHERWISE = frozenset({"plan", "fields", "steps", "left_out", "failed", "undo"})


def recorded(told: Activity) -> Run:
    """A run of an earlier process, as far as the ledger knows it."""
    title = f"{told.did.capitalize()} {told.chosen}"
    run = Run(told.run, told.did, title, told.actor, told.via, told.at, told.chosen)
    run.command = told.command.removeprefix("glassq ")
    run.ended, run.state, run.done = told.ended, told.state, told.done
    if cause := _CAUSE.search(told.filter):
        run.cause, run.fields = cause[1], (("cause", cause[1]),)
    if run.ended is None:
        run.doing = "by what the ledger knows: another process of the console carries it out"
    else:
        run.left = told.left
    run.steps = ((told.ended or told.at, told.note),) if told.note else ()
    run.sums = dict(Counter({"done": told.done, Did.NOTHING.value: told.failed}))
    run.file = archive.file_in(told.note) if told.did == "archive" else ""
    return run
