"""One delivery: what happened to it, and what may be done with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from glassq.console.filtering import one_of
from glassq.console.guard import MAX_BODY
from glassq.console.request import Page, Text
from glassq.errors import InvalidRequest
from glassq.operations import edited_copy
from glassq.operations import story as operation
from glassq.operations.edited_body import body_text, has_mask
from glassq.operations.find import OPEN, ledger_state
from glassq.operations.hints import argument
from glassq.operations.progress import Brief
from glassq.operations.story import attempt_words, detail_words, route_words
from glassq.operations.timeline import timeline
from glassq.operations.words import attempts, moment, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest
    from glassq.operations.find import Found
    from glassq.operations.story import Story
    from glassq.operations.timeline import Event, Level

Facts = tuple[tuple[str, str], ...]

# So long what neither the ledger nor the census knows is looked for in the queue, in seconds.
WITHIN = 0.25
# What names the user of a ping, in its body.
_USER = "userToken"
# What a form has beside the body, in bytes.
_FORM_SPARE = 1 << 10
# A larger body is shown as text alone, in characters.
_MOST_TREE = 20_000
_STATES: dict[str, Level] = {"buried": "wrong", "delayed": "note", "done": "ok"}


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A story as the page shows it; `actions` are what may be planned: (what, its button, its key)."""

    id: str
    state: str
    level: Level
    attempts: str
    source: str
    user: str
    user_path: str
    label_words: str
    received: datetime | None
    actions: tuple[tuple[str, str, str], ...]
    editable: bool
    movable: bool
    cause: str
    cause_words: str
    facts: tuple[tuple[str, Facts], ...]
    related: Facts
    log_command: str
    body: object
    body_text: str
    body_words: str
    tree_possible: bool


def delivery(console: Console, request: PageRequest) -> Answer:
    """The story of an id, the beginning of one, a job's reference, or a task's name.

    Raises InvalidRequest, and as `story.tell`.
    """
    newest_first = one_of(request.params, "order", ("oldest", "newest")) == "newest"
    as_tree = one_of(request.params, "body", ("text", "tree")) == "tree"
    story = tell(console, request)
    view = view_of(story)
    events = timeline(story)
    values = {
        "view": view,
        "events": [_shown(event) for event in (reversed(events) if newest_first else events)],
        "newest_first": newest_first,
        "as_tree": view.tree_possible and as_tree,
        "command": console.command(f"show {argument(view.id)}"),
    }
    return Page("delivery.html", view.id, story.document, values)


def body(console: Console, request: PageRequest) -> Answer:
    """The masked body alone, as text."""
    shown = tell(console, request).body
    return Text("" if shown is None else body_text(shown) + "\n")


def edit(console: Console, request: PageRequest) -> Answer:
    """A form with the masked body, of which an edited copy is planned. Raises as `form_text`."""
    story = tell(console, request)
    view = view_of(story)
    text = edited_copy.form_text(story)
    if len(quote(text.replace("\n", "\r\n"), safe="")) + _FORM_SPARE > MAX_BODY:
        raise InvalidRequest("body: it is too large for a form: `glassq replay` sends it again as it is")
    values = {"view": view, "text": text, "masks": has_mask(text)}
    return Page("edit.html", f"Replay an edited copy of {view.id}", story.document, values)


def tell(console: Console, request: PageRequest) -> Story:
    """The story of the delivery that the path names. Raises as `story.tell`."""
    operations = console.operations_for(request.actor)
    with console.lookups.one(request.actor.name), operations.looking() as queue:
        return operation.tell(operations, queue, request.path["id"], Brief(WITHIN))


def view_of(story: Story) -> DeliveryView:
    """What the page shows beside the events."""
    found, entry = story.found, story.entry
    state = found.job.state if found else entry.state if entry else "unknown"
    shown = body_text(story.body) if story.body is not None else ""
    user = story.body.get(_USER) if isinstance(story.body, dict) else None
    failed = found is not None and (found.error or found.is_buried)
    return DeliveryView(
        id=_id(story),
        state=state,
        level="wrong" if found and found.damage else _STATES.get(state, ""),
        attempts=attempt_words(found) if found else attempts(entry.attempts) if entry else "",
        source=(found.source if found else "") or (entry.source if entry else "") or "damaged",
        user=user if isinstance(user, str) else "",
        user_path=_search(user) if isinstance(user, str) else "",
        label_words=" ".join(f"{name}={value}" for name, value in (story.labels or {}).items() if len(value) < 80),
        received=found.delivery.received if found and found.delivery else entry.received if entry else None,
        actions=tuple(_actions(story)),
        editable=bool(story.labels is not None and story.large is None and (found is None or found.is_buried)),
        movable=found is not None and found.is_buried,
        cause=found.cause.id if found and failed else "",
        cause_words=found.cause.words if found and failed else "",
        facts=tuple((title, facts) for title, facts in _facts(story) if facts),
        related=tuple(_related(story, user)),
        log_command=f"journalctl -u 'glassq*' -g {shlex.quote(_id(story))}",
        body=story.body,
        body_text=shown,
        body_words=_body_words(story),
        tree_possible=isinstance(story.body, dict | list) and len(shown) <= _MOST_TREE,
    )


