"""`glassq replay`: deliveries that are done, dropped or lost are put again, as new ones, out of the ledger."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from glassq import delivery as envelope
from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.find import unworked
from glassq.cli.jobs import Done, number, whole
from glassq.cli.output import confirm, each_of, line
from glassq.cli.pace import Pace, per_second
from glassq.cli.replay_choice import LOST, STATES, Choice, Replayed, Which
from glassq.cli.told import LEFT_OUT, either, told
from glassq.cli.where import seconds
from glassq.errors import JobNotFound, JobTooBig, LedgerError, QueueError, SettingsError
from glassq.push.request import SOURCE as PUSH
from glassq.push.request import tube_of
from glassq.queues.beanstalk.receiver import BURY_DELAY
from glassq.worker.duplicates import REPLAY_OF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.ledger.corrections import Corrections
    from glassq.ledger.reader import LedgerReader, StoredBody
    from glassq.queues import Queue


@click.command(
    epilog=examples(
        ("after a route was added for what was dropped", "glassq replay --state dropped --where 'reason~no route'"),
        ("what a faulty handler did in the last hours, slowly", "glassq replay --newer-than 3h --rate 5/s"),
        ("what was buried or retried in a queue whose files are gone", "glassq replay --state lost"),
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--state",
    type=click.Choice((*STATES, LOST)),
    help="Those in this state (with other filters: done); lost: neither over nor in the queue.",
)
@click.option("--source", metavar="SOURCE", shell_complete=completion.sources, help='Only from this source: "mirror".')
@click.option(
    "--where",
    multiple=True,
    metavar="reason~REGEX",
    help="Only those in whose reason, or with result~REGEX in whose result, this is found; of several, each.",
)
@click.option("--newer-than", metavar="DURATION", help='Only those that came in less long ago than this: "2h".')
@click.option("--older-than", metavar="DURATION", help='Only those that came in longer ago than this: "2d".')
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many of those that fit, the oldest.")
@click.option("--rate", metavar="N/s", help='Not faster than this: "10/s", "30/m", "5/h".')
@click.option("--again", is_flag=True, help="Also those that were replayed before.")
@dry_run
@yes
@as_json
@pass_app
def replay(
    app: App,
    ids: tuple[str, ...],
    state: str | None,
    source: str | None,
    where: tuple[str, ...],
    newer_than: str | None,
    older_than: str | None,
    limit: int | None,
    rate: str | None,
    again: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Put deliveries again that are done, dropped or lost: by id, or those that fit, the oldest first.

    Each becomes a new delivery with the same body, which is not dropped as a duplicate of what was done before; its
    label replay_of names the old one. The ledger keeps the bodies ([ledger] keep_bodies).
    """
    which = Which(
        state=state,
        source=source,
        patterns=tuple(map(_pattern, where)),
        newer=None if newer_than is None else seconds("--newer-than", newer_than),
        older=None if older_than is None else seconds("--older-than", older_than),
    )
    either(ids, bool(which), "ones that are over or lost", bool(limit))
    pace = Pace(per_second(rate) if rate else None)
    with app.ledger() as ledger, app.queue() as queue:
        choice = Choice(app, ledger, queue, again)
        if ids:
            choice.by_id(ids)
        else:
            choice.by_filter(which, limit)
        chosen = choice.chosen
        confirm(f"replay {number(len(chosen))}?", needed=bool(chosen and not ids) and not (yes or dry_run))
        done = choice.done
        if dry_run:
            done += [Replayed(each, None, each, "would be replayed") for each in chosen]
            return told(done, as_json, _sum(len(chosen), ids, which, "would be replayed"), every=True)
        if chosen:
            _put(app, ledger, queue, chosen, pace, done, as_json, every=bool(ids), anew=again)
        replayed = sum(each.did == "replayed" for each in done)
        return told(done, as_json, _sum(replayed, ids, which, "replayed"), every=bool(ids))


