"""A run: how far it is, its stop, and its undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.pages.plan import PATIENCE
from glassq.console.request import Page, Redirect

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest


def show(console: Console, request: PageRequest) -> Answer:
    """The run as it is now."""
    run = console.runs.get(request.path["id"])
    group = next((each for each in console.census.snapshot().groups if each.id == run.cause), None)
    return Page("run.html", run.title, run.document(), {"run": run, "group": group, "patience": PATIENCE})


def stop(console: Console, request: PageRequest) -> Answer:
    """Ends it between two deliveries."""
    console.runs.stop(request.path["id"], request.actor)
    return Redirect(f"/runs/{request.path['id']}")


def undo(console: Console, request: PageRequest) -> Answer:
    """Puts back what it archived."""
    return Redirect(f"/runs/{console.runs.undo(request.path['id'], request.actor)}")
