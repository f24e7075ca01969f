"""What somebody is about to do: a fixed list, made when it is shown. It lives for a while, for its maker alone."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from glassq.console.roles import VIA
from glassq.errors import NotFound
from glassq.operations.pace import Pace
from glassq.operations.progress import Progress
from glassq.operations.result import Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from glassq.console.roles import Actor
    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.census_table import CensusEntry
    from glassq.operations.filters import Filter
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector

LIFE = timedelta(minutes=15)
# Plans of one maker, and deliveries in all plans: the oldest ones go.
MOST, MOST_CHOSEN = 50, 400_000
# So many of the chosen ones are shown, the newest.
SAMPLE = 5


class RunFollower(Progress, Protocol):
    """Whom what carries a plan out tells how far it is."""

    def archived_in(self, file: Path) -> None:
        """This file holds from now on what is about to be deleted from the queue: the way back, whatever happens."""


# What carries a plan out.
Work = Callable[["Operations", "Inspector", RunFollower, Pace], Report]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPlan:
    """A plan. `kind` is "kick", "archive", "move", "bury", "replay", "copy" or "restore"; `title` says it in words.

    `maker` is who made it, and `via` by which door. `chosen` is how many, `sample` a few of them; `left_out` has
    reasons and counts. `commands` are those that do the same, by the pace; `pace` is the one that is proposed. `cause`
    is the group that it was made for, and `filter_` how it was chosen in words. `fields` are those of the form that it
    was made of, but for a trial of one: they plan the same again. `newer` is how many came since that fit as well, None
    where nobody knows: those that fit `wanted`, and that the census saw after `mark`. `jobs` are what is chosen. `run`
    is the run that carried it out, "" before. `diff` and `digests` are those of an edited copy.
    """

    id: str
    kind: str
    title: str
    maker: str
    via: str = VIA
    made: datetime
    chosen: int
    work: Work = field(repr=False)
    jobs: Sequence[Chosen | CensusEntry] = field(default=(), repr=False)
    wanted: Filter | None = None
    mark: int = 0
    sample: tuple[Chosen, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    tubes: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    cause: str = ""
    filter_: str = ""
    target: str = ""
    newer: int | None = None
    diff: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    run: str = ""
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    pace: str = "canary"

    @property
    def until(self) -> datetime:
        """When it is forgotten."""
        return self.made + LIFE

    def document(self) -> dict[str, Any]:
        """The plan for JSON."""
        names = (
            "id",
            "kind",
            "title",
            "maker",
            "via",
            "made",
            "until",
            "chosen",
            "tubes",
            "commands",
            "cause",
            "target",
        )
        told = {name: getattr(self, name) for name in (*names, "newer", "notes", "diff", "digests", "run")}
        sample = [{"job": each.ref, "delivery": each.delivery, "tube": each.tube} for each in self.sample]
        return {**told, "left_out": dict(self.left_out), "sample": sample}


def reasons(results: Iterable[Result]) -> tuple[tuple[str, int], ...]:
    """Why something is left out, the commonest first."""
    return tuple(Counter(result.why for result in results if not result.general).most_common())


def new_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_hex(8)


class Plans:
    """The plans that are alive. Any thread may use it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._plans: dict[str, ActionPlan] = {}

    def add(self, plan: ActionPlan) -> None:
        """Keeps a new one; what is too old or too much goes."""
        with self._lock:
            self._plans[plan.id] = plan
            self._forget(plan)

    def get(self, id_: str, actor: Actor) -> ActionPlan:
        """The plan that this actor made at the same door. Raises NotFound, also where it is another one's."""
        with self._lock:
            plan = self._plans.get(id_)
            if plan is None or (plan.maker, plan.via) != (actor.identity, actor.via) or plan.until < self._clock():
                minutes = LIFE // timedelta(minutes=1)
                raise NotFound(f"no such plan of yours: a plan is kept for {minutes} minutes, make it anew")
            return plan

    def begin(self, id_: str, actor: Actor, begin: Callable[[ActionPlan], str]) -> str:
        """The id of the run that carries it out: `begin` begins that, once. Raises NotFound."""
        plan = self.get(id_, actor)
        with self._lock:
            plan = self._plans.get(id_, plan)
            if not plan.run:
                plan = replace(plan, run=begin(plan))
                # the list went to the run
                self._plans[id_] = replace(plan, work=carried_out, jobs=())
            return plan.run

    def _forget(self, newest: ActionPlan) -> None:
        now = self._clock()
        alive = {id_: plan for id_, plan in self._plans.items() if plan.until >= now}
        ours = [id_ for id_, plan in alive.items() if (plan.maker, plan.via) == (newest.maker, newest.via)]
        for id_ in ours[:-MOST]:
            del alive[id_]
        left = sum(map(_held, alive.values()))
        for id_ in list(alive)[:-1]:
            if left <= MOST_CHOSEN:
                break
            left -= _held(alive.pop(id_))
        self._plans = alive


def _held(plan: ActionPlan) -> int:
    """How many deliveries it holds; once it is carried out, its run has them."""
    return 0 if plan.run else plan.chosen


def carried_out(_operations: Operations, _queue: Inspector, _progress: RunFollower, _pace: Pace) -> Report:
    """The work of a plan that is carried out already: what is kept of it is for people. Raises NotFound."""
    raise NotFound("this plan was carried out")
