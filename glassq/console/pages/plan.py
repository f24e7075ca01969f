"""A plan: made of a form, looked at, carried out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from glassq.console.planning import Planner, check_pace, newer_than
from glassq.console.request import Page, Redirect
from glassq.operations import kick
from glassq.operations.pace import Pace, per_second

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.plans import ActionPlan
    from glassq.console.request import Answer, FormFields, PageRequest

# How long the outcomes of a canary are waited for, in seconds.
PATIENCE = 900.0


def make(console: Console, request: PageRequest) -> Answer:
    """Makes a plan; nothing is changed by that."""
    operations = console.operations_for(request.actor)
    made = Planner(operations, console.census, request.form).make(request.path["kind"])
    console.plans.add(made)
    return Redirect(f"/plans/{made.id}")


def show(console: Console, request: PageRequest) -> Answer:
    """What would be done."""
    plan = console.plans.get(request.path["id"], request.actor)
    plan = replace(plan, newer=newer_than(plan, console.census.snapshot(), request.now))
    return Page("plan.html", plan.title, plan.document(), {"plan": plan})


def carry_out(console: Console, request: PageRequest) -> Answer:
    """Begins the run of a plan; asked a second time it leads to the same run."""
    asked, rate = _pace(request.form)
    plan = console.plans.get(request.path["id"], request.actor)
    if plan.kind == "kick" and asked.canary and plan.tubes and not plan.run:
        # it may have been paused since the plan was made
        with console.operations_for(request.actor).queue() as queue:
            kick.check_running(queue, plan.tubes, "a trial")

    def begin(plan: ActionPlan) -> str:
        pace = asked if plan.kind in ("kick", "replay") else Pace()
        return console.runs.begin(plan, request.actor, pace, _command(plan, asked, rate))

    return Redirect(f"/runs/{console.plans.begin(request.path['id'], request.actor, begin)}")


def _pace(form: FormFields) -> tuple[Pace, str]:
    """How fast, and the rate as it was given. Raises InvalidRequest."""
    named, rate = check_pace(form, "all"), form.get("rate", "").strip()
    per = per_second(rate) if rate else None
    return Pace(per, canary=named == "canary", patience=PATIENCE if named == "canary" else 0.0), rate


def _command(plan: ActionPlan, pace: Pace, rate: str) -> str:
    """The command that does what is carried out, as the trail shows it."""
    command = plan.commands.get("canary" if pace.canary else "all", plan.commands.get("all", ""))
    words, _, _ = command.partition(" --rate ")
    return f"{words} --rate {rate}" if rate and plan.kind in ("kick", "replay") and words else words
