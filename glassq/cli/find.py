"""Which job an operator means.

A job id is direct. A delivery id is looked up in the ledger, which knows its latest job; but job ids are given again
after a restart, so the job must say itself whose it is. What the ledger cannot answer, a scan of the queue can.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import click

from glassq.cli.output import jobs_of, line, warn_short
from glassq.delivery import Delivery, decode
from glassq.errors import DamagedDelivery, JobNotFound, LedgerError, SettingsError
from glassq.mask import masked_text
from glassq.operations.words import moment, reason
from glassq.push.request import tube_of
from glassq.values import Tube

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.cli.app import App
    from glassq.ledger import Entry
    from glassq.ledger.reader import LedgerReader
    from glassq.queues.beanstalk.protocol import Job, JobStats, Queue, ScanShort

# What the ledger says of deliveries that are not over.
OPEN = ("buried", "retrying")
ALL_STATES = frozenset({"ready", "reserved", "delayed", "buried"})
# Shorter, a prefix is a slip of the finger: eight digits of our ids are a minute.
MIN_PREFIX = 8

# Job ids have no leading zero; our delivery ids will have one for some centuries.
_JOB_ID = re.compile(r"[1-9]\d{0,19}")
_DELIVERY_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Found:
    """One job: its state, and its delivery; `damage` says why there is none."""

    job: Job
    stats: JobStats
    delivery: Delivery | None
    damage: str = ""

    @property
    def name(self) -> str:
        """The delivery's id, or "" where the job is damaged."""
        return self.delivery.id if self.delivery else ""

    @property
    def age(self) -> float:
        """Seconds since its ping was taken; of a damaged job, since it was put."""
        return self.delivery.age() if self.delivery else self.stats.age

    @property
    def lost(self) -> int:
        """Attempts at this job that ended with their process; nobody has it reserved now."""
        return replace(self.stats, reserves=self.stats.reserves + 1).lost

    @property
    def reason(self) -> str:
        """Why it lies buried, as far as it says so itself."""
        if self.delivery is None:
            return self.damage
        if self.delivery.buried or not self.delivery.evidence:
            return reason(self.delivery.buried) or "not by glassq: it says no reason"
        return masked_text(self.delivery.evidence[-1].message)


def look(queue: Queue, job_id: int, stats: JobStats | None = None) -> Found:
    """The job with this id. Raises JobNotFound."""
    try:
        job = queue.peek(job_id)
        stats = stats or queue.stats_job(job_id)
    except JobNotFound:
        raise JobNotFound(f"there is no job {job_id}") from None
    try:
        return Found(job, stats, decode(job.body))
    except DamagedDelivery as error:
        return Found(job, stats, None, str(error))


def checked_tube(option: str, text: str) -> str:
    """The name of a tube, be it there or not. Raises click.UsageError."""
    try:
        return Tube(text)
    except ValueError as error:
        raise click.UsageError(f"{option} {line(text)}: {error}") from None


def unworked(app: App, tube: str) -> str:
    """Why no pool with these settings works a tube, in words; "" where one does."""
    main = app.settings.queue.tube
    if not is_ours(main, tube):
        return (
            f"no pool with these settings works tube {tube}: expected {main} or {main}.push.QUEUE. Show, kick and "
            f"archive do not look there; what is in it comes back by move --from {tube} --to {main}"
        )
    if tube == main:
        return ""
    if app.settings.push is None:
        return f"no pool with these settings works tube {tube}: there is no section [push]"
    # queue.yaml takes a while to load
    from glassq.operations.push_queues import planned

    plan, name = planned(app.operations), tube.removeprefix(tube_of(main, ""))
    if name in plan.queues or not plan.known:
        return ""
    return f"no pool with these settings works tube {tube}: queue.yaml has no queue {name}"


def is_ours(main: str, tube: str) -> bool:
    """Whether it is the `main` tube, or one of a push queue."""
    return tube == main or tube.startswith(tube_of(main, ""))


def our_tubes(queue: Queue) -> list[str]:
    """The main tube, and those of push queues that exist now."""
    return [queue.tube, *sorted(tube for tube in queue.tubes() if tube != queue.tube and is_ours(queue.tube, tube))]


def walk(
    queue: Queue,
    states: frozenset[str],
    tubes: Sequence[str],
    hints: Sequence[int] = (),
    on_short: Callable[[ScanShort], None] = warn_short,
) -> Iterator[Found]:
    """Every job of these tubes in these states, newest first; those that go away meanwhile are left out.

    `hints` are ids of jobs that may be such; `on_short` is told where some could not be found.
    """
    for stats in jobs_of(queue.scan(states, *tubes, hints=hints), on_short):
        with suppress(JobNotFound):
            yield look(queue, stats.id, stats)


