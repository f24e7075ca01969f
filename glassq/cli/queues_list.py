"""The list of push queues: what queue.yaml says of each, and how many of its tasks wait for what."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.cli.output import console, line, print_json, print_table, span, table
from glassq.errors import JobNotFound, SettingsError
from glassq.push.queue_yaml import load
from glassq.push.request import tube_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from glassq.cli.app import App
    from glassq.ledger import Entry
    from glassq.push.queue_yaml import PushQueue
    from glassq.queues import Queue, TubeStats
    from glassq.settings import Push

# A pause of at least this, in seconds, was meant to be without an end.
AGES = 365 * 86_400
# Of what the ledger knows to be retrying, so many are looked up in the queue: within a second or two.
MOST_RETRIES = 10_000

_UNITS = (("s", 1), ("m", 60), ("h", 3600), ("d", 86_400))


@dataclass(frozen=True, slots=True)
class Row:
    """One queue, as `plan` has it (None: queue.yaml does not) and as its tube is now.

    `oldest` is the age of the job that is reserved next, in seconds; `retrying` how many delayed tasks failed before
    (None: nobody knows).
    """

    name: str
    plan: PushQueue | None
    tube: TubeStats
    oldest: int | None
    retrying: int | None


def show(app: App, as_json: bool) -> None:
    """Prints a row per queue, and what to do about some. Raises SettingsError or QueueError."""
    planned = planned_queues(app)
    with app.queue() as queue:
        names = [*planned, *left_over(queue, planned)]
        tubes = {name: queue.stats_tube(tube_of(queue.tube, name)) for name in names}
        retrying, note = _retrying(app, queue, tubes.values())
        rows = [
            Row(name, planned.get(name), tube, _oldest(queue, tube), retrying.get(tube.name))
            for name, tube in tubes.items()
        ]
        hints = _hints(app, rows, idle=not queue.stats().workers)
    if as_json:
        print_json({"queues": [_document(row) for row in rows], "note": note, "hints": hints})
        return
    out = console()
    columns = ("queue", "rate", "bucket", "at once", "in flight", "backlog", "oldest", "retrying", "scheduled")
    print_table(out, table("", (*columns, "buried", "paused"), [_cells(row) for row in rows]))
    if note:
        out.print(f"retrying or scheduled is not known: {line(note)}", style="dim")
    for hint in hints:
        out.print(f"! {line(hint)}", style="yellow")


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
            entries = ledger.recent(MOST_RETRIES, "retrying")
            if ledger.absent:
                return none, ledger.absent
    except SettingsError as error:
        return none, str(error)
    found: Counter[str] = Counter()
    for entry in entries:
        if found[entry.tube] < delayed.get(entry.tube, 0):
            found[entry.tube] += _is_delayed(queue, entry)
    all_seen = len(entries) < MOST_RETRIES
    return {tube: found[tube] for tube, count in delayed.items() if all_seen or found[tube] == count}, ""


def _is_delayed(queue: Queue, entry: Entry) -> bool:
    """Whether it still waits: its job may be ready by now, or an operator may have deleted it."""
    try:
        job = queue.stats_job(entry.job)
    except JobNotFound:
        return False
    return job.state == "delayed" and job.tube == entry.tube


def _document(row: Row) -> dict[str, Any]:
    plan, tube = row.plan, row.tube
    return {
        "queue": row.name,
        "tube": tube.name,
        "in_queue_yaml": plan is not None,
        "rate": plan.rate if plan else None,
        "bucket": plan.bucket_size if plan else None,
        "at_once": plan.max_concurrent_requests if plan else None,
        "in_flight": tube.reserved,
        "backlog": tube.ready,
        "oldest": row.oldest,
        "delayed": tube.delayed,
        "retrying": row.retrying,
        "scheduled": None if row.retrying is None else tube.delayed - row.retrying,
        "buried": tube.buried,
        "paused_for": tube.paused_for,
    }


def _cells(row: Row) -> tuple[object, ...]:
    plan, tube = row.plan, row.tube
    limits = (rate(plan.rate), plan.bucket_size, plan.max_concurrent_requests or "-") if plan else ("-", "-", "-")
    delayed = ("?", "?") if row.retrying is None else (row.retrying, tube.delayed - row.retrying)
    oldest = "-" if row.oldest is None else span(row.oldest)
    paused = "paused" if tube.paused_for >= AGES else span(tube.paused_for) if tube.paused_for else "-"
    return row.name, *limits, tube.reserved, tube.ready, oldest, *delayed, tube.buried, paused


def rate(per_second: float) -> str:
    """A rate as it would stand in queue.yaml, in the unit that takes the fewest digits: 5/s, 0.5/m, 1000/d."""
    if not per_second:
        return "paused"
    numbers = [(f"{round(per_second * size, 4):.12g}", unit) for unit, size in _UNITS if per_second * size >= 0.1]
    number, unit = min(numbers or [(f"{per_second * 86_400:.6g}", "d")], key=lambda each: len(each[0]))
    return f"{number}/{unit}"


def _hints(app: App, rows: Sequence[Row], *, idle: bool) -> list[str]:
    """What an operator should know or do. `idle`: nobody has reserved anything from this server."""
    file = push_of(app).queue_yaml or "any queue.yaml ([push] queue_yaml is not set)"
    hints = []
    for row in rows:
        name, tube = row.name, row.tube
        if row.plan is None:
            delete = app.command(f"queues purge {shlex.quote(name)}")
            remedy = f"add it and reload glassq-worker, or delete its tasks with {delete}"
            hints.append(f"queue {name} is not in {file}: nobody works it; {remedy}")
        elif not row.plan.rate and (tube.ready or tube.delayed):
            hints.append(f"queue {name} is not delivered: its rate is 0 in {file}")
        if tube.paused_for:
            hints.append(f"queue {name} is paused: {app.command(f'queues resume {shlex.quote(name)}')} lets it go on")
    if idle and any(row.tube.ready for row in rows):
        hints.append("tasks are ready and nobody takes them: is glassq-worker running?")
    return hints


def push_of(app: App) -> Push:
    """Raises SettingsError where there are no push queues."""
    if app.settings.push is None:
        raise SettingsError(
            f"{app.settings.file}: there are no push queues without a section [push]: add it, with queue_yaml = "
            '"/etc/glassq/queue.yaml", and [push.targets] with default = "http://127.0.0.1:8080"; then restart '
            "glassq-worker"
        )
    return app.settings.push


def planned_queues(app: App) -> dict[str, PushQueue]:
    """The queues of queue.yaml by name. Raises SettingsError."""
    push = push_of(app)
    return load(push.queue_yaml, push.targets)


def left_over(queue: Queue, planned: Mapping[str, PushQueue]) -> list[str]:
    """Names of queues that hold jobs and are not planned (any more)."""
    prefix = tube_of(queue.tube, "")
    names = [tube.removeprefix(prefix) for tube in queue.tubes() if tube.startswith(prefix)]
    tubes = {name: queue.stats_tube(tube_of(queue.tube, name)) for name in sorted(names) if name not in planned}
    return [name for name, tube in tubes.items() if tube.ready or tube.reserved or tube.delayed or tube.buried]
