"""Moves all deliveries of a queue to another engine, in the state they have, while pings may still come.

One pass takes what waits at its start. What is at work stays, and is there again for a later pass if it is retried.
What an engine cannot show is received (move_received.py).
"""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from glassq.bodies import write_all
from glassq.bodies.queue_holder import hold_queue, queue_id
from glassq.errors import BodyError, BodyLost, InvalidRequest, JobTooBig, QueueError, SettingsError, Stopped
from glassq.operations import Operations
from glassq.operations.bulk import Plan, act_on_packet, plan_found, run, state_words
from glassq.operations.filters import Filter
from glassq.operations.find import Search, is_ours, our_tubes, sees_all, waiting_matching, walk
from glassq.operations.large import check_store, fitted
from glassq.operations.move import moved
from glassq.operations.move_received import Arrivals, move_received, waiting
from glassq.operations.move_received import paused as held_back
from glassq.operations.pace import packets_of
from glassq.operations.result import Did, Report
from glassq.queues.base import NewForm
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.operations.bulk import Chosen
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector, TubeCounts
    from glassq.settings import Settings

# How long a move that goes on waits until it looks again, in seconds.
INTERVAL = 1.0


@dataclass(frozen=True)
class EngineMove:
    """Two installations that differ in the engine of their queue: deliveries go from `origin` to `target`."""

    origin: Operations
    target: Operations

    @property
    def names_other_store(self) -> bool:
        """Whether large bodies have another URL there."""
        return str(self.origin.settings.bodies.url) != str(self.target.settings.bodies.url)

    @cached_property
    def copies_bodies(self) -> bool:
        """Whether large bodies lie elsewhere there: two URLs may name one store. Raises BodyError."""
        if not self.names_other_store:
            return False
        here, there = self.origin.bodies, self.target.bodies
        mark = f"move-{os.urandom(8).hex()}"
        there.prepare()
        # of now: it holds no orphan, should it stay
        there.hold(mark, time.time(), "a move that looks whether two stores are one")
        try:
            return all(holder.key != mark for holder in here.holders())
        finally:
            there.let_go(mark)

    def hold(self) -> None:
        """Says that jobs of both queues name bodies, also where one store serves both. Raises BodyError."""
        for each in (self.origin, self.target):
            hold_queue(each.bodies, each.settings.queue.url)

    def left_behind(self) -> Iterator[str]:
        """What is not moved, a sentence each."""
        here, there = self.origin.settings, self.target.settings
        if here.ledger.url != there.ledger.url:
            yield (
                f"the ledger stays in {without_password(here.ledger.url)}: there `glassq show` knows what happened "
                "until now; a delivery carries the story of its own attempts"
            )
        if not self.names_other_store:
            yield f"large bodies stay in {without_password(str(here.bodies.url))}: [bodies] url must name it there, too"
        if here.push is not None and there.push is not None and here.push.names != there.push.names:
            yield (
                f"names of tasks that are taken stay in {without_password(here.push.names)}: a task of such a name can "
                "be added once more"
            )


def between(operations: Operations, other: Settings, *, arriving: bool = False) -> EngineMove:
    """The move from the queue of the settings to that of the `other` settings, or with `arriving` the other way round.

    Raises InvalidRequest.
    """
    if other.queue.url == operations.settings.queue.url:
        raise InvalidRequest(f"{other.queue.url} is the queue of these settings already")
    installation = Operations(other, actor=operations.actor)
    return EngineMove(installation, operations) if arriving else EngineMove(operations, installation)


def plan(move: EngineMove, queue: Inspector, progress: Progress) -> Plan:
    """What one pass takes: all that waits now, tube by tube, in the order of the puts.

    Where the engine cannot show all of that, what it shows; `unseen` counts the rest.
    """
    chosen: list[Chosen] = []
    results: list[Result] = []
    for tube in our_tubes(move.origin, queue):
        if sees_all(queue):
            found = Search(waiting_matching(move.origin, queue, Filter(), tube, progress))
        else:
            found = Search(walk(move.origin, queue, queue.capabilities.lists, [tube], progress))
        part = plan_found(found, Did.MOVED)
        chosen += part.chosen[::-1]
        results += part.results
    return Plan(Did.MOVED, tuple(chosen), tuple(results))


def unseen(move: EngineMove, queue: Inspector) -> int:
    """About how many wait that the engine cannot show; a pass receives them."""
    return sum(counts.ready for counts in waiting(move.origin, queue))


def check(move: EngineMove, queue: Inspector, there: Inspector, first: Plan, *, follow: bool = False) -> None:
    """Raises QueueError if what was planned, or what may follow, or a pause, would not be taken there now.

    Raises SettingsError or BodyError if bodies must be stored for it, and cannot be.
    """
    target = move.target.settings
    if large := sum(target.queue.url.needs_store(each.body) for each in first.chosen):
        words = "1 body is" if large == 1 else f"{large} bodies are"
        check_store(target, move.target.bodies, f"{words} too large for a job there")
    paused = any(counts.paused_for for counts in left(move, queue))
    there.check(aside=follow or paused or any(each.state != "ready" for each in first.chosen))


