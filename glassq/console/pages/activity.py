"""Who did what, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.filtering import named
from glassq.console.request import Page
from glassq.errors import LedgerError, SettingsError
from glassq.ledger.activity import REFUSED, SIGN_IN, Activity
from glassq.operations import activity as operation
from glassq.operations.filters import duration

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest

# What the query may have: see docs/console.md.
PARAMS = ("who", "did", "since")
# So many of the latest are shown.
MAX_ROWS = 200


def activity(console: Console, request: PageRequest) -> Answer:
    """Who did what, newest first. The twin is the document of `glassq activity`."""
    asked = {name: request.params.get(name, "").strip() for name in PARAMS}
    seconds = duration("since", asked["since"]) if asked["since"] else None
    note, found = "", []
    operations = console.operations_for(request.actor)
    try:
        found = operation.newest(operations, who=asked["who"], did=asked["did"], seconds=seconds, limit=MAX_ROWS)
        note = operation.absent(operations)
    except (LedgerError, SettingsError) as error:
        note = str(error)
    values = {
        "rows": [(each, operation.words(each)) for each in found],
        "asked": asked,
        "note": note,
        "command": console.command(f"activity{named(asked)}"),
    }
    return Page("activity.html", "Activity", lambda: operation.document(found), values)


def latest(console: Console, limit: int) -> list[tuple[Activity, str]]:
    """The latest of them with what came of them in words, without who came in; none where the ledger cannot tell."""
    try:
        found = operation.newest(console.operations, limit=limit + MAX_ROWS)
    except (LedgerError, SettingsError):
        return []
    return [(each, operation.words(each)) for each in found if each.did not in (SIGN_IN, REFUSED)][:limit]
