"""`glassq restore`: what `glassq archive` took out of the queue is put back, buried as it was."""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from glassq.cli import archive_file
from glassq.cli.app import App, as_json, dry_run, pass_app, yes
from glassq.cli.find import ALL_STATES, unworked, walk
from glassq.cli.jobs import Done, number, whole
from glassq.cli.output import confirm, each_of, line
from glassq.cli.told import LEFT_OUT, recorder, told
from glassq.delivery import decode, encode
from glassq.errors import DamagedDelivery, JobNotFound, JobTooBig, LedgerError, QueueError, SettingsError
from glassq.ledger import Entry
from glassq.queues.beanstalk.receiver import BURY_DELAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from glassq.cli.archive_file import Item
    from glassq.delivery import Delivery
    from glassq.queues import Queue

# So many mistakes of one file are told.
MAX_MISTAKES = 20


# What a delivery says from then on that lay buried without a word of its own, by another tool for instance.
UNSAID = "restored from an archive; it said no reason itself"


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--skip-damaged", is_flag=True, help="Of a file that is damaged, restore the jobs that are whole.")
@click.option("--again", is_flag=True, help="Also those that were worked since, as the ledger knows.")
@dry_run
@yes
@as_json
@pass_app
def restore(
    app: App, files: tuple[Path, ...], skip_damaged: bool, again: bool, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Put archived deliveries back into the queue, buried as they were; the files stay as they are.

    Each file is checked as a whole first: of one that is damaged nothing is restored. What lies in the queue already is
    left out, and so is what was worked since: restoring twice makes no twins.
    """
    plans, damage = _checked(files, skip_damaged)
    with _alone(files, dry_run), app.queue() as queue:
        if not dry_run:
            # a queue that takes no jobs says so now, and not after a long search
            queue.newest_job()
        tubes = {plan.tube for plan in plans}
        back = Back(queue, _Known.of(app, queue, tubes, again=again))
        left = back.leave_out(plans)
        confirm(f"put {number(len(left))} back, buried?", needed=bool(left) and not (yes or dry_run))
        if dry_run:
            back.done += [Done(plan.place, None, plan.delivery or None, "would be restored") for plan in left]
            return _tell(app, back, as_json, damage, tubes, dry_run=True)
        try:
            with recorder(app) as record:
                back.put(left, record)
        except (QueueError, KeyboardInterrupt) as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            words = f"{why}: {back.restored} of {len(left)} are restored; the same command goes on with the rest"
            back.done.append(Done(str(files[0]), None, None, "nothing", words))
            _tell(app, back, as_json, damage, tubes)
            raise
    return _tell(app, back, as_json, damage, tubes)


@dataclass(frozen=True, slots=True)
class Plan:
    """One job of a file, without its bytes: where it stands, and by what it is known again."""

    file: Path
    line: int
    tube: str
    digest: bytes
    delivery: str

    @property
    def place(self) -> str:
        """The line in the file."""
        return f"{self.file}, line {self.line}"


@contextmanager
def _alone(files: Sequence[Path], dry_run: bool) -> Iterator[None]:
    """Nobody else restores these files meanwhile. Raises click.ClickException where somebody does."""
    with ExitStack() as opened:
        for file in () if dry_run else sorted({file.resolve() for file in files}):
            handle = opened.enter_context(file.open("rb"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise click.ClickException(f"{line(str(file))}: somebody restores it right now") from None
        yield


def _checked(files: Sequence[Path], skip_damaged: bool) -> tuple[list[Plan], list[str]]:
    """What the files hold, and what is wrong with them. Raises click.ClickException where nothing may be."""
    plans: list[Plan] = []
    wrong: list[str] = []
    for file in dict.fromkeys(files):
        mistakes: list[str] = []
        try:
            plans += [
                Plan(file, item.line, item.tube, hashlib.sha256(item.data).digest(), _name(item))
                for item in archive_file.read(file, mistakes)
            ]
        except OSError as error:
            mistakes.append(f"cannot be read: {error.strerror}")
        wrong += [f"{file}: {mistake}" for mistake in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            wrong.append(f"{file}: and {len(mistakes) - MAX_MISTAKES} more")
    if wrong and not skip_damaged:
        more = "nothing was restored; --skip-damaged restores the jobs that are whole"
        raise click.ClickException("".join(f"{line(each)}\n" for each in wrong) + more)
    return plans, wrong


def _name(item: Item) -> str:
    """The id of its delivery; "" where that is damaged."""
    delivery = _delivery(item)
    return delivery.id if delivery else ""


def _delivery(item: Item) -> Delivery | None:
    try:
        return decode(item.data)
    except DamagedDelivery:
        return None


@dataclass(slots=True)
class _Known:
    """What must not be put once more: what the queue holds, by bytes and ids, and what was worked since."""

    app: App
    again: bool
    digests: set[bytes] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    _worked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, app: App, queue: Queue, tubes: Iterable[str], *, again: bool) -> _Known:
        """One look at all jobs of all tubes: what was restored before may have been moved aside since."""
        known = cls(app, again)
        for found in walk(queue, ALL_STATES, sorted({queue.tube, *queue.tubes(), *tubes})):
            known.add(hashlib.sha256(found.job.body).digest(), found.name)
        return known

    def add(self, digest: bytes, name: str) -> None:
        """The queue holds it from now on."""
        self.digests.add(digest)
        if name:
            self.names.add(name)

    def ask_ledger(self, plans: Iterable[Plan]) -> None:
        """Finds out which ones were worked; a ledger that cannot be read knows of none."""
        if self.again:
            return
        with suppress(LedgerError, SettingsError), self.app.ledger() as ledger:
            for plan in plans:
                entry = ledger.exactly(plan.delivery) if plan.delivery else None
                if entry and entry.state in ("done", "dropped"):
                    self._worked[plan.delivery] = entry.state

    def why(self, plan: Plan) -> str:
        """Why it is left out; "" where it is not."""
        if plan.digest in self.digests or plan.delivery in self.names:
            return "the queue holds it already"
        worked = self._worked.get(plan.delivery, "")
        return f"it is {worked}, the ledger says (--again restores it all the same)" if worked else ""


@dataclass(slots=True)
class Back:
    """The way back into the queue. `done` is what came of each job."""

    queue: Queue
    known: _Known
    done: list[Done] = field(default_factory=list)
    restored: int = 0

    def leave_out(self, plans: Sequence[Plan]) -> list[Plan]:
        """Those that are to be put."""
        self.known.ask_ledger(plans)
        left = []
        for plan in plans:
            if why := self.known.why(plan):
                self.done.append(Done(plan.place, None, plan.delivery or None, LEFT_OUT, why))
            else:
                left.append(plan)
                # the same may stand in two files
                self.known.add(plan.digest, plan.delivery)
        return left

    def put(self, plans: Sequence[Plan], record: Callable[[Entry], None]) -> None:
        """Puts them, file by file, in the order of their lines. Raises QueueError."""
        wanted = {(plan.file, plan.line): plan for plan in plans}
        files = dict.fromkeys(plan.file for plan in plans)
        items = ((file, item) for file in files for item in archive_file.read(file, []))
        ours = ((file, item) for file, item in items if (file, item.line) in wanted)
        for file, item in each_of(ours, "restored so far", len(plans)):
            # an interrupt must not lose sight of this one either
            with whole():
                self.done.append(self._restore(wanted.pop((file, item.line)), item, record))
        self.done += [_changed(plan) for plan in wanted.values()]

    def _restore(self, plan: Plan, item: Item, record: Callable[[Entry], None]) -> Done:
        name = plan.delivery or None
        if hashlib.sha256(item.data).digest() != plan.digest:
            return _changed(plan)
        delivery = _delivery(item)
        data = item.data
        if delivery is not None and not delivery.buried:
            delivery = msgspec.structs.replace(delivery, buried=UNSAID)
            data = encode(delivery)
        # Should we die in between, it is ready after BURY_DELAY, and the pool buries it: it says itself that it is.
        with whole():
            try:
                job = self.queue.put(data, delay=BURY_DELAY, tube=item.tube)
                self.queue.reserve_job(job)
                self.queue.bury(job)
            except JobTooBig as error:
                return Done(plan.place, None, name, "nothing", str(error))
            except JobNotFound:
                return Done(plan.place, None, name, "nothing", "it is in the queue, but somebody took it: not buried")
            self.restored += 1
            if delivery is not None:
                record(_entry(delivery, job, item.tube))
        return Done(plan.place, job, name, "restored")


def _changed(plan: Plan) -> Done:
    return Done(plan.place, None, plan.delivery or None, "nothing", "the file was changed since it was checked")


def _entry(delivery: Delivery, job: int, tube: str) -> Entry:
    return Entry(
        delivery.id,
        delivery.source,
        delivery.received,
        "buried",
        delivery.attempt,
        datetime.now(UTC),
        0.0,
        job=str(job),
        reason=delivery.buried,
        tube=tube,
    )


def _tell(
    app: App, back: Back, as_json: bool, damage: Sequence[str], tubes: Iterable[str], *, dry_run: bool = False
) -> int:
    for each in damage:
        click.echo(line(f"glassq: left out: {each}"), err=True)
    for tube in sorted(tubes):
        if why := unworked(app, tube):
            hint = app.command(f"move --from {tube} --to {back.queue.tube}")
            click.echo(line(f"glassq: {why}; {hint} moves what lies there"), err=True)
    would = sum(done.did == "would be restored" for done in back.done)
    words = f"{number(would)} would be restored" if dry_run else f"{number(back.restored)} restored, buried"
    again = f"Look at them with {app.command('buried')}, have one worked again with {app.command('kick ID')}."
    told(back.done, as_json, words, again if back.restored else "", every=bool(would))
    return int(bool(damage) or any(done.did == "nothing" for done in back.done))
