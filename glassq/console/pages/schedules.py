"""The schedules: when each is due, and how its last delivery went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.request import Page
from glassq.operations import schedules as operation

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest


def schedules(console: Console, request: PageRequest) -> Answer:
    """All of them. The twin is the document of `glassq schedules`. Raises SettingsError."""
    view = operation.snapshot(console.operations_for(request.actor))
    values = {"view": view, "command": console.command("schedules")}
    document = view.document()
    document["hints"] = [console.adapt(hint) for hint in document["hints"]]
    return Page("schedules.html", "Schedules", document, values)
