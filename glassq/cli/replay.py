"""`glassq replay`: deliveries that are done, dropped or lost are put again, as new ones, out of the ledger."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

import click

from glassq import delivery as envelope
from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.find import OPEN, Finder, ambiguous, checked_prefix, fate, is_job_id, place, unworked
from glassq.cli.jobs import Done, number, whole
from glassq.cli.missing import surely_missing
from glassq.cli.output import confirm, each_of, line
from glassq.cli.pace import Pace, per_second
from glassq.cli.told import LEFT_OUT, either, told
from glassq.cli.where import seconds
from glassq.errors import JobNotFound, JobTooBig, QueueError, SettingsError
from glassq.push.request import SOURCE as PUSH
from glassq.push.request import tube_of
from glassq.worker.consumer import BURY_DELAY
from glassq.worker.duplicates import REPLAY_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from glassq.ledger import Entry
    from glassq.ledger.reader import Content, LedgerReader, Settled
    from glassq.ledger.replays import Replays
    from glassq.queues import Queue

# What is over.
STATES = ("done", "dropped")
# What is not over by the ledger's word, and not in the queue.
LOST = "lost"
# What is done about a delivery that the queue holds, by its state there.
_IN_QUEUE = {
    "buried": "`kick` has it worked again",
    "ready": "a consumer works it next",
    "delayed": "it is tried again by itself",
    "reserved": "see what comes of it",
}


@dataclass(frozen=True, slots=True)
class Replayed(Done):
    """What became of one delivery; `replayed_as` is the new one."""

    replayed_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """What is asked for; what is None or empty is not. `newer` and `older` are in seconds since it was received."""

    state: str | None
    source: str | None
    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    newer: float | None
    older: float | None

    def __bool__(self) -> bool:
        return bool(self.patterns) or any(
            each is not None for each in (self.state, self.source, self.newer, self.older)
        )

    def among(self, ledger: LedgerReader, lost: Callable[[], Collection[str]]) -> Iterator[Settled]:
        """The deliveries that fit, the oldest first; `lost()` names those that the queue has lost."""
        since, before = _ago(self.newer), _ago(self.older)
        found: Iterable[Settled]
        if self.state == LOST:
            names = lost()
            waiting = (each for state in OPEN for each in ledger.settled(state, since=since, before=before))
            found = sorted((each for each in waiting if each.delivery in names), key=attrgetter("received"))
        else:
            found = ledger.settled(self.state or "done", since=since, before=before)
        for each in found:
            fits = all(pattern.search(getattr(each, name)) for name, pattern in self.patterns)
            if fits and self.source in (None, each.source):
                yield each


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
    from glassq.ledger.replays import Replays

    before = len(done)
    with Replays(app.settings.ledger) as replays:
        again = Again(app, ledger, queue, replays, anew)
        try:
            for index in each_of(pace.paced(range(len(chosen))), "replayed so far", len(chosen)):
                # an interrupt must not lose sight of this one either
                with whole():
                    done.append(again.put(chosen[index]))
        except (QueueError, SettingsError, KeyboardInterrupt) as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            next_time = "would replay those again" if anew or again.unmarked else "goes on with the rest"
            words = f"{why}: {len(done) - before} of {len(chosen)} were looked at; the same command {next_time}"
            done.append(Done("the rest", None, None, "nothing", words))
            told(done, as_json, every=every)
            raise


@dataclass(slots=True)
class Choice:
    """Which deliveries are put again. `done` is what came of the others."""

    app: App
    ledger: LedgerReader
    queue: Queue
    again: bool
    chosen: list[str] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    _lost: frozenset[str] | None = None

    def by_id(self, ids: Sequence[str]) -> None:
        """These, as far as the ledger has them and their bodies. Raises click.UsageError for what is no id."""
        for text in ids:
            name, why = self._named(text)
            if why or name is None:
                self.done.append(Replayed(text, None, name, "nothing", why))
            else:
                self.chosen.append(name)
        self.chosen = list(dict.fromkeys(self.chosen))

    def by_filter(self, which: Which, limit: int | None) -> None:
        """Those that fit, `limit` at most; how many have no body is told in one line."""
        if self.ledger.absent:
            self.done.append(Done("ledger", None, None, "nothing", self.ledger.absent))
        elif not self.ledger.keeps_bodies:
            self.done.append(Done("ledger", None, None, "nothing", self._no_body()))
        bare = 0
        for each in which.among(self.ledger, self._missing):
            if each.replayed and not self.again:
                why = "replayed before (--again replays them once more)"
                self.done.append(Replayed(each.delivery, None, each.delivery, LEFT_OUT, why, each.replayed))
            elif not each.kept:
                bare += 1
            else:
                self.chosen.append(each.delivery)
                if len(self.chosen) == limit:
                    break
        if bare:
            self.done.append(Done(number(bare), None, None, "nothing", self._no_body()))

    def _named(self, text: str) -> tuple[str | None, str]:
        """The delivery of an id or prefix, and why it cannot be put again."""
        if is_job_id(text):
            return None, "a job's id, and those are given again over time: name the delivery"
        entries = self.ledger.find(checked_prefix(text))
        if not entries:
            kept = self.app.settings.ledger.retention
            return None, self.ledger.absent or f"the ledger does not know it; it keeps entries for {kept}"
        if len(entries) > 1:
            return None, ambiguous(text, [entry.delivery for entry in entries]).message
        [entry] = entries
        if entry.state == "archived":
            return entry.delivery, "it is archived: `restore` puts it back, then `kick` has it worked again"
        if entry.state not in (*STATES, *OPEN):
            return entry.delivery, fate(entry)
        if entry.state in OPEN and not entry.replayed and entry.delivery not in self._missing():
            return entry.delivery, self._in_queue(entry)
        if entry.replayed and not self.again:
            return entry.delivery, f"it was replayed before, as {entry.replayed} (--again replays it once more)"
        if self.ledger.content(entry.delivery):
            return entry.delivery, ""
        why = self._no_body()
        if entry.state in OPEN:
            why = f"it is not in the queue, and {why}; `glassq delete {entry.delivery}` gives it up"
        return entry.delivery, why

    def _missing(self) -> frozenset[str]:
        """What the queue has lost."""
        if self._lost is None:
            self._lost = frozenset(each.delivery for each in surely_missing(self.app, self.queue))
        return self._lost

    def _in_queue(self, entry: Entry) -> str:
        try:
            found = Finder(self.queue, self.app.ledger).find(entry.delivery)
        except JobNotFound:
            return "it was worked or removed meanwhile"
        return f"{place(found)}: {_IN_QUEUE[found.stats.state]}"

    def _no_body(self) -> str:
        """Why there is no body."""
        if not self.app.settings.ledger.keep_bodies:
            return "its body is not kept: [ledger] keep_bodies is false"
        if not self.ledger.keeps_bodies:
            return "the ledger is of an older version, which keeps no bodies; the pool brings it to this one"
        return "its body was not kept: it was worked before glassq kept bodies, or while [ledger] keep_bodies was false"


@dataclass(slots=True)
class Again:
    """Puts deliveries again, each marked in the ledger once it is in the queue."""

    app: App
    ledger: LedgerReader
    queue: Queue
    replays: Replays
    again: bool
    unmarked: bool = False
    _unworked: dict[str, str] = field(default_factory=dict)

    def put(self, old: str) -> Done:
        """First the put, then the mark: dying between the two makes a duplicate, never a loss. Raises QueueError."""
        content = self.ledger.content(old)
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

    def _tube(self, content: Content) -> str:
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
            return self.replays.mark(old, new, before)
        except SettingsError as error:
            self.unmarked = True
            words = "what is replayed cannot be marked, so the same command would replay it again"
            click.echo(line(f"glassq: {words}: {error}"), err=True)
            return True


def _ago(age: float | None) -> datetime | None:
    # a date ends with the year 1
    return None if age is None else datetime.now(UTC) - timedelta(seconds=min(age, 1e9))


def _pattern(text: str) -> tuple[str, re.Pattern[str]]:
    name, tilde, regex = text.partition("~")
    if (name.strip(), tilde) not in (("reason", "~"), ("result", "~")) or not regex:
        raise click.UsageError(f"--where {line(text)}: expected reason~REGEX or result~REGEX")
    try:
        return name.strip(), re.compile(regex)
    except re.error as error:
        raise click.UsageError(f"--where {line(text)}: not a regular expression: {error}") from None
