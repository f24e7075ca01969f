"""`glassq move`: deliveries go into another tube, in the state they have."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.corrector import corrector
from glassq.cli.find import checked_tube, is_ours, look, unworked
from glassq.cli.jobs import Done, each_found, limit, number, refused, report, state_words, whole
from glassq.cli.output import confirm, each_of, line, short_words
from glassq.cli.where import BURIED, WAITING, Where, filters, lying, nothing, waiting
from glassq.delivery import encode
from glassq.errors import JobNotFound, JobTooBig, QueueError, QueueRefused
from glassq.worker.consumer import BURY_DELAY
from glassq.worker.outcome import after_kick, after_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from glassq.cli.corrector import Corrector
    from glassq.cli.find import Found
    from glassq.queues import Queue
    from glassq.queues.beanstalk.protocol import ScanShort

T = TypeVar("T")


@click.command(
    epilog=examples(
        ("all that was left behind when [queue] tube was renamed", "glassq move --from old-name --to glassq"),
        ("a poisoned kind, aside for a pool of its own", "glassq move --where 'error~MemoryError' --to glassq-large"),
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=completion.buried_ids)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="TUBE",
    shell_complete=completion.tubes,
    help="Where they go; the tube need not be there yet.",
)
@click.option("--all", "everything", is_flag=True, help="Every buried delivery, those of push queues too.")
@click.option(
    "--from",
    "origin",
    metavar="TUBE",
    shell_complete=completion.tubes,
    help="All that waits in this tube: ready, delayed and buried.",
)
@filters
@limit
@dry_run
@yes
@as_json
@pass_app
def move(
    app: App,
    ids: tuple[str, ...],
    target: str,
    everything: bool,
    origin: str | None,
    where: Where,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Put deliveries into another tube: ready, delayed (for the time that is left) or buried, as they are.

    By id whatever waits; all that lies buried, or what of that fits; or with --from all that waits in a tube, which may
    be one that these settings do not name any more. What is being worked stays. A pool takes pings whose handler is a
    URL back into the tube of their push queue.
    """
    _check(ids, target, everything, origin, where, limit)
    if why := unworked(app, target):
        click.echo(f"glassq: {line(why)}", err=True)
    with app.queue() as queue, corrector(app) as ledger:
        mover = Mover(queue, ledger, target, origin, where, dry_run)
        if ids:
            found, done = each_found(queue, app, ids)
            _each(found, lambda each: mover.named(*each), done, len(found), as_json)
            return report(done, as_json)
        done = _bulk(app, mover, limit, ask=not (yes or dry_run), as_json=as_json)
        if origin and (held := queue.stats_tube(origin).reserved):
            click.echo(
                f"glassq: {number(held)} of tube {line(origin)} at work now: what is tried again stays in that tube, "
                "until the same command is given again",
                err=True,
            )
    return report(done, as_json, f"nothing waits in tube {line(origin)} that fits" if origin else nothing(where))


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves jobs to the tube `target`, one at a time; with `origin` those of that tube, which may not be ours."""

    queue: Queue
    ledger: Corrector
    target: str
    origin: str | None
    where: Where
    dry_run: bool

    def fitting(self, app: App, on_short: Callable[[ScanShort], None]) -> Iterator[Found]:
        """The jobs that are meant, newest first."""
        if self.origin is not None:
            return waiting(app, self.queue, self.where, self.origin, on_short)
        found = lying(app, self.queue, self.where, on_short)
        return (each for each in found if each.stats.tube != self.target)

    def named(self, text: str, found: Found) -> Done:
        """Moves the job of an id."""
        stats = found.stats
        if not is_ours(self.queue.tube, stats.tube):
            return refused(text, found, f"it is in tube {stats.tube}, which is not ours; --from names a whole tube")
        if stats.tube == self.target:
            return refused(text, found, "it is in that tube already")
        if stats.state == "reserved":
            return refused(text, found, "a consumer works it right now: try again when that is over")
        return self._move(text, found)

    def chosen(self, job: int) -> Done:
        """Moves one of those that fitted; while the operator was asked, time went by."""
        try:
            found = look(self.queue, job)
        except JobNotFound:
            return Done(str(job), job, None, "nothing", "it was worked or removed meanwhile")
        stats, at = found.stats, self.origin
        there = stats.tube == at if at else is_ours(self.queue.tube, stats.tube) and stats.tube != self.target
        if not (there and stats.state in (WAITING if at else BURIED) and self.where.fits(found)):
            return refused(str(job), found, "it is another one's job by now, or does not wait there any more")
        return self._move(str(job), found)

    def _move(self, text: str, found: Found) -> Done:
        told = f"it was job {found.job.id} of tube {found.stats.tube}, {state_words(found)}"
        if self.dry_run:
            return Done(text, found.job.id, found.name or None, "would be moved", told)
        try:
            holder = carry(self.queue, found, self.target)
        except JobNotFound:
            return refused(text, found, "it was worked or removed meanwhile")
        except JobTooBig as error:
            return refused(text, found, str(error))
        self.ledger.held(found.delivery, holder, self.target)
        return Done(text, holder, found.name or None, "moved", told)


def carry(queue: Queue, found: Found, target: str) -> int:
    """Puts what the job holds into the tube `target`, and ends the job; returns the id of the one that holds it now.

    First the put, as ever: dying between two steps leaves two jobs, never none. The new one is delayed until the old
    one is ours, so that nobody works both. Raises JobNotFound where somebody else took the old one meanwhile.
    """
    old, stats = found.job, found.stats
    # beanstalkd cuts the time that is left to whole seconds; nothing is ready before its time
    delay = stats.time_left + 1 if stats.state == "delayed" and not _lies(found) else BURY_DELAY
    holder = queue.put(_carried(found), delay=delay, tube=target)
    try:
        if queue.peek(old.id).body != old.body:
            raise JobNotFound("it is another delivery's job by now")
        queue.reserve_job(old.id)
    except JobNotFound:
        queue.delete(holder)
        raise
    if _lies(found):
        queue.reserve_job(holder)
        queue.bury(holder)
    queue.delete(old.id, held=True)
    if stats.state == "ready" and not _lies(found):
        # where that took so long that somebody works it by now, there is nothing to free
        with suppress(JobNotFound):
            queue.reserve_job(holder)
            queue.release(holder)
    return holder


def _lies(found: Found) -> bool:
    """Whether it is buried, or somebody died while burying it: that is brought to its end here."""
    marked = found.delivery is not None and found.delivery.buried != ""
    return found.stats.state == "buried" or (marked and not found.stats.kicks)


def _carried(found: Found) -> bytes:
    """The same delivery for a job whose counters begin at 0; to the byte the same where they have nothing to tell."""
    delivery = found.delivery
    if delivery is None:
        return found.job.body
    if delivery.buried and not _lies(found):
        # the new job will not know that it was kicked
        delivery = after_kick(delivery)
    elif _lies(found) and not delivery.buried:
        # so that a pool buries it where we die in between
        delivery = msgspec.structs.replace(delivery, buried=found.reason)
    elif not found.lost:
        return found.job.body
    return encode(after_loss(delivery) if found.lost else delivery)


def _check(
    ids: tuple[str, ...], target: str, everything: bool, origin: str | None, where: Where, limit: int | None
) -> None:
    """Raises click.UsageError."""
    checked_tube("--to", target)
    if origin is not None and checked_tube("--from", origin) == target:
        raise click.UsageError("--from and --to name the same tube")
    if origin is not None and (everything or where.tube is not None):
        raise click.UsageError("--from means all that waits in a tube: expected it without --all and --tube")
    if bool(ids) == (everything or origin is not None or bool(where)):
        raise click.UsageError("expected either ids, or which deliveries are meant (--help tells how)")
    if ids and limit:
        raise click.UsageError("--limit goes with --all, --from or filters, not with ids")


def _bulk(app: App, mover: Mover, limit: int | None, *, ask: bool, as_json: bool) -> list[Done]:
    short: list[ScanShort] = []
    # as they were put, so that those that are ready stay in their order
    jobs = sorted(found.job.id for found in islice(mover.fitting(app, short.append), limit))
    confirm(f"move {number(len(jobs))} to tube {line(mover.target)}?", needed=bool(jobs) and ask)
    done: list[Done] = []
    _each(jobs, mover.chosen, done, len(jobs), as_json)
    return [*done, *(Done("--all", None, None, "nothing", short_words(each)) for each in short)]


def _each(things: Iterable[T], act: Callable[[T], Done], done: list[Done], total: int, as_json: bool) -> None:
    """Acts on one after the other; whatever ends that, it is said what was done."""
    try:
        for thing in each_of(things, "moved so far", total):
            with whole():
                done.append(act(thing))
    except KeyboardInterrupt:
        why = f"interrupted: {_moved(done)} of {total} are moved"
        done.append(Done("move", None, None, "nothing", why))
    except QueueError as error:
        report(done, as_json)
        words = f"{_moved(done)} of {total} were moved"
        if not isinstance(error, QueueRefused):
            words += "; the one after them may be in both tubes"
        click.echo(f"glassq: until then {words}", err=True)
        raise


def _moved(done: list[Done]) -> int:
    return sum(each.did == "moved" for each in done)