def _id(story: Story) -> str:
    found = story.found
    return (found.name or found.ref) if found else story.entry.delivery if story.entry else ""


def _actions(story: Story) -> Iterator[tuple[str, str, str]]:
    """What may be planned for it, the likeliest first."""
    found, entry = story.found, story.entry
    if found is not None and found.is_buried:
        yield "kick", "Kick ...", "t"
        yield "archive", "Archive ...", "e"
    elif found is not None and found.job.state != "reserved":
        yield "bury", "Put aside ...", ""
    elif found is None and entry is not None and story.stored is not None:
        yield "replay", "Replay ...", "t"


def _body_words(story: Story) -> str:
    found = story.found
    if story.large is not None:
        size: int | None = story.large.stored.size
    else:
        holder = found.delivery if found else story.stored
        size = len(holder.body) if holder else None
    parts = (f"{size:,} bytes" if size is not None else "", story.content_type or "")
    return ", ".join(filter(None, parts))


def _facts(story: Story) -> Iterator[tuple[str, Facts]]:
    found, entry = story.found, story.entry
    yield "Request", tuple(_request(story))
    if found is not None:
        yield "Job", tuple(_job(found))
    yield "The queue's own record", tuple((moment(each.at), each.words) for each in story.history)
    if entry is None:
        yield "Ledger", (("note", story.note or "nothing recorded"),)
        return
    rows = (
        ("state", f"{entry.state} at {moment(entry.updated)}, after {attempts(entry.attempts)}"),
        ("took", span(entry.duration) if entry.duration else ""),
        ("result", entry.result),
        ("file" if entry.state == "archived" else "reason", entry.reason),
        ("", ledger_state(entry) if found is None and entry.state in OPEN else ""),
    )
    yield "Ledger", tuple((name, value) for name, value in rows if value)


def _request(story: Story) -> Iterator[tuple[str, str]]:
    yield from ((f"label {name}", value) for name, value in (story.labels or {}).items())
    if story.content_type:
        yield "type", story.content_type
    yield from (story.headers or {}).items()
    if story.found is not None and story.found.delivery is not None:
        yield "handler", route_words(story.found)
    yield from ((f"step {step.step}", step.result or "done") for step in story.steps)


def _job(found: Found) -> Iterator[tuple[str, str]]:
    job = found.job
    yield "job", found.ref
    yield "tube", job.tube
    timed = {"delayed": "ready in", "reserved": "lease ends in"}.get(job.state)
    yield "state", f"{job.state}, {timed} {span(max(0.0, job.time_left)) or '0s'}" if timed else job.state
    yield "on disk", "yes" if job.durable else "NO: in memory only"
    if job.counters:
        yield "counters", ", ".join(f"{name} {value}" for name, value in job.counters.items())


def _related(story: Story, user: object) -> Iterator[tuple[str, str]]:
    """Links to what may have to do with it: (words, path)."""
    found, entry = story.found, story.entry
    if isinstance(user, str) and user:
        yield f"the same user: {user}", _search(user)
    item = story.body.get("itemId") if isinstance(story.body, dict) else None
    if isinstance(item, str) and item:
        yield f"the same item: {item[:60]}", _search(item)
    if found is not None and (found.error or found.is_buried):
        yield "the same failure", f"/buried/{found.cause.id}"
    if entry is not None and entry.replayed:
        yield f"it was replayed as {entry.replayed}", f"/d/{quote(entry.replayed, safe='')}"
    if original := (story.labels or {}).get("replay_of"):
        yield f"it repeats {original}", f"/d/{quote(original, safe='')}"


def _search(words: str) -> str:
    """The path that looks for these words; they may hold what UTF-8 cannot."""
    return f"/search?q={quote(words, safe='', errors='replace')}"


def _shown(event: Event) -> dict[str, object]:
    """The event for the template: of what its handler told beside, each part in words."""
    fields: dict[str, object] = {name: getattr(event, name) for name in event.__dataclass_fields__}
    fields["detail"] = tuple((name, detail_words(value)) for name, value in event.detail.items() if value != "")
    return fields
