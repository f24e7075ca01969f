"""Puts an edited copy of a delivery: a new delivery, marked as the old one's replay. The old one stays as it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq import delivery as envelope
from glassq.errors import GlassqError, NotFound, Unsupported
from glassq.operations import put
from glassq.operations.edited_body import diff, editable_text, unmasked
from glassq.operations.find import unworked
from glassq.operations.put import PutPlan
from glassq.operations.result import Did, Report, Result, not_done
from glassq.operations.story import tell
from glassq.push.request import SOURCE as PUSH
from glassq.push.request import tube_of
from glassq.settings import ping_tube
from glassq.worker.duplicates import REPLAY_OF

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.operations.story import Story
    from glassq.queues.base import Inspector


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The delivery `put` that is going to be put, a copy of `old`.

    `diff` is what is changed in its body, masked; `digests` are the SHA-256 of both bodies, in hex.
    """

    old: str
    put: PutPlan
    diff: tuple[str, ...]
    digests: tuple[str, str]


def plan(operations: Operations, queue: Inspector, text: str, body: str, progress: Progress) -> CopyPlan:
    """The copy of the delivery that `text` names, with a body that was made of its masked one.

    Raises what `story.tell` raises; Unsupported where its body is not here whole, and InvalidRequest where the edited
    one cannot be used.
    """
    story = tell(operations, queue, text, progress)
    old, before, more = _whole(story)
    after = unmasked(before, body)
    source, labels = more.pop("source"), {**more.pop("labels"), REPLAY_OF: old}
    if source == PUSH:
        tube = tube_of(operations.tube, labels.get("queue", ""))
    else:
        tube = ping_tube(operations.settings, source)(labels)
    if why := unworked(operations, tube):
        progress.warn(why)
    new = envelope.new(source, after, labels, tube=tube, **more)
    digests = hashlib.sha256(before).hexdigest(), hashlib.sha256(after).hexdigest()
    return CopyPlan(old, PutPlan(new, tube, 0), diff(before, after), digests)


def form_text(story: Story) -> str:
    """The masked body for a field of a form. Raises as `plan`."""
    return editable_text(_whole(story)[1])


def _whole(story: Story) -> tuple[str, bytes, dict[str, Any]]:
    """See `_kept`. Raises Unsupported beside."""
    if story.large is not None:
        raise Unsupported("its body is too large for a job: it is put as it is, by `glassq replay`")
    return _kept(story)


def _kept(story: Story) -> tuple[str, bytes, dict[str, Any]]:
    """The delivery's id, its body, and what else its copy has. Raises NotFound."""
    delivery: Delivery | None = story.found.delivery if story.found else None
    if delivery is not None:
        names = ("source", "labels", "content_type", "headers")
        return delivery.id, delivery.body, {name: getattr(delivery, name) for name in names}
    if story.entry is None or story.stored is None:
        raise NotFound("neither the queue nor the ledger has its body ([ledger] keep_bodies)")
    kept = {name: value for name, value in story.stored.kept.items() if name in ("content_type", "headers")}
    return (
        story.entry.delivery,
        story.stored.body,
        {**kept, "source": story.stored.source, "labels": story.stored.labels},
    )


def carry_out(operations: Operations, plan: CopyPlan, progress: Progress) -> Report:
    """Puts the copy. What goes wrong is in the report."""
    before, after = plan.digests
    words = f"sha256 {before[:16]} became {after[:16]}"
    try:
        receipt = put.carry_out(operations, plan.put, progress)
    except GlassqError as error:
        return Report([not_done(plan.old, str(error), delivery=plan.old)], error=error)
    new = plan.put.delivery.id
    result = Result(plan.old, receipt.ref, new, Did.REPLAYED, f"an edited copy of {plan.old}: {words}")
    return Report([result], words=[f"replayed as {new}, edited: {words}"])
