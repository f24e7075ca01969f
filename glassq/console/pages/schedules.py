"""The schedules: when each is due, and how its last delivery went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.request import Page
from glassq.operations import schedules as operation
from glassq.operations.hints import adapt_hints

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest


def schedules(console: Console, request: PageRequest) -> Answer:
    """All of them. The twin is the document of `glassq schedules`. Raises SettingsError."""
    view = operation.snapshot(console.operations_for(request.actor))
    values = {"view": view, "command": console.command("schedules")}
    return Page("schedules.html", "Schedules", adapt_hints(view.document(), console.adapt), values)
