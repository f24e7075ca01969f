"""`glassq status`: what waits, what is worked, what lies buried; is it safe on disk?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.find import is_ours, unworked
from glassq.cli.not_in_effect import not_in_effect
from glassq.cli.output import console, facts, line, print_json, print_table, table, until
from glassq.errors import GlassqError, LedgerError, QueueUnavailable, SettingsError
from glassq.operations.missing import Missing, find_missing, may_be_missing
from glassq.operations.progress import Silent
from glassq.operations.spool import open_spool
from glassq.operations.words import span
from glassq.queues.base import TubeCounts
from glassq.queues.beanstalk.binlog import missing_files
from glassq.queues.beanstalk.protocol import DRAINING

if TYPE_CHECKING:
    from glassq.intake.spool import Spooled
    from glassq.queues import JobStats, Queue, ServerStats, TubeStats

# The search for lost deliveries takes at most this long, in seconds.
GLANCE = 0.5
# What the ledger is asked about.
RECENT = timedelta(hours=24)
# A mistake in another section is told, and keeps nobody from looking.
USES = frozenset({"queue", "intake", "push", "ledger"})


@dataclass(frozen=True, slots=True)
class _Queue:
    """One look at the queue.

    `tubes` are ours, the main one first; the others there and `foreign`, those of other programs, hold jobs. `oldest`
    is the oldest ready job of ours.
    """

    url: str
    server: ServerStats
    tubes: list[TubeStats]
    foreign: list[TubeStats]
    oldest: JobStats | None


@click.command()
@as_json
@pass_app
def status(app: App, as_json: bool) -> None:
    """What waits, what is worked, what lies buried; is it safe on disk?"""
    app.uses = USES
    try:
        _ = app.settings
    except SettingsError:
        # what runs goes on without them
        for said, _ in not_in_effect(app):
            click.echo(f"glassq: {line(said)}", err=True)
        raise
    spooled, spool_words = look_at_spool(app)
    try:
        with app.queue() as queue:
            seen = _look(queue, app.settings.queue.url)
            files = missing_files(queue, app.settings.queue.url)
            missing = _missing(app, seen)
    except QueueUnavailable:
        # what intake has kept meanwhile is the first thing to know
        if spooled and spooled.count:
            click.echo(f"spool: {spool_words}", err=True)
        raise
    counts, note = _ledger(app)
    hints = [*_hints(app, seen, spooled), *_losses(app, files, missing)]
    if as_json:
        document = _document(seen, counts, note, hints)
        document["queue"]["files_missing"] = files
        document["missing"] = {"count": len(missing.deliveries), "sure": missing.sure} if missing else None
        print_json({**document, "spool": asdict(spooled) if spooled else None})
        return
    out = console()
    columns = ("tube", "ready", "reserved", "delayed", "buried", "consumers waiting")
    rows = [(t.name, t.ready, t.reserved, t.delayed, t.buried, t.waiting) for t in seen.tubes]
    print_table(out, table("", columns, rows))
    if seen.foreign:
        out.print(_foreign(seen.foreign), style="dim")
    out.print()
    out.print(facts([*_facts(seen, counts, note, files), ("spool", spool_words)]))
    for hint in hints:
        out.print(f"! {hint}", style="yellow")


def _look(queue: Queue, url: str) -> _Queue:
    others = [queue.stats_tube(name) for name in sorted(queue.tubes()) if name != queue.tube]
    holding = [tube for tube in others if _count(tube)]
    tubes = [queue.stats_tube(), *(tube for tube in holding if is_ours(queue.tube, tube.name))]
    ready = (queue.oldest_ready(tube.name) for tube in tubes if tube.ready)
    oldest = max(filter(None, ready), key=lambda job: job.age, default=None)
    return _Queue(url, queue.stats(), tubes, [tube for tube in holding if tube not in tubes], oldest)


def _count(tube: TubeStats) -> int:
    return tube.ready + tube.reserved + tube.delayed + tube.buried


def _foreign(tubes: list[TubeStats]) -> str:
    jobs, many = sum(map(_count, tubes)), len(tubes)
    return f"and {jobs} job{'s'[: jobs > 1]} of other programs, in {many} tube{'s'[: many > 1]} of theirs"


def look_at_spool(app: App) -> tuple[Spooled | None, str]:
    """What lies in the spool, and that in words."""
    try:
        opened = open_spool(app.operations)
        found = opened.look() if opened else None
    except GlassqError as error:
        return None, str(error)
    if found is None or not found.count:
        return found, "empty"
    many = "1 delivery waits" if found.count == 1 else f"{found.count} deliveries wait"
    return found, f"{many} for the queue, the oldest for {span(found.oldest)}"


def _ledger(app: App) -> tuple[dict[str, int] | None, str]:
    """Deliveries by state of the last RECENT, and why there are none to count."""
    try:
        with app.ledger() as ledger:
            return (None, ledger.absent) if ledger.absent else (ledger.counts(datetime.now(UTC) - RECENT), "")
    except (LedgerError, SettingsError) as error:
        # the queue's state is worth showing without it
        return None, str(error)


def _missing(app: App, seen: _Queue) -> Missing | None:
    """What the queue has lost, looked for only where the counts leave room for it; None where nobody can say."""
    try:
        counts = [TubeCounts(t.name, t.ready, t.reserved, t.delayed, t.buried) for t in seen.tubes]
        if may_be_missing(app.operations, counts):
            with app.operations.queue() as inspector:
                return find_missing(app.operations, inspector, GLANCE, Silent())
    except (LedgerError, SettingsError):
        # why the ledger cannot be read is told with its counts
        return None
    return Missing((), 0, 0, sure=True)


def _losses(app: App, files: str, missing: Missing | None) -> list[str]:
    look = f": {app.command('doctor')} says what to do"
    return [words + look for words in (files, missing.words() if missing else "") if words]


def _facts(seen: _Queue, counts: dict[str, int] | None, note: str, files: str) -> list[tuple[str, object]]:
    server = seen.server
    ledger = ", ".join(f"{number} {state}" for state, number in sorted((counts or {}).items())) or "nothing"
    return [
        ("oldest ready job", _oldest(seen)),
        ("on disk", "yes: its binlog is on" if server.durable and not files else "NO"),
        ("last 24 h", note or ledger),
        ("server", f"beanstalkd {server.version} at {seen.url}, up {span(server.uptime)}"),
    ]


def _oldest(seen: _Queue) -> str:
    if seen.oldest is None:
        return "none"
    where = "" if seen.oldest.tube == seen.tubes[0].name else f" in tube {seen.oldest.tube}"
    return f"{span(seen.oldest.age)} (job {seen.oldest.id}{where})"


def _hints(app: App, seen: _Queue, spooled: Spooled | None) -> list[str]:
    """What an operator should know or do."""
    server, oldest = seen.server, seen.oldest
    held = sum(tube.reserved for tube in (*seen.tubes, *seen.foreign))
    buried = sum(tube.buried for tube in seen.tubes)
    unlogged = server.durable and oldest is not None and oldest.file == 0
    rules = [
        (buried, f"{buried} buried: look with {app.command('buried')}"),
        (
            not server.durable,
            "beanstalkd writes nothing to disk: start it with -b DIRECTORY -f0, or a crash loses jobs",
        ),
        (
            unlogged,
            "beanstalkd stopped writing to disk (the oldest ready job is in memory only): "
            "make room on its disk, let the queue run empty, and restart it",
        ),
        (server.draining, DRAINING),
        (held > server.workers, stuck_words(held, server.workers)),
        *((tube.paused_for, f"tube {tube.name} is paused {until(tube.paused_for)}") for tube in seen.tubes),
        *(
            (tube.ready, f"{tube.ready} ready: {why}")
            for tube in seen.tubes
            if tube.ready and (why := unworked(app, tube.name))
        ),
        (_nobody_takes(seen), f"jobs are ready and nobody takes them: {_why_nobody(server)}"),
    ]
    if spooled is not None:
        rules.append((spooled.damaged, f"{spooled.damaged} damaged in the spool: look with {app.command('spool')}"))
    settings = [*app.settings.ignored, *(f"{said}: {todo}" for said, todo in not_in_effect(app))]
    return [*settings, *(words for applies, words in rules if applies)]


def _nobody_takes(seen: _Queue) -> bool:
    if any(tube.waiting or tube.reserved for tube in seen.tubes):
        return False
    main, *pushed = [tube.ready > 0 and not tube.paused_for for tube in seen.tubes]
    # a child that waits for a queue's rate does not always wait in beanstalkd
    return main or (any(pushed) and not seen.server.workers)


def _why_nobody(server: ServerStats) -> str:
    if server.workers:
        return "glassq-worker is connected, but pauses (as it does while beanstalkd takes no jobs): look at its log"
    return "is glassq-worker running?"


def stuck_words(held: int, workers: int) -> str:
    """What to do about more reserved jobs than connections that work them: a worker of ours holds one."""
    return (
        f"more jobs are reserved ({held}) than connections work ({workers}): the rest is held by ones that hang; "
        "end those (restart glassq-worker, or whatever else reserves), and the jobs are ready again at once"
    )


def _document(seen: _Queue, counts: dict[str, int] | None, note: str, hints: list[str]) -> dict[str, Any]:
    oldest = {"job": seen.oldest.id, "age": seen.oldest.age} if seen.oldest else None
    return {
        "queue": {
            "url": seen.url,
            **asdict(seen.server),
            "tubes": [asdict(tube) for tube in (*seen.tubes, *seen.foreign)],
            "oldest_ready": oldest,
        },
        "ledger": {"states": counts, "since": datetime.now(UTC) - RECENT, "note": note},
        "hints": hints,
    }
