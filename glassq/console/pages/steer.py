"""Pausing and resuming tubes, and notes on groups: what is done at once, without a plan."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from glassq.console.pages.entry import ours
from glassq.console.planning import Remarks
from glassq.console.request import Redirect
from glassq.errors import Conflict, InvalidRequest
from glassq.operations import pause as operation
from glassq.operations.activity import CameTo
from glassq.operations.filters import Filter, parse

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest

# Of a note, in characters.
LONGEST_NOTE = 500


def pause(console: Console, request: PageRequest) -> Answer:
    """Pauses a tube, or all of ours, for so long. Pings are taken all the while."""
    operations, remarks = console.operations_for(request.actor), Remarks([])
    tube, length = request.form.get("tube", ""), request.form.get("for", "30m")
    with operations.queue() as queue:
        plan = operation.plan(operations, queue, [tube] if tube else [], length, "for")
        done = operation.pause(queue, {name: name for name in plan.tubes}, plan.seconds)
    console.sampler.look()
    console.pausers.forget()
    words = f"pause {shlex.quote(tube)} --for {length}" if tube else f"pause --for {length}"
    came_to = CameTo(done=sum(done.values()), note=plan.note)
    filter_ = shlex.join(plan.tubes) if plan.kept else tube
    operations.activities(remarks).record(
        "pause", came_to, command=f"glassq {words}", filter_=filter_, chosen=len(done)
    )
    return _done(request, remarks)


def resume(console: Console, request: PageRequest) -> Answer:
    """Lets a tube, or all of ours, go on."""
    operations, remarks = console.operations_for(request.actor), Remarks([])
    tube = request.form.get("tube", "")
    with operations.queue() as queue:
        tubes = operation.chosen(operations, queue, [tube] if tube else [])
        done = operation.resume(queue, {name: name for name in tubes})
    console.sampler.look()
    came_to = CameTo(done=sum(done.values()))
    command = shlex.join(["glassq", "resume", *([tube] if tube else [])])
    operations.activities(remarks).record("resume", came_to, command=command, filter_=tube, chosen=len(done))
    return _done(request, remarks)


def _done(request: PageRequest, remarks: Remarks) -> Answer:
    """Back to where the button was; if the ledger does not know of it, to the page that says why."""
    return Redirect("/activity" if remarks.words else ours(request.form.get("next", "")))


def note(console: Console, request: PageRequest) -> Answer:
    """Leaves a note on a group, for whoever looks at it next; an empty one takes it back.

    Raises InvalidRequest, and Conflict where there is no ledger to keep it.
    """
    cause = parse([f"cause={request.path['cause']}"], Filter()).cause or ""
    text = request.form.get("text", "").strip()
    if len(text) > LONGEST_NOTE:
        raise InvalidRequest(f"a note has at most {LONGEST_NOTE} characters")
    remarks = Remarks([])
    console.operations_for(request.actor).activities(remarks).note(cause, text)
    console.notes.forget()
    if remarks.words:
        raise Conflict(f"the note stands in the log alone, where nobody reads it: {remarks.words[0]}")
    return Redirect(f"/buried/{cause}")
