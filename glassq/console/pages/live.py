"""The outcomes of deliveries, as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.filtering import named, one_of
from glassq.console.request import Page
from glassq.operations import follow

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest

# What the query may have: see docs/console.md.
PARAMS = ("state", "source", "tube")
# So many of the latest are shown.
LATEST = 200


def live(console: Console, request: PageRequest) -> Answer:
    """The latest outcomes, newest first. The twin has the documents of `glassq tail --once --json`."""
    asked = {name: request.params.get(name, "").strip() for name in PARAMS}
    one_of(asked, "state", ("", *follow.STATES))
    entries, note = follow.latest(console.operations_for(request.actor), asked, LATEST)
    values = {
        "rows": [(entry, follow.said(entry)) for entry in reversed(entries)],
        "asked": asked,
        "states": follow.STATES,
        "sources": sorted(console.settings.sources),
        "note": note,
        "command": console.command(f"tail{named(asked)}"),
    }
    return Page("live.html", "Live", lambda: [follow.document(entry) for entry in entries], values)
