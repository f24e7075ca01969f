"""Puts one body, or a whole saved request, as a delivery, as if it had come as a ping."""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from glassq import delivery as envelope
from glassq.errors import BodyError, InvalidRequest, OperationError, PingRefused, SourceUnready
from glassq.mistakes import nearest
from glassq.operations.find import checked_tube, unworked
from glassq.operations.large import stored
from glassq.operations.saved_request import parse
from glassq.operations.words import span
from glassq.push.request import SOURCE as PUSH
from glassq.queues.base import NewJob, Refusal
from glassq.queues.durable import put_durably
from glassq.settings import ping_tube
from glassq.sources import HookRequest
from glassq.sources.opening import open_source
from glassq.worker.unrouted import MAX_ROLLOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Receipt
    from glassq.values import Size

# Labels are for routes to match, not for contents, in characters.
MAX_LABEL = 512
# How long a proof may take, in seconds.
PROOF_WITHIN = 5.0
# A source's name is a word in logs, tables, the ledger and URLs.
_SOURCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRequest:
    """As whose ping a body is put, and where to.

    A source of the settings checks the body and makes its labels, unless it is `unchecked`; else `labels` are taken.
    `tube` None means the source's. `delay` is in seconds.
    """

    source: str
    labels: Mapping[str, str]
    unchecked: bool = False
    tube: str | None = None
    delay: float = 0.0

    def check(self, operations: Operations) -> None:
        """Raises InvalidRequest."""
        if self.source == PUSH:
            raise InvalidRequest(
                'tasks are not put as files: a program adds them, with "from glassq import taskqueue; '
                'taskqueue.add(url=..., payload=...)"'
            )
        if not _SOURCE.fullmatch(self.source):
            raise InvalidRequest(
                f"--source {self.source}: expected a name of up to 64 of a-z 0-9 _ and -, a letter or digit first"
            )
        if self.labels and self.is_checked(operations):
            raise InvalidRequest(
                f"the labels come from the ping, as {self.source} has them: --label goes with --no-check"
            )
        if self.tube is not None:
            checked_tube("--tube", self.tube)
        with operations.queue() as queue:
            longest = queue.capabilities.max_delay
        if self.delay > longest:
            raise InvalidRequest(f"--delay: expected at most {longest // 86_400:g}d")

    def is_checked(self, operations: Operations) -> bool:
        """Whether the source checks the body and makes its labels."""
        return self.source in operations.settings.sources and not self.unchecked


