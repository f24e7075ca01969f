"""`glassq status`: what waits, what is worked, what lies buried; is it safe on disk?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.output import console, line, print_facts, print_hints, print_json, print_table, table
from glassq.errors import QueueUnavailable, SettingsError
from glassq.operations import status as operation
from glassq.operations.checks.in_effect import not_in_effect
from glassq.operations.parked import summed
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.operations.status import QueueStatus, SystemStatus
    from glassq.queues.base import TubeCounts

# A mistake in another section is told, and keeps nobody from looking.
USES = frozenset({"queue", "intake", "push", "ledger"})


@click.command()
@as_json
@pass_app
def status(app: App, as_json: bool) -> None:
    """What waits, what is worked, what lies buried; is it safe on disk?"""
    app.uses = USES
    try:
        operations = app.operations
    except SettingsError:
        # The programs that run go on with what they read before.
        for check in not_in_effect(app.settings_file):
            click.echo(f"glassq: {line(check.said)}", err=True)
        raise
    try:
        with app.progress() as progress, operations.looking() as queue:
            found = operation.snapshot(operations, queue, progress)
    except QueueUnavailable:
        # What intake has kept meanwhile is the first thing to know.
        journaled, words = operation.journal_state(operations)
        if journaled and journaled.count:
            click.echo(f"journal: {words}", err=True)
        raise
    if as_json:
        print_json(app.adapt_hints(found.document()))
    else:
        _print(app, found)


def _print(app: App, found: SystemStatus) -> None:
    out, seen = console(), found.queue
    columns = ("tube", "ready", "reserved", "delayed", "buried", *(["consumers waiting"] * seen.sees_consumers))
    tubes = summed(seen.tubes[0].name, seen.tubes)
    rows = [(t.name, t.ready, t.reserved, t.delayed, t.buried, t.waiting)[: len(columns)] for t in tubes]
    print_table(out, table("", columns, rows))
    if seen.foreign:
        out.print(_foreign(seen.foreign), style="dim")
    states = ", ".join(f"{number} {state}" for state, number in sorted((found.states or {}).items())) or "nothing"
    out.print()
    print_facts(
        out,
        [
            ("oldest ready job", _oldest(seen)),
            ("on disk", _on_disk(seen)),
            ("last 24 h", found.note or states),
            ("server", _server(seen)),
            ("journal", found.journal_words),
        ],
    )
    print_hints(out, (app.adapt(str(hint)) for hint in found.hints))


def _foreign(tubes: Sequence[TubeCounts]) -> str:
    jobs, many = sum(tube.jobs for tube in tubes), len(tubes)
    return f"and {jobs} job{'s'[: jobs > 1]} of other programs, in {many} tube{'s'[: many > 1]} of theirs"


def _server(seen: QueueStatus) -> str:
    engine = seen.engine
    up = f", up {span(engine.uptime)}" if engine.uptime else ""
    about = "" if seen.exact_counts else "; its counts are approximate"
    return f"{engine.engine} {engine.version} at {_place(seen.url)}{up}{about}"


def _place(url: str) -> str:
    """The URL without its options, which make the line too long to be read."""
    return url.partition("?")[0]


def _on_disk(seen: QueueStatus) -> str:
    if seen.on_disk:
        if seen.engine.accepting and not seen.refuses:
            return "yes: jobs are written to it"
        return "yes, as far as it goes: no new job is taken"
    why = "" if seen.files_missing else seen.engine.unproven
    return f"not proven: {why}" if why else "NO"


def _oldest(seen: QueueStatus) -> str:
    if not seen.sees_oldest:
        return f"{seen.engine.engine} does not tell"
    if seen.oldest is None:
        return "none"
    where = "" if seen.oldest.tube == seen.tubes[0].name else f" in tube {seen.oldest.tube}"
    return f"{span(seen.oldest.age)} (job {seen.oldest.ref}{where})"
