"""An activity: what was done to an installation, by whom and from where, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from datetime import datetime

# Its states; "interrupted": whoever carried it out ended without a word.
State = Literal["running", "done", "stopped", "failed", "interrupted"]
# What the pool itself does: its first children, and the first ones after a reload. From then on errors count as new.
STARTED, RELOADED = "started", "reloaded"
# A note of an operator's on a cause of failures.
NOTE = "note"
# Somebody has come into the console, or could not (state "failed"); or may not have what was asked of it.
SIGN_IN, REFUSED = "sign-in", "refused"
# The columns whose names are not those of the fields: SQL has the word for itself.
COLUMNS = {"left": "remaining"}


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody did something.

    `via` is from where: "cli", "console", or "pool" for what the pool did itself, whose `actor` is the host then. `did`
    is a command's name ("kick", "queues purge"), STARTED, RELOADED, NOTE, SIGN_IN or REFUSED; `command` is the whole
    command, masked, and `filter` what it was for. Of `chosen` deliveries it was `done` with some, could not be with
    `failed`, and `left` are those that it did not touch. `run` is the id of the console's run. `cause` is what a note
    is about. `ended` is None while it runs.
    """

    id: str
    at: datetime
    actor: str
    via: str
    did: str
    command: str = ""
    filter: str = ""
    chosen: int = 0
    done: int = 0
    failed: int = 0
    left: int = 0
    run: str = ""
    state: str = "done"
    note: str = ""
    cause: str = ""
    ended: datetime | None = None
