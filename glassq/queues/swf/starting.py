"""Starts the execution of a delivery."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from glassq.queues.swf.decider import settings_of
from glassq.queues.swf.names import TYPE, beside, ref_of, workflow_id
from glassq.queues.swf.troubles import AlreadyThere
from glassq.queues.swf.versions import NEWEST

if TYPE_CHECKING:
    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.forms import SwfForm


def start(client: SwfClient, key: str, form: SwfForm, *, within: float | None = None) -> str:
    """Starts it; the job's reference. One whose key is there already is not put once more. Raises QueueError."""
    execution = workflow_id(key)
    # what is there already is this delivery: put in doubt before, or by another host
    with suppress(AlreadyThere):
        _start(client, execution, form, within)
    return ref_of(execution)


def start_another(client: SwfClient, key: str, form: SwfForm, *, within: float | None = None) -> str:
    """As `start`; where the key ("": none is known) is there already, one beside it."""
    execution = workflow_id(key or uuid4().hex)
    try:
        _start(client, execution, form, within)
    except AlreadyThere:
        execution = beside(key, uuid4().hex[:12])
        _start(client, execution, form, within)
    return ref_of(execution)


def _start(client: SwfClient, execution: str, form: SwfForm, within: float | None) -> None:
    # in doubt the caller says whether to try again: only then does an execution that is there mean the same
    client.once(
        "start_workflow_execution",
        within=within,
        workflowId=execution,
        workflowType={"name": TYPE, "version": NEWEST},
        **settings_of(form),
    )
