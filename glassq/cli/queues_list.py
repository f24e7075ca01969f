"""The list of push queues: what queue.yaml says of each, and how many of its tasks wait for what."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.output import console, line, print_json, print_table, table
from glassq.errors import JobNotFound, LedgerError, SettingsError
from glassq.operations.words import span
from glassq.push.queue_yaml import load
from glassq.push.request import tube_of
from glassq.queues.beanstalk.protocol import DRAINING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from glassq.cli.app import App
    from glassq.ledger import Entry
    from glassq.push.queue_yaml import PushQueue
    from glassq.queues import Queue, ServerStats, TubeStats
    from glassq.settings import PushSettings

# A pause of at least this, in seconds, was meant to be without an end.
AGES = 365 * 86_400
# Of what the ledger knows to be retrying, so many are looked up in the queue: within a second or two.
MAX_RETRIES = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The queues of queue.yaml. `mistakes` are why that cannot be used, one a line: then nobody knows its queues."""

    queues: Mapping[str, PushQueue]
    mistakes: str = ""

    def names(self, queue: Queue) -> list[str]:
        """All queues there are: the planned ones, and those that hold jobs and are not planned (any more).

        Where queue.yaml cannot be used, those whose tubes exist.
        """
        prefix = tube_of(queue.tube, "")
        there = sorted(tube.removeprefix(prefix) for tube in queue.tubes() if tube.startswith(prefix))
        others = [name for name in there if name not in self.queues]
        if not self.mistakes:
            tubes = {name: queue.stats_tube(tube_of(queue.tube, name)) for name in others}
            others = [
                name for name, tube in tubes.items() if tube.ready or tube.reserved or tube.delayed or tube.buried
            ]
        return [*self.queues, *others]

    @property
    def known(self) -> bool:
        return not self.mistakes


@dataclass(frozen=True, slots=True)
class Row:
    """One queue, as `plan` has it (None: it does not) and as its tube is now.

    `oldest` is the age of the job that is reserved next, in seconds.
    """

    name: str
    plan: PushQueue | None
    tube: TubeStats
    oldest: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at all queues. `main` is the tube of pings; `most` is how many tasks of a queue without a limit of its
    own run at once."""

    plan: Plan
    rows: Sequence[Row]
    main: TubeStats
    server: ServerStats
    most: int

    def at_once(self, row: Row) -> int | None:
        """How many of a queue's tasks run at once, at most; None where nobody knows."""
        return (row.plan.max_concurrent_requests or self.most) if row.plan else None


def show(app: App, as_json: bool) -> None:
    """Prints a row per queue, and what to do about some. Raises SettingsError or QueueError."""
    plan = plan_or_warn(app)
    with app.queue() as queue:
        seen = look(app, queue, plan)
        retrying, note = _retrying(app, queue, [row.tube for row in seen.rows])
    hints = [DRAINING] if seen.server.draining else []
    hints += hints_of(app, seen)
    # so it is though somebody may wait who cannot reserve what is ready
    if not seen.server.workers and any(row.tube.ready for row in seen.rows):
        hints.append("tasks are ready and nobody takes them: is glassq-worker running?")
    if as_json:
        print_json({"queues": [_document(seen, row, retrying) for row in seen.rows], "note": note, "hints": hints})
        return
    out = console()
    columns = ("queue", "rate", "bucket", "at once", "in flight", "backlog", "oldest", "retrying", "scheduled")
    print_table(out, table("", (*columns, "buried", "paused"), [_cells(seen, row, retrying) for row in seen.rows]))
    if any(row.plan and not row.plan.max_concurrent_requests for row in seen.rows):
        out.print(f"at once {seen.most}: where no max_concurrent_requests is set, one child less than all", style="dim")
    if note:
        out.print(f"retrying or scheduled is not known: {line(note)}", style="dim")
    for hint in hints:
        out.print(f"! {line(hint)}", style="yellow")


def look(app: App, queue: Queue, plan: Plan) -> Seen:
    """What the queues hold now. Raises QueueError."""
    tubes = {name: queue.stats_tube(tube_of(queue.tube, name)) for name in plan.names(queue)}
    rows = [Row(name, plan.queues.get(name), tube, _oldest(queue, tube)) for name, tube in tubes.items()]
    # as glassq-worker has it for queues without max_concurrent_requests: one child stays for what else there is
    most = app.settings.worker.most_of_a_queue
    return Seen(plan, rows, queue.stats_tube(), queue.stats(), most)


def _oldest(queue: Queue, tube: TubeStats) -> int | None:
    found = queue.oldest_ready(tube.name) if tube.ready else None
    return found.age if found else None


