"""The sources: what came, what was refused and why, whose clock is off, and which secrets nobody uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.request import Page
from glassq.errors import NotFound
from glassq.operations import sources as operation
from glassq.operations.hints import adapt_hints

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest


def sources(console: Console, request: PageRequest) -> Answer:
    """All of them. The twin is the document of `glassq sources`."""
    view = operation.snapshot(console.operations_for(request.actor))
    values = {"view": view, "command": console.command("sources")}
    return Page("sources.html", "Sources", adapt_hints(view.document(), console.adapt), values)


def source(console: Console, request: PageRequest) -> Answer:
    """One source. Raises NotFound."""
    name = request.path["name"]
    view = operation.snapshot(console.operations_for(request.actor))
    row = next((row for row in view.rows if row.name == name), None)
    if row is None:
        known = ", ".join(row.name for row in view.rows) or "none"
        raise NotFound(f"there is no source {name}; there are: {known}")
    documents = view.document()["sources"]
    document = next(each for each in documents if each["name"] == name)
    hints = [hint for hint in view.hints if hint.words.startswith((f"{name} ", f"{name}:"))]
    values = {"view": view, "row": row, "hints": hints, "command": console.command("sources")}
    return Page("source.html", f"Source {name}", document, values)
