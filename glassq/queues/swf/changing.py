"""What operators put, change and delete: executions that start, signals, and executions that are terminated.

A signal names the form of the delivery that the operator has seen. Whoever decides takes it only while the delivery has
that form, and nobody works it. Until then a worker may take what waits for one, so it is told as done only afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq.errors import JobNotFound, QueueError, QueueRefused
from glassq.queues.aws.text import text_of
from glassq.queues.key import key_of
from glassq.queues.swf.forms import LIMITS, SwfForm, form_of, written
from glassq.queues.swf.history import CHANGE, STATE, Phase, read_history
from glassq.queues.swf.looking import events_of
from glassq.queues.swf.names import id_of
from glassq.queues.swf.starting import start_another

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import Change, Job, NewForm
    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import KnownRuns, Left, SeenRun


# Within so many seconds deciders have decided, if there are any; so often it is looked whether they have.
DECIDED_WITHIN, LOOK_AGAIN = 3.0, 0.1


@dataclass(frozen=True, slots=True)
class AskedRun:
    """A run whose delivery is to have this form."""

    ref: str
    seen: SeenRun
    form: SwfForm


class RunChanger:
    """Puts, changes and deletes, for one thread. `left` says how long a call may take, in seconds.

    `refused` says why the last execution was refused, if it was.
    """

    def __init__(self, client: SwfClient, runs: KnownRuns, left: Left, *, lease: int) -> None:
        self._client = client
        self._runs = runs
        self._left = left
        self._lease = lease
        self.refused: QueueRefused | None = None

    def insert(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        """For each form its reference, or why it is not there."""
        return [self._insert(form) for form in forms]

    def change(self, changes: Sequence[Change]) -> list[str | QueueError]:
        """For each change the job's reference, or why it is as it was, or may be."""
        asked = [self._ask(change) for change in changes]
        until = time.monotonic() + DECIDED_WITHIN
        return [self._decided(each, until) if isinstance(each, AskedRun) else each for each in asked]

    def _ask(self, change: Change) -> AskedRun | str | QueueError:
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
            form = self._form(seen, change, body, tube)
            self._signal(seen, form)
        except QueueError as error:
            return error
        # no worker takes what is buried
        return job.ref if seen.run.phase is Phase.BURIED else AskedRun(job.ref, seen, form)

    def _decided(self, asked: AskedRun, until: float) -> str | QueueError:
        """The reference, once the delivery goes on in its form; else what came between, or that nobody knows yet."""
        seen, form = asked.seen, asked.form
        while True:
            try:
                run = read_history(events_of(self._client, seen.workflow, seen.run_id, self._left))
            except QueueError as error:
                return error
            same = (run.form.state, run.form.tube, run.form.text) == (form.state, form.tube, form.text)
            if same and (run.is_settled or (run.phase is Phase.CLOSED and run.successor)):
                return asked.ref
            if run.phase in (Phase.RESERVED, Phase.DONE, Phase.CLOSED):
                return JobNotFound(f"the job {asked.ref}: a worker took it before that was decided")
            if time.monotonic() >= until:
                return JobNotFound(
                    f"the job {asked.ref}: asked, and not decided yet: a worker may take it first; does the pool run?"
                )
            time.sleep(LOOK_AGAIN)

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
        seen = self._runs.find(id_of(job.ref))
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
