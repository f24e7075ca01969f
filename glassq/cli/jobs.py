"""`glassq kick` and `glassq delete`: what an operator decides about deliveries."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.buried import BURIED
from glassq.cli.find import Finder, look, walk
from glassq.cli.output import console, line, print_json, short_words, span
from glassq.errors import JobNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from glassq.cli.find import Found
    from glassq.queues import Queue
    from glassq.queues.base import ScanShort

dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
yes = click.option("--yes", is_flag=True, help="Don't ask.")


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one id. `did` is "kicked", "deleted", the same with "would be " before it, or "nothing"."""

    id: str
    job: int | None
    delivery: str | None
    did: str
    why: str = ""


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every buried delivery.")
@dry_run
@yes
@as_json
@pass_app
def kick(app: App, ids: tuple[str, ...], everything: bool, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Have buried deliveries worked again, with a fresh budget of attempts."""
    if everything == bool(ids):
        raise click.UsageError("expected either ids or --all")
    with app.queue() as queue:
        if everything:
            count = queue.stats_tube().buried
            _ask(f"kick {_number(count)}?", needed=count > 0 and not (yes or dry_run))
            short: list[ScanShort] = []
            done = [_kick(queue, str(each.job.id), each, dry_run) for each in walk(queue, BURIED, short.append)]
            missed = [Done("--all", None, None, "nothing", short_words(each)) for each in short]
            return _report([*done, *missed], as_json)
        found, missing = _each(queue, app, ids)
        done = [_kick(queue, text, each, dry_run) for text, each in found]
    return _report([*done, *missing], as_json)


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@dry_run
@yes
@as_json
@pass_app
def delete(app: App, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove deliveries for good, whatever state they are in (but not while one is being worked)."""
    with app.queue() as queue:
        found, missing = _each(queue, app, ids)
        if found and not (yes or dry_run):
            for _, each in found:
                click.echo(f"{_name(each)}: {each.stats.state}, {span(each.stats.age)} old", err=True)
            _ask(f"delete {_number(len(found))} for good?", needed=True)
        done = [_delete(queue, text, each, dry_run) for text, each in found]
    return _report([*done, *missing], as_json)


def _each(queue: Queue, app: App, ids: Iterable[str]) -> tuple[list[tuple[str, Found]], list[Done]]:
    """The jobs of these ids, each once, and a line for every id that has none."""
    finder = Finder(queue, app.ledger)
    found: dict[int, tuple[str, Found]] = {}
    missing = []
    for text in ids:
        try:
            each = finder.find(text)
        except (JobNotFound, click.ClickException) as error:
            if isinstance(error, click.UsageError):
                raise
            why = error.message if isinstance(error, click.ClickException) else str(error)
            missing.append(Done(text, None, None, "nothing", why))
        else:
            found.setdefault(each.job.id, (text, each))
    return list(found.values()), missing


def _kick(queue: Queue, text: str, found: Found, dry_run: bool) -> Done:
    if found.stats.state != "buried":
        return _refused(text, found, f"it is {_state(found)}, not buried")
    return _act(queue, text, found, queue.kick, "kicked", dry_run)


def _delete(queue: Queue, text: str, found: Found, dry_run: bool) -> Done:
    if found.stats.state == "reserved":
        return _refused(text, found, "a consumer works it right now: try again when that is over")
    return _act(queue, text, found, queue.delete, "deleted", dry_run)


def _act(queue: Queue, text: str, found: Found, command: Callable[[int], None], did: str, dry_run: bool) -> Done:
    if found.stats.tube != queue.tube:
        return _refused(text, found, f"it is in tube {found.stats.tube}, not in {queue.tube}")
    job, name = found.job.id, found.name or None
    if dry_run:
        return Done(text, job, name, f"would be {did}")
    try:
        # While the operator was asked, time went by: never act on another delivery under a number given again.
        if look(queue, job).job.body != found.job.body:
            return _refused(text, found, "it is another delivery's job by now")
        command(job)
    except JobNotFound:
        return _refused(text, found, "it was worked or removed meanwhile")
    return Done(text, job, name, did)


def _refused(text: str, found: Found, why: str) -> Done:
    return Done(text, found.job.id, found.name or None, "nothing", why)


def _state(found: Found) -> str:
    stats = found.stats
    return f"delayed for {span(stats.time_left)} more" if stats.state == "delayed" else stats.state


def _name(found: Found) -> str:
    return f"job {found.job.id}, " + (f"delivery {line(found.name)}" if found.name else "damaged")


def _number(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count} deliveries"


def _ask(question: str, *, needed: bool) -> None:
    """Goes on only if the operator says yes. Raises click.UsageError where there is nobody to ask."""
    if not needed:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{question} Nobody is there to answer: say --yes, or --dry-run to see what would be done"
        )
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was done")


def _report(results: list[Done], as_json: bool) -> int:
    if as_json:
        print_json({"results": [asdict(done) for done in results]})
    else:
        out = console()
        for done in results:
            what = f"job {done.job}, delivery {done.delivery or '(damaged)'}" if done.job else done.id
            out.print(line(f"{what}: {done.did}" + (f": {done.why}" if done.why else "")))
        if not results:
            out.print("nothing lies buried")
    return int(any(done.did == "nothing" for done in results))