def _retrying(app: App, queue: Queue, tubes: Iterable[TubeStats]) -> tuple[dict[str, int], str]:
    """How many of each tube's delayed jobs are tried again, as far as that is known; why it is not, where it is not."""
    delayed = {tube.name: tube.delayed for tube in tubes}
    if not any(delayed.values()):
        return dict.fromkeys(delayed, 0), ""
    none = {tube: 0 for tube, count in delayed.items() if not count}
    try:
        with app.ledger() as ledger:
            entries = ledger.recent(MAX_RETRIES, "retrying")
            if ledger.absent:
                return none, ledger.absent
    except (LedgerError, SettingsError) as error:
        return none, str(error)
    found: Counter[str] = Counter()
    for entry in entries:
        if found[entry.tube] < delayed.get(entry.tube, 0):
            found[entry.tube] += _is_delayed(queue, entry)
    all_seen = len(entries) < MAX_RETRIES
    return {tube: found[tube] for tube, count in delayed.items() if all_seen or found[tube] == count}, ""


def _is_delayed(queue: Queue, entry: Entry) -> bool:
    """Whether it still waits: its job may be ready by now, or an operator may have deleted it."""
    try:
        job = queue.stats_job(int(entry.job))
    except JobNotFound:
        return False
    return job.state == "delayed" and job.tube == entry.tube


def _document(seen: Seen, row: Row, retrying: Mapping[str, int]) -> dict[str, Any]:
    plan, tube, again = row.plan, row.tube, retrying.get(row.tube.name)
    return {
        "queue": row.name,
        "tube": tube.name,
        "in_queue_yaml": plan is not None if seen.plan.known else None,
        "rate": plan.rate if plan else None,
        "bucket": plan.bucket_size if plan else None,
        "at_once": seen.at_once(row),
        "at_once_is_default": plan.max_concurrent_requests is None if plan else None,
        "in_flight": tube.reserved,
        "backlog": tube.ready,
        "oldest": row.oldest,
        "delayed": tube.delayed,
        "retrying": again,
        "scheduled": None if again is None else tube.delayed - again,
        "buried": tube.buried,
        "paused_for": tube.paused_for,
    }


def _cells(seen: Seen, row: Row, retrying: Mapping[str, int]) -> tuple[object, ...]:
    plan, tube, again = row.plan, row.tube, retrying.get(row.tube.name)
    unknown = "-" if seen.plan.known else "?"
    limits = (
        (str(plan.rate) if plan.rate else "paused", plan.bucket_size, seen.at_once(row))
        if plan
        else (unknown, unknown, unknown)
    )
    delayed = ("?", "?") if again is None else (again, tube.delayed - again)
    oldest = "-" if row.oldest is None else span(row.oldest)
    paused = "paused" if tube.paused_for >= AGES else span(tube.paused_for) if tube.paused_for else "-"
    return row.name, *limits, tube.reserved, tube.ready, oldest, *delayed, tube.buried, paused


def hints_of(app: App, seen: Seen) -> list[str]:
    """What an operator should know or do about single queues."""
    file = push_of(app).queue_yaml or "any queue.yaml ([push] queue_yaml is not set)"
    hints = []
    for row in seen.rows:
        name, tube = row.name, row.tube
        if row.plan is None and seen.plan.known:
            delete = app.command(f"queues purge {shlex.quote(name)}")
            remedy = f"add it and reload glassq-worker, or delete its tasks with {delete}"
            hints.append(f"queue {name} is not in {file}: nobody works it; {remedy}")
        elif row.plan and not row.plan.rate and (tube.ready or tube.delayed):
            hints.append(f"queue {name} is not worked: its rate is 0 in {file}")
        if tube.paused_for:
            hints.append(f"queue {name} is paused: {app.command(f'queues resume {shlex.quote(name)}')} lets it go on")
        if _has_all(seen, row):
            hints.append(
                f"queue {name} has all {tube.reserved} children at work, and others wait: set its "
                f"max_concurrent_requests in {file}, or more [worker] processes"
            )
    return hints


def _has_all(seen: Seen, row: Row) -> bool:
    """Whether all children (of more than one) work on this queue, while another one's jobs could be worked."""
    others = [each.tube for each in seen.rows if each is not row and (each.plan is None or each.plan.rate)]
    waits = any(tube.ready and not tube.paused_for for tube in (seen.main, *others))
    return waits and 1 < seen.server.workers <= row.tube.reserved


def push_of(app: App) -> PushSettings:
    """Raises SettingsError where there are no push queues."""
    if app.settings.push is None:
        raise SettingsError(
            f"{app.settings.file}: there are no push queues without a section [push]: add it, with queue_yaml = "
            '"/etc/glassq/queue.yaml", and [push.targets] with default = "http://127.0.0.1:8082"; then restart '
            "glassq-worker"
        )
    return app.settings.push


def plan_of(app: App) -> Plan:
    """The queues of queue.yaml, or what is wrong with it. Raises SettingsError where there are no push queues."""
    push = push_of(app)
    try:
        return Plan(load(push.queue_yaml, push.targets))
    except SettingsError as error:
        return Plan({}, str(error))


def plan_or_warn(app: App) -> Plan:
    """The same; standard error says what is wrong, for whoever looks or pauses must not have to mend that first."""
    plan = plan_of(app)
    for mistake in plan.mistakes.splitlines():
        click.echo(f"glassq: {line(mistake)}", err=True)
    if not plan.known:
        click.echo(
            "glassq: so these are the queues whose tubes exist now, without what the file says of them", err=True
        )
    return plan