@dataclass(slots=True)
class Finder:
    """Finds jobs by what an operator typed. `open_ledger` is called when the ledger is asked."""

    queue: Queue
    open_ledger: Callable[[], LedgerReader]
    _by_name: dict[str, int] | None = field(default=None, init=False)

    def find(self, text: str, *, glance: bool = False) -> Found:
        """The job of a job id, a delivery id, or a prefix that one delivery in the queue has.

        With `glance` the ledger's word is enough, that one delivery has a prefix and that one has left the queue: for
        looking at it, not for deciding on it.
        Raises JobNotFound, click.UsageError for what cannot be an id, click.ClickException for an ambiguous prefix.
        """
        if is_job_id(text):
            return look(self.queue, int(text))
        prefix = checked_prefix(text)
        if (glance or _DELIVERY_ID.fullmatch(prefix)) and (found := self._by_ledger(prefix, glance=glance)):
            return found
        names = [name for name in self._index() if name.startswith(prefix)]
        if prefix in names:
            names = [prefix]
        if not names:
            raise JobNotFound(f"the queue holds no delivery {line(text)}{self._fate(prefix)}")
        if len(names) > 1:
            raise ambiguous(text, names)
        return look(self.queue, self._index()[names[0]])

    def _fate(self, prefix: str) -> str:
        """What became of the one delivery that the ledger knows by this prefix, in words; "" where it does not tell."""
        try:
            with self.open_ledger() as ledger:
                entries = ledger.find(prefix)
        except (LedgerError, SettingsError):
            return ""
        if len(entries) != 1:
            return ""
        [entry] = entries
        return f": {fate(entry)}"

    def _by_ledger(self, prefix: str, *, glance: bool) -> Found | None:
        try:
            with self.open_ledger() as ledger:
                entries = ledger.find(prefix)
        except (LedgerError, SettingsError):
            return None
        if glance and len(entries) > 1:
            raise ambiguous(prefix, [entry.delivery for entry in entries])
        if len(entries) != 1 or not (glance or entries[0].delivery == prefix):
            return None
        [entry] = entries
        if not entry.job:
            if glance and entry.state not in OPEN:
                raise JobNotFound(f"the queue holds no delivery {line(entry.delivery)}: {fate(entry)}")
            return None
        with suppress(JobNotFound):
            found = look(self.queue, int(entry.job))
            return found if found.name == entry.delivery else None
        return None

    def _index(self) -> dict[str, int]:
        """The newest job of every delivery in the queue, by one scan."""
        if self._by_name is None:
            self._by_name = {}
            for found in walk(self.queue, ALL_STATES, our_tubes(self.queue)):
                self._by_name.setdefault(found.name, found.job.id)
            self._by_name.pop("", None)
        return self._by_name


def fate(entry: Entry) -> str:
    """What became of a delivery that is not in the queue, by the ledger."""
    if entry.state == "archived":
        file = line(masked_text(entry.reason))
        return f"it is archived in {file}, and `glassq restore {file}` puts it back"
    if entry.state == "deleted":
        return f"it was deleted at {moment(entry.updated)}, {line(masked_text(entry.reason))}"
    if entry.state not in OPEN:
        return f"it is {entry.state}"
    if entry.replayed:
        return f"it was replayed as {entry.replayed}"
    return (
        f"the ledger last had it as {entry.state}, at {moment(entry.updated)}; if it still does in a moment, the queue "
        f"has lost it, and `glassq replay {entry.delivery}` puts it again"
    )


def place(found: Found) -> str:
    """Where a delivery is that the queue holds, in words."""
    stats = found.stats
    state = "being worked" if stats.state == "reserved" else stats.state
    return f"it is in the queue, {state}, in tube {stats.tube} (job {stats.id})"


def is_job_id(text: str) -> bool:
    """Whether it can only be a job's id."""
    return bool(_JOB_ID.fullmatch(text))


def checked_prefix(text: str) -> str:
    """A delivery id or prefix as it is compared. Raises click.UsageError."""
    prefix = text.strip().lower()
    if len(prefix) < MIN_PREFIX:
        raise click.UsageError(
            f"{line(text)!r} is no id: expected a job id (digits), a delivery id, or its first {MIN_PREFIX} "
            "characters or more"
        )
    return prefix


def ambiguous(text: str, names: list[str]) -> click.ClickException:
    """What to say where a prefix fits several deliveries."""
    shown = "".join(f"\n  {line(name)}" for name in sorted(names)[:10])
    # the ledger is not asked for all of them
    many = "more than 10" if len(names) > 10 else len(names)
    return click.ClickException(f"{line(text)} is the beginning of {many} deliveries; say more of it:{shown}")
