"""What operators put, change and delete: executions that start, signals, and executions that are terminated.

A signal names the form of the delivery that the operator has seen. Whoever decides takes it only while the delivery has
that form, and nobody works it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq.errors import JobNotFound, QueueError, QueueRefused
from glassq.queues.aws.text import text_of
from glassq.queues.key import key_of
from glassq.queues.swf.forms import LIMITS, SwfForm, form_of, written
from glassq.queues.swf.history import CHANGE, STATE
from glassq.queues.swf.looking import find_run
from glassq.queues.swf.names import id_of
from glassq.queues.swf.starting import start_another

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import Change, Job, NewForm
    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import Left, SeenRun


class RunChanger:
    """Puts, changes and deletes, for one thread. `left` says how long a call may take, in seconds.

    `refused` says why the last execution was refused, if it was.
    """

    def __init__(self, client: SwfClient, left: Left, *, lease: int) -> None:
        self._client = client
        self._left = left
        self._lease = lease
        self.refused: QueueRefused | None = None

    def insert(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        """For each form its reference, or why it is not there."""
        return [self._insert(form) for form in forms]

    def change(self, change: Change) -> str | QueueError:
        """The job's reference, or why it is as it was."""
        job = change.job
        body, tube = job.body if change.body is None else change.body, change.tube or job.tube
        if error := LIMITS.fault(body, tube, change.delay):
            return error
        try:
            seen = self._as_seen(job)
            if seen is None:
                return _gone(job)
            if change.state != "delayed" and (change.state, body, tube) == (job.state, job.body, job.tube):
                return job.ref
            self._signal(seen, self._form(seen, change, body, tube))
        except QueueError as error:
            return error
        return job.ref

    def delete(self, job: Job) -> QueueError | None:
        """Why the job is still there; None if it is not."""
        try:
            seen = self._as_seen(job)
            if seen is None:
                return _gone(job)
            self._client.settle(
                "terminate_workflow_execution",
                within=self._left(),
                **seen.execution,
                reason="deleted by an operator",
            )
        except QueueError as error:
            return error
        return None

    def _as_seen(self, job: Job) -> SeenRun | None:
        """The job's run, if the job is as it was seen, and nobody works it."""
        seen = find_run(self._client, id_of(job.ref), self._left)
        if seen is None or not seen.run.is_free:
            return None
        form = seen.run.form
        same = (seen.run.state, form.tube, form.body) == (job.state, job.tube, job.body)
        return seen if same else None

    def _form(self, seen: SeenRun, change: Change, body: bytes, tube: str) -> SwfForm:
        old = seen.run.form
        kicked = old.kicked or (change.state == "ready" and change.job.state != "ready")
        state = "ready" if change.state == "delayed" and not change.delay else change.state
        return replace(
            old,
            tube=tube,
            state=state,
            delay=change.delay if state == "delayed" else 0.0,
            lease=self._lease,
            kicked=kicked,
            seen=seen.run.number,
            text=text_of(body),
        )

    def _signal(self, seen: SeenRun, form: SwfForm) -> None:
        same = (form.text, form.tube) == (seen.run.form.text, seen.run.form.tube)
        # a second one says the same of a form that is there no more, or to a run that has gone on as another one
        self._client.settle(
            "signal_workflow_execution",
            within=self._left(),
            **seen.execution,
            signalName=STATE if same else CHANGE,
            input=written(replace(form, text="") if same else form),
        )

    def _insert(self, new: NewForm) -> str | QueueError:
        delay = new.delay if new.state == "delayed" else 0.0
        if error := LIMITS.fault(new.body, new.tube, delay):
            return error
        form = form_of(new.body, new.tube, lease=self._lease, state=new.state, delay=delay)
        try:
            ref = start_another(self._client, key_of(new.body), form, within=self._left())
        except QueueRefused as error:
            self.refused = error
            return error
        except QueueError as error:
            return error
        self.refused = None
        return ref


def _gone(job: Job) -> JobNotFound:
    return JobNotFound(f"the job {job.ref} is gone, or no longer as it was seen")
