"""`glassq delete`: deliveries are removed for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.completion import buried_ids
from glassq.cli.corrector import corrector
from glassq.cli.jobs import Bulk, Done, act, check_choice, each_found, limit, number, refused, report
from glassq.cli.missing import surely_missing
from glassq.cli.output import confirm, line
from glassq.cli.where import Where, filters, nothing
from glassq.errors import SettingsError
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.cli.corrector import Corrector
    from glassq.cli.find import Found
    from glassq.queues import Queue


@click.command(
    epilog=examples(
        ("one, whatever state it is in", "glassq delete 0198c2a4-7d10"),
        ("buried ones that nobody will mend any more", "glassq delete --where 'error~410' --older-than 30d"),
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=buried_ids)
@click.option("--lost", is_flag=True, help="Those that the queue has lost: the ledger no longer has them as waiting.")
@filters
@limit
@dry_run
@yes
@as_json
@pass_app
def delete(
    app: App, ids: tuple[str, ...], lost: bool, where: Where, limit: int | None, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Remove deliveries for good: by id, whatever state they are in (but not while one is being worked), or the buried
    ones that fit. Of one that the queue has lost only the ledger knows; there it counts as deleted then."""
    if lost and (where or limit):
        raise click.UsageError("--lost goes without filters and --limit")
    check_choice(ids, lost or bool(where), bool(limit))
    with app.queue() as queue, corrector(app) as ledger:
        by = f"by {app.operator()}"

        def remove(found: Found) -> None:
            queue.delete(found.job.id)
            ledger.deleted(found.delivery, by)

        if not ids and not lost:
            bulk = Bulk(app, queue, where, remove, "delete", "deleted", dry_run)
            return report(bulk.run(limit, ask=not yes), as_json, nothing(where))
        found, missing = each_found(queue, app, ids)
        gone = _lost(app, queue, None if lost else [done.id for done in missing])
        if (found or gone) and not (yes or dry_run):
            for _, each in found:
                click.echo(f"{_name(each)}: {each.stats.state}, {span(each.stats.age)} old", err=True)
            for name in gone.values():
                click.echo(f"delivery {line(name)}: not in the queue", err=True)
            confirm(f"delete {number(len(found) + len(gone))} for good?", needed=True)
        done = [_delete(queue, text, each, remove, dry_run) for text, each in found]
        done += [_forget(ledger, text, name, by, dry_run) for text, name in gone.items()]
    left = [each for each in missing if each.id not in gone]
    return report([*done, *left], as_json, "the queue has lost nothing")


def _lost(app: App, queue: Queue, asked: Sequence[str] | None) -> dict[str, str]:
    """The deliveries that the queue has lost, by the id or prefix that was `asked` for; None: all of them."""
    if asked is not None and not asked:
        return {}
    try:
        names = [each.delivery for each in surely_missing(app, queue)]
    except SettingsError:
        if asked is None:
            raise
        return {}
    if asked is None:
        return {name: name for name in names}
    fits = {text: [name for name in names if name.startswith(text.strip().lower())] for text in asked}
    return {text: found[0] for text, found in fits.items() if len(found) == 1}


def _forget(ledger: Corrector, text: str, name: str, by: str, dry_run: bool) -> Done:
    words = "it was not in the queue; the ledger no longer has it as waiting"
    if dry_run:
        return Done(text, None, name, "would be deleted", "it is not in the queue")
    ledger.forgotten(name, f"{by}, when the queue had lost it")
    return Done(text, None, name, "deleted", words)


def _delete(queue: Queue, text: str, found: Found, remove: Callable[[Found], None], dry_run: bool) -> Done:
    if found.stats.state == "reserved":
        return refused(text, found, "a consumer works it right now: try again when that is over")
    return act(queue, text, found, remove, "deleted", dry_run)


def _name(found: Found) -> str:
    return f"job {found.job.id}, " + (f"delivery {line(found.name)}" if found.name else "damaged")
