"""Moves to another engine what its own cannot show: it is received, put there, and only then ended here.

A delivery whose delay runs, or that is at work, cannot be received: it is there again for a later pass.
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import GlassqError, JobNotFound, JobTooBig, QueueError, Stopped
from glassq.operations.bulk import chosen
from glassq.operations.find import found_in, our_tubes, sees_all
from glassq.operations.result import Did, not_done, remark
from glassq.queues import open_receiver
from glassq.queues.base import Job, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.corrector import Corrector
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.operations.result import Report
    from glassq.queues import Receiver
    from glassq.queues.base import Inspector, TubeCounts
# So many are received before they are put together: few enough that no lease ends meanwhile.
PACKET = 10


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Deliveries go from `origin` to `target`: `put` puts a packet there, durably; `gone` is told what left here."""

    origin: Operations
    target: Operations
    put: Callable[[Sequence[Found]], Sequence[str | QueueError]]
    gone: Callable[[Found], None]


def waiting(origin: Operations, queue: Inspector) -> list[TubeCounts]:
    """The tubes in which something waits that can be received, and not be shown; none where the engine shows all."""
    if sees_all(queue):
        return []
    found = queue.counts(our_tubes(origin, queue))
    return [counts for counts in found if counts.ready and not counts.paused_for]


def paused(origin: Operations, queue: Inspector) -> Iterator[str]:
    """What stays, as nothing is received of a tube that is paused, a sentence each."""
    for counts in () if sees_all(queue) else queue.counts(our_tubes(origin, queue)):
        if counts.ready and counts.paused_for:
            yield (
                f"tube {counts.name} is paused, so nothing of it is received: "
                f"`glassq resume {shlex.quote(counts.name)}`"
            )


def move_received(arrivals: Arrivals, queue: Inspector, report: Report, progress: Progress) -> None:
    """Moves what can be received now; the report has what ended it.

    After a crash a packet is in both queues, and worked twice.
    """
    origin = arrivals.origin
    tubes = [counts.name for counts in waiting(origin, queue)] if report.error is None else []
    if not tubes:
        return
    moved = 0
    try:
        with ExitStack() as opened:
            receiver = opened.enter_context(closing(open_receiver(origin.settings)))
            ledger = opened.enter_context(arrivals.target.corrector(progress))
            while True:
                progress.advance(moved, 0, "received and moved so far")
                with progress.defer_signals():
                    held = _received(receiver, tubes)
                    _carry(arrivals, receiver, ledger, held, report)
                moved += len(held)
                if len(held) < PACKET:
                    return
    except Stopped as error:
        report.error = error
        report.results.append(remark("interrupted", f"{report.count(Did.MOVED)} were moved"))
    except GlassqError as error:
        report.error = error
        report.words.append(f"until then {report.count(Did.MOVED)} were moved; some may be in both queues")


def _received(receiver: Receiver, tubes: Sequence[str]) -> list[Reservation]:
    held: list[Reservation] = []
    while len(held) < PACKET and (reservation := receiver.reserve(tubes, 0)) is not None:
        held.append(reservation)
    return held


def _carry(
    arrivals: Arrivals, receiver: Receiver, ledger: Corrector, held: Sequence[Reservation], report: Report
) -> None:
    """Puts there what was received, and ends here what is there. What is not goes back. Raises QueueError."""
    found = [found_in(arrivals.origin, _job(each)) for each in held]
    fatal: QueueError | None = None
    for reservation, each, answer in zip(held, found, arrivals.put(found) if found else (), strict=True):
        if isinstance(answer, QueueError):
            with suppress(QueueError):
                receiver.release(reservation)
            report.results.append(not_done(each.ref, str(answer), job=each.ref, delivery=each.name or None))
            if not isinstance(answer, JobTooBig):
                fatal = fatal or answer
            continue
        # if another consumer has it by now, it is worked twice rather than never
        with suppress(JobNotFound):
            receiver.complete(reservation)
            arrivals.gone(each)
        ledger.held(each.delivery, answer, each.tube)
        report.results.append(chosen(each.ref, each).result(Did.MOVED, f"it was job {each.ref}, ready", job=answer))
    if fatal is not None:
        raise fatal


def _job(reservation: Reservation) -> Job:
    """What was received, as it was before."""
    losses = reservation.losses or 0
    return Job(
        reservation.ref, reservation.tube, "ready", reservation.body, 0.0, losses=losses, kicked=reservation.kicked
    )
