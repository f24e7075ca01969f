"""`glassq kick`, and what it shares with other commands for what lies buried."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.completion import buried_ids
from glassq.cli.find import Finder, is_ours, look
from glassq.cli.output import confirm, console, each_of, line, print_json, short_words
from glassq.cli.pace import Canary, Pace, per_second, stopped
from glassq.cli.where import Where, filters, lying, nothing, seconds
from glassq.errors import JobNotFound
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from glassq.cli.find import Found
    from glassq.queues import Queue
    from glassq.queues.beanstalk.protocol import ScanShort

AT_ONCE = Pace()
# What ends a command by default, when an operator or a lost terminal sends it.
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one id. `did` is "kicked", "deleted", the same with "would be " before it, or "nothing"."""

    id: str
    job: int | None
    delivery: str | None
    did: str
    why: str = ""


limit = click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="At most so many of those that fit, the newest."
)


@click.command(
    epilog=examples(
        ("one, by its delivery's id or the beginning of that", "glassq kick 0198c2a4-7d10"),
        ("one, then ten, then the rest; stops when they fail again", "glassq kick --all --canary"),
        ("the target is up again, and shall not be flooded", "glassq kick --where 'error~503' --rate 10/s"),
        ("which ones would that be?", "glassq kick --source mirror --older-than 2h --dry-run"),
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=buried_ids)
@click.option("--all", "everything", is_flag=True, help="Every buried delivery, those of push queues too.")
@filters
@limit
@click.option("--rate", metavar="N/s", help='Not faster than this: "10/s", "30/m", "5/h".')
@click.option("--canary", is_flag=True, help="First one, then ten, then the rest; stop when they fail again.")
@click.option(
    "--wait",
    metavar="DURATION",
    default="15m",
    show_default=True,
    help="How long --canary waits for what they come to.",
)
@dry_run
@yes
@as_json
@pass_app
def kick(
    app: App,
    ids: tuple[str, ...],
    everything: bool,
    where: Where,
    limit: int | None,
    rate: str | None,
    canary: bool,
    wait: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Have buried deliveries worked again, with a fresh budget of attempts: by id, all, or those that fit."""
    check_choice(ids, everything or bool(where), bool(limit or rate or canary))
    pace = Pace(per_second(rate) if rate else None, canary, seconds("--wait", wait))
    with app.queue() as queue:
        if not ids:
            bulk = Bulk(app, queue, where, lambda found: queue.kick(found.job.id), "kick", "kicked", dry_run)
            return report(bulk.run(limit, ask=not yes, pace=pace), as_json, nothing(where))
        found, missing = each_found(queue, app, ids)
        done = [_kick(queue, text, each, dry_run) for text, each in found]
    return report([*done, *missing], as_json)


@dataclass(frozen=True, slots=True)
class Bulk:
    """One command for all buried deliveries that fit."""

    app: App
    queue: Queue
    where: Where
    command: Callable[[Found], None]
    verb: str
    did: str
    dry_run: bool

    def run(self, limit: int | None, *, ask: bool, pace: Pace = AT_ONCE) -> list[Done]:
        """Does it, after it has asked where it shall; `limit` is how many at most."""
        short: list[ScanShort] = []
        lie = list(islice(lying(self.app, self.queue, self.where, short.append), limit))
        chosen = [found.job.id for found in lie]
        if pace.canary and not self.dry_run:
            _check_running(self.app, self.queue, {found.stats.tube for found in lie})
        confirm(f"{self.verb} {number(len(chosen))}?", needed=bool(chosen) and ask and not self.dry_run)
        done: list[Done] = []
        try:
            self._go(chosen, pace if not self.dry_run else AT_ONCE, done)
        except KeyboardInterrupt:
            why = f"interrupted: {len(done)} of {len(chosen)} are {self.did}"
            done.append(Done("--all", None, None, "nothing", why))
        return [*done, *(Done("--all", None, None, "nothing", short_words(each)) for each in short)]

    def _go(self, chosen: list[int], pace: Pace, done: list[Done]) -> None:
        for lot, wait in pace.lots(chosen):
            canary = Canary(self.app, self.queue, lot) if wait else None
            start = len(done)
            for job in each_of(pace.paced(lot), f"{self.did} so far", len(lot)):
                # one by one: an interrupt must not lose sight of those before it
                done.append(self.act(job))  # noqa: PERF401
            if canary is None:
                continue
            kicked = [each.job for each in done[start:] if each.job and each.did == self.did]
            failed, unknown = canary.wait(kicked, pace.patience)
            if failed or unknown:
                so_far = sum(each.did == self.did for each in done)
                why = stopped(so_far, failed, unknown, len(chosen) - len(done), pace.patience)
                done.append(Done("--canary", None, None, "nothing", why))
                return

    def act(self, job: int) -> Done:
        """While the operator was asked, time went by: only what is still as it was chosen is acted on."""
        try:
            found = look(self.queue, job)
            stats = found.stats
            if stats.state != "buried" or not is_ours(self.queue.tube, stats.tube) or not self.where.fits(found):
                return refused(str(job), found, "it is another one's job by now, or is not buried any more")
            if not self.dry_run:
                self.command(found)
        except JobNotFound:
            return Done(str(job), job, None, "nothing", "it was worked or removed meanwhile")
        return Done(str(job), job, found.name or None, f"would be {self.did}" if self.dry_run else self.did)


def _check_running(app: App, queue: Queue, tubes: Iterable[str]) -> None:
    """Raises click.ClickException for a tube that is paused: nothing would come of the first that is kicked."""
    for tube in sorted(tubes):
        if queue.stats_tube(tube).paused_for:
            resume = app.command(f"resume {tube}")
            raise click.ClickException(f"tube {tube} is paused, and --canary waits for outcomes: first {resume}")


def check_choice(ids: tuple[str, ...], bulk: bool, bounded: bool) -> None:
    if bulk == bool(ids):
        raise click.UsageError("expected either ids, or which buried ones are meant (--help tells how)")
    if ids and bounded:
        raise click.UsageError("--limit, --rate and --canary go with --all or filters, not with ids")


def each_found(queue: Queue, app: App, ids: Iterable[str]) -> tuple[list[tuple[str, Found]], list[Done]]:
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
        return refused(text, found, f"it is {state_words(found)}, not buried")
    return act(queue, text, found, lambda found: queue.kick(found.job.id), "kicked", dry_run)


def act(queue: Queue, text: str, found: Found, command: Callable[[Found], None], did: str, dry_run: bool) -> Done:
    if not is_ours(queue.tube, found.stats.tube):
        return refused(text, found, f"it is in tube {found.stats.tube}, which is not ours")
    job, name = found.job.id, found.name or None
    if dry_run:
        return Done(text, job, name, f"would be {did}")
    try:
        # While the operator was asked, time went by: never act on another delivery under a number given again.
        if look(queue, job).job.body != found.job.body:
            return refused(text, found, "it is another delivery's job by now")
        command(found)
    except JobNotFound:
        return refused(text, found, "it was worked or removed meanwhile")
    return Done(text, job, name, did)


@contextmanager
def whole() -> Iterator[None]:
    """What would end the command waits until the block is over, so that no delivery is left between two steps."""
    came: list[int] = []
    # no mask: a progress bar has a thread, which would take the signal
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in _ENDINGS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    for number in came:
        signal.raise_signal(number)


def refused(text: str, found: Found, why: str) -> Done:
    return Done(text, found.job.id, found.name or None, "nothing", why)


def state_words(found: Found) -> str:
    stats = found.stats
    return f"delayed for {span(stats.time_left)} more" if stats.state == "delayed" else stats.state


def number(count: int) -> str:
    """So many deliveries, in words."""
    return "1 delivery" if count == 1 else f"{count} deliveries"


def report(results: list[Done], as_json: bool, empty: str = "") -> int:
    if as_json:
        print_json({"results": [asdict(done) for done in results]})
    else:
        out = console()
        for done in results:
            what = f"job {done.job}, delivery {done.delivery or '(damaged)'}" if done.job else done.id
            out.print(line(f"{what}: {done.did}" + (f": {done.why}" if done.why else "")))
        if not results:
            out.print(empty)
    return int(any(done.did == "nothing" for done in results))