def carry_out(
    move: EngineMove, queue: Inspector, there: Inspector, first: Plan, progress: Progress, *, follow: bool = False
) -> Report:
    """Moves what still waits as it was planned. With `follow` it goes on with what comes, until it is stopped.

    A tube that is paused is paused there as well. Each delivery is durable there before it goes here.
    """
    report = Report(list(first.results))
    check(move, queue, there, first, follow=follow)
    for words in held_back(move.origin, queue):
        progress.warn(words)
    paused = _pause(move, queue, there)
    _pass(move, queue, there, first, report, progress)
    for tube, seconds in paused.items():
        there.pause(tube, seconds)
    idle = False
    while follow and report.error is None:
        try:
            progress.wait(INTERVAL if idle else 0.0)
            following = plan(move, queue, progress)
        except Stopped:
            # between two passes nothing is half done: that is how it ends
            break
        idle = not following.chosen and not unseen(move, queue)
        _pass(move, queue, there, following, report, progress)
    # else its silence ends it
    with suppress(BodyError, QueueError):
        if report.error is None and not left(move, queue):
            move.origin.bodies.let_go(queue_id(move.origin.settings.queue.url))
    return report


def left(move: EngineMove, queue: Inspector) -> list[TubeCounts]:
    """The tubes of ours that still hold jobs."""
    return [counts for counts in queue.counts() if counts.jobs and is_ours(move.origin.tube, counts.name)]


def _pause(move: EngineMove, queue: Inspector, there: Inspector) -> Mapping[str, int]:
    """Pauses there what is paused here; what could not be, as the tube does not exist there yet."""
    paused = {counts.name: counts.paused_for for counts in left(move, queue) if counts.paused_for}
    return {tube: seconds for tube, seconds in paused.items() if not there.pause(tube, seconds)}


def _pass(
    move: EngineMove, queue: Inspector, there: Inspector, planned: Plan, report: Report, progress: Progress
) -> None:
    with move.target.corrector(progress) as ledger:

        def act(packet: Sequence[Chosen]) -> Iterator[Result]:
            return act_on_packet(move.origin, queue, packet, lambda found: _change(move, queue, there, found), told)

        def told(each: Chosen, found: Found, holder: str) -> Result:
            ledger.held(found.delivery, holder, found.tube)
            return each.result(Did.MOVED, f"it was job {found.ref}, {state_words(found.job)}", job=holder)

        in_doubt = "some of those after them may be in both queues, and are worked twice then"
        run(report, planned, packets_of(planned.chosen), act, progress, in_doubt=in_doubt)
    arrivals = Arrivals(
        move.origin, move.target, lambda found: _put(move, there, found), lambda found: _left(move, found)
    )
    move_received(arrivals, queue, report, progress)


def _change(
    move: EngineMove, queue: Inspector, there: Inspector, packet: Sequence[Found]
) -> Sequence[str | QueueError]:
    """Puts these jobs there, and deletes here what is durable there; for each its new reference, or what went wrong."""
    answers = _put(move, there, packet)
    there_now = [number for number, answer in enumerate(answers) if isinstance(answer, str)]
    gone = queue.delete_all([packet[number].job for number in there_now])
    for number, error in zip(there_now, gone, strict=True):
        if error is not None:
            answers[number] = error
        else:
            _left(move, packet[number])
    return answers


def _left(move: EngineMove, found: Found) -> None:
    """It is in the other queue alone: so are its bodies, where they went along."""
    if found.delivery is not None and found.delivery.stored_keys and move.copies_bodies:
        move.origin.delete_body(found.delivery)


def _put(move: EngineMove, there: Inspector, packet: Sequence[Found]) -> list[str | QueueError]:
    """Puts these jobs there, with what they have stored; for each its reference, or what went wrong."""
    forms = [_form(move, found) for found in packet]
    needs_store = move.target.settings.queue.url.needs_store
    deliveries = [found.delivery for found in packet if found.delivery is not None]
    if any(each.stored_keys or needs_store(len(each.body)) for each in deliveries):
        move.hold()
    answers = iter(there.insert_all([form for form in forms if isinstance(form, NewForm)]))
    return [next(answers) if isinstance(form, NewForm) else form for form in forms]


def _form(move: EngineMove, found: Found) -> NewForm | JobTooBig:
    """What is put there: whatever it has stored is in the store by now, and so is a body that no job there holds."""
    for key in found.delivery.stored_keys if found.delivery is not None else ():
        if move.copies_bodies:
            _copy_body(move, key)
        else:
            # its job moves
            with suppress(BodyError):
                move.target.bodies.touch(key)
    target = move.target.settings
    if found.delivery is not None:
        try:
            found = replace(found, delivery=fitted(target, move.target.bodies, found.delivery))
        except SettingsError as error:
            return JobTooBig(str(error))
    change = moved(found, found.tube, target.queue.url.largest)
    return NewForm(change.body or found.job.body, found.tube, change.state, change.delay)


def _copy_body(move: EngineMove, key: str) -> None:
    """Into the store of the target. What is lost already is lost there as well."""
    with suppress(BodyLost), closing(move.origin.bodies.open(key)) as body:
        # should an earlier try have left one
        move.target.bodies.prepare()
        move.target.bodies.delete(key, "unfinished")
        write_all(body, move.target.bodies.begin(key))
