"""Activity tasks that are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.queues.base import Reservation
from glassq.queues.swf.forms import read_form
from glassq.queues.swf.names import ref_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class HeldTask:
    """An activity task that is ours until its lease ends, at `until` (monotonic)."""

    tube: str
    reservation: Reservation
    lease: int
    until: float

    @property
    def token(self) -> str:
        """What whoever knows it can answer with."""
        return self.reservation.handle


def held_task(answer: Mapping[str, Any], tube: str, since: float) -> HeldTask:
    """The task in a poll's answer, whose lease began at `since` (monotonic)."""
    form = read_form(answer.get("input", ""), tube)
    reservation = Reservation(
        ref_of(answer["workflowExecution"]["workflowId"]),
        tube,
        form.body,
        form.lease,
        form.losses,
        form.kicked,
        answer["taskToken"],
    )
    return HeldTask(tube, reservation, form.lease, since + form.lease)