@dataclass(frozen=True, slots=True)
class PutPlan:
    """The delivery that is going to be put, and where to; `delay` is in seconds."""

    delivery: Delivery
    tube: str
    delay: int

    def document(self, receipt: Receipt | None) -> dict[str, Any]:
        """What was put, for JSON; without a receipt, what would be."""
        return {
            "delivery": self.delivery.id if receipt else None,
            "job": receipt.ref if receipt else None,
            "source": self.delivery.source,
            "labels": self.delivery.labels,
            "tube": self.tube,
            "delay": self.delay,
            "bytes": len(self.delivery.body),
            "dry_run": receipt is None,
        }


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """The labels that KEY=VALUE name. Raises InvalidRequest."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and text.isprintable() and len(text) <= MAX_LABEL):
            raise InvalidRequest(f"--label {text}: expected KEY=VALUE, printable, up to {MAX_LABEL} characters")
        if key in found:
            raise InvalidRequest(f"--label {key} is given twice")
        found[key] = value
    return found


def plan(operations: Operations, request: PutRequest, data: bytes, progress: Progress) -> PutPlan:
    """The delivery of what a file holds: a body, or a whole request. Warns where nobody is going to work it.

    Raises InvalidRequest, and OperationError where intake would not take the body either.
    """
    request.check(operations)
    if not data:
        raise OperationError("the body is empty")
    if request.is_checked(operations):
        delivery = _checked(operations, request.source, data)
    else:
        most, key = _limit(operations, request.source)
        if len(data) > most:
            raise OperationError(f"a body is at most {most} ({key}), and this one is larger")
        delivery = envelope.new(request.source, data, dict(request.labels))
    tube = request.tube or ping_tube(operations.settings, request.source)(delivery.labels)
    made = _planned(delivery, tube, request.delay)
    if why := _unworked(operations, made):
        progress.warn(why)
    return made


def _limit(operations: Operations, source: str) -> tuple[Size, str]:
    """The largest body of a source, and the key that says so."""
    section = operations.settings.sources.get(source)
    if section is not None and section.max_body is not None:
        return section.max_body, f"[sources.{source}] max_body"
    return operations.settings.intake.max_body, "[intake] max_body"


def _planned(delivery: Delivery, tube: str, seconds: float) -> PutPlan:
    delay = math.ceil(seconds)
    due = delivery.received + timedelta(seconds=delay) if delay else None
    return PutPlan(msgspec.structs.replace(delivery, tube=tube, due=due), tube, delay)


def _checked(operations: Operations, name: str, data: bytes) -> Delivery:
    """The delivery that intake would make of it. Raises OperationError where it would not take it."""
    source, saved = open_source(operations.settings, name), parse(data, bare=True)
    request = HookRequest(saved.method, saved.target, saved.headers, saved.body, "", time.time())
    if len(saved.body) > source.max_body:
        raise OperationError(f"{name} takes {source.max_body} bytes, and this body has {len(saved.body)}")
    try:
        source.verify(request)
    except PingRefused as error:
        why = f"{name} does not take it: {error.detail}"
        if not saved.headers and error.reason.startswith("no "):
            why += " A body alone may lack what proves it: put a whole saved request, or sign it anew with "
            why += f"`glassq ping {name} FILE`"
        raise OperationError(f"{why} (--no-check puts it all the same)") from None
    except SourceUnready as error:
        raise OperationError(f"nobody can tell now whether {name} takes it: {error}") from None
    found = source.describe(request)
    return envelope.new(name, saved.body, found.labels, content_type=found.content_type, headers=found.headers)


def _unworked(operations: Operations, plan: PutPlan) -> str:
    """Why nobody is going to work it, in words; "" where somebody is."""
    if why := unworked(operations, plan.tube):
        return why
    delivery, settings = plan.delivery, operations.settings
    if any(route.wants(delivery.source, delivery.labels) for route in settings.routes):
        return ""
    routed = {route.source for route in settings.routes}
    if delivery.source in (PUSH, *settings.sources, *routed):
        return f"no route takes it: glassq-worker drops it ([[routes]] in {settings.file})"
    meant = nearest(delivery.source, sorted({*settings.sources, *routed}))
    waits = f"glassq-worker tries it again for {span(MAX_ROLLOUT)}, then buries it"
    return f"no route takes it, and there is no [sources.{delivery.source}] in {settings.file}{meant}; {waits}"


def carry_out(operations: Operations, plan: PutPlan, progress: Progress) -> Receipt:
    """Puts the delivery; its receipt, once it is durable.

    Raises QueueError. Then the delivery is not in the queue; where it may be there all the same, this warns of it.
    """
    delivery = plan.delivery
    if len(delivery.body) > operations.settings.queue.url.inline:
        delivery = stored(operations.bodies, delivery)
    job = NewJob(delivery.id, envelope.encode(delivery, operations.settings.queue.url.largest), plan.tube, plan.delay)
    with operations.producer() as producer:
        answer = put_durably(producer, job, within=math.inf, proof_within=PROOF_WITHIN)
    if not isinstance(answer, Refusal):
        return answer
    if answer.in_doubt:
        show = f"`glassq show {delivery.id}` tells, once the queue is back"
        progress.warn(f"perhaps it was put all the same: {show}")
    else:
        _drop_body(operations, delivery)
    raise answer.error


def _drop_body(operations: Operations, delivery: Delivery) -> None:
    """The delivery is nowhere."""
    # what cannot be removed is swept in time
    with suppress(BodyError):
        if delivery.stored is not None:
            operations.bodies.delete(delivery.id)