def _sum(count: int, ids: Sequence[str], which: Which, did: str) -> str:
    if count or ids:
        return f"{number(count)} {did}"
    hint = "; --state dropped looks among those that were dropped" if which.state is None else ""
    return f"nothing that is {which.state or 'done'} is left to replay{hint}"


def _put(
    app: App,
    ledger: LedgerReader,
    queue: Queue,
    chosen: Sequence[str],
    pace: Pace,
    done: list[Done],
    as_json: bool,
    *,
    every: bool,
    anew: bool,
) -> None:
    from glassq.ledger.corrections import Corrections

    before = len(done)
    with Corrections(app.settings.ledger) as replays:
        again = Again(app, ledger, queue, replays, anew)
        try:
            for index in each_of(pace.paced(range(len(chosen))), "replayed so far", len(chosen)):
                # an interrupt must not lose sight of this one either
                with whole():
                    done.append(again.put(chosen[index]))
        except (QueueError, LedgerError, SettingsError, KeyboardInterrupt) as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            next_time = "would replay those again" if anew or again.unmarked else "goes on with the rest"
            words = f"{why}: {len(done) - before} of {len(chosen)} were looked at; the same command {next_time}"
            done.append(Done("the rest", None, None, "nothing", words))
            told(done, as_json, every=every)
            raise


@dataclass(slots=True)
class Again:
    """Puts deliveries again, each marked in the ledger once it is in the queue."""

    app: App
    ledger: LedgerReader
    queue: Queue
    replays: Corrections
    again: bool
    unmarked: bool = False
    _unworked: dict[str, str] = field(default_factory=dict)

    def put(self, old: str) -> Done:
        """First the put, then the mark: dying between the two makes a duplicate, never a loss. Raises QueueError."""
        content = self.ledger.stored_body(old)
        if content is None:
            return Replayed(old, None, old, "nothing", "its entry went meanwhile")
        tube = self._tube(content)
        if content.replayed and not self.again:
            return Replayed(old, None, old, LEFT_OUT, "somebody else replayed it meanwhile", content.replayed)
        if why := self._nobodys(tube):
            return Replayed(old, None, old, "nothing", why)
        new = envelope.new(content.source, content.body, {**content.labels, REPLAY_OF: old})
        try:
            # delayed until it is ours to replay: two operators may do so at once
            job = self.queue.put(envelope.encode(new), delay=BURY_DELAY, tube=tube)
        except JobTooBig as error:
            return Replayed(old, None, old, "nothing", str(error))
        if not self._mark(old, new.id, content.replayed):
            self.queue.delete(job)
            return Replayed(old, None, old, LEFT_OUT, "somebody else replayed it meanwhile")
        # where that took so long that it is ready by itself, there is nothing to do
        with suppress(JobNotFound):
            self.queue.kick(job)
        return Replayed(old, job, old, "replayed", f"as {new.id}, job {job}", new.id)

    def _tube(self, content: StoredBody) -> str:
        """A task goes into the tube of its push queue; a ping into the main one, like all pings."""
        main = self.queue.tube
        return tube_of(main, content.labels.get("queue", "")) if content.source == PUSH else main

    def _nobodys(self, tube: str) -> str:
        if tube not in self._unworked:
            self._unworked[tube] = unworked(self.app, tube)
        return self._unworked[tube]

    def _mark(self, old: str, new: str, before: str) -> bool:
        if self.unmarked:
            return True
        try:
            return self.replays.replayed(old, new, before)
        except (LedgerError, SettingsError) as error:
            self.unmarked = True
            words = "what is replayed cannot be marked, so the same command would replay it again"
            click.echo(line(f"glassq: {words}: {error}"), err=True)
            return True


def _pattern(text: str) -> tuple[str, re.Pattern[str]]:
    name, tilde, regex = text.partition("~")
    if (name.strip(), tilde) not in (("reason", "~"), ("result", "~")) or not regex:
        raise click.UsageError(f"--where {line(text)}: expected reason~REGEX or result~REGEX")
    try:
        return name.strip(), re.compile(regex)
    except re.error as error:
        raise click.UsageError(f"--where {line(text)}: not a regular expression: {error}") from None
