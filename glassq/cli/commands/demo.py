"""`glassq demo`: simulated Glass users, a real stack, and what came of every ping."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.commands.dev import home_directory, stop_as_by_ctrl_c, without_console
from glassq.cli.output import console, line
from glassq.cli.trial import glassq_called, glassq_for, say_console
from glassq.dev.queue_server import ENGINES
from glassq.dev.stack import Stack
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.table import Table

    from glassq.dev.demo import Demo
    from glassq.dev.simulator.crowd import Crowd, Planned
    from glassq.dev.summary import Fate, Summary
    from glassq.queues.base import TubeCounts

# The live view: this often a second, with so many of the latest pings.
REFRESH = 8
LATEST = 8
BAR = 40
# Where no terminal can show that, there is a line this often, in seconds.
PLAIN_EVERY = 3.0
# The ledger is written a moment after the work is done; so long the count may wait for it, in seconds.
LEDGER_LAG = 5.0
# How often it is looked whether all still runs, in seconds.
LOOK = 1.0

# What is the matter with a ping that waits for its next attempt.
WAITS: dict[str, str] = {
    "processing": "Glass still processes its photo",
    "rate limited": "Glass limits the rate",
    "server error": "Glass answered 503",
    "cut off": "the download was cut off",
}
# How a ping ended, in the order of the summary.
FATES: dict[Fate, str] = {
    "stored": "",
    "duplicate": "the same ping once more: its photo is stored once",
    "dropped": "the photo was deleted before it could be fetched",
    "buried": "for an operator: the user took the consent back",
    "refused": "with a wrong token",
    "unanswered": "not acknowledged, so Glass would send them again",
    "lost": "acknowledged, and without an outcome",
}


@click.command()
@click.option(
    "--pings",
    metavar="N",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="How many pings are sent.",
)
@click.option(
    "--rate", metavar="N", default=20.0, show_default=True, type=click.FloatRange(0.1, 1000), help="Pings a second."
)
@click.option(
    "--users", metavar="N", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many people share."
)
@click.option(
    "--seed", metavar="N", default=1, show_default=True, help="Decides who shares what, and what is awkward about it."
)
@click.option(
    "--engine",
    default="beanstalkd",
    show_default=True,
    type=click.Choice(list(ENGINES)),
    help="Whose server keeps the queue.",
)
@home_directory("var/demo")
@click.option("--keep", is_flag=True, help="Keep everything running afterwards, to look around, until Ctrl-C.")
@without_console
def demo(
    pings: int, rate: float, users: int, seed: int, engine: str, directory: Path, keep: bool, no_console: bool
) -> int:
    """Watch simulated Glass users share photos and glassq store them; a GitHub push and a payment by Stripe beside.

    A real HTTP server plays Google: Mirror API, token endpoint, pings. A quarter of the pings is awkward: photos still
    processing, deleted, rate limited, cut off, sent twice, by a user who took the consent back, with a wrong token.
    Exits with 0 only when nothing was lost.
    """
    from glassq.dev.demo import prepare
    from glassq.dev.simulator.crowd import Crowd
    from glassq.dev.simulator.glass import SimulatedGlass

    stop_as_by_ctrl_c()
    ENGINES[engine].require()
    out = console()
    try:
        with SimulatedGlass() as glass:
            directory = prepare(directory, glass, engine)
            out.print(f"state: {line(str(directory))}", soft_wrap=True)
            crowd = Crowd(glass, pings=pings, users=users, seed=seed, rate=rate)
            return _run(directory, crowd, out, ENGINES[engine].name, keep=keep, console=not no_console)
    except KeyboardInterrupt:
        click.echo("stopped: nothing of the demo runs any more", err=True)
        raise click.Abort from None


def _run(directory: Path, crowd: Crowd, out: Console, engine: str, *, keep: bool, console: bool) -> int:
    from glassq.dev.demo import Demo

    with ExitStack() as cleanup:
        with _busy(out, f"starting {engine}, the intake and the pool"):
            stack = cleanup.enter_context(Stack(directory, logs=True))
            run = cleanup.enter_context(closing(Demo(stack, crowd)))
            run.enrol()
        out.print(f"ready: intake {stack.door.url}, {run.settings.worker.processes} consumers")
        try:
            started = time.monotonic()
            settled = _watch(run, out)
            summary = _count(run)
            _report(summary, run, out, engine, settled, time.monotonic() - started)
            if keep:
                say_console(stack, stack.start_console() if console else "")
                _keep(run, out)
        except KeyboardInterrupt:
            click.echo("stopping", err=True)
            raise
        with _busy(out, "stopping"):
            cleanup.pop_all().close()
    return 0 if settled and not summary.lost else 1


def _is_live(out: Console) -> bool:
    """Whether lines that were written can be written again."""
    # FORCE_COLOR would make rich take a pipe for a terminal
    return sys.stdout.isatty() and not out.is_dumb_terminal


@contextmanager
def _busy(out: Console, words: str) -> Iterator[None]:
    if _is_live(out):
        with out.status(words):
            yield
    else:
        out.print(words)
        yield


def _watch(run: Demo, out: Console) -> bool:
    """Shows how far it is, while the crowd sends and until everything is settled; False if it does not settle."""
    sent: list[Planned] = []
    failed: list[BaseException] = []

    def send() -> None:
        try:
            run.send_webhooks()
            run.crowd.run(sent.append)
        except BaseException as error:
            failed.append(error)

    sender = threading.Thread(target=send, name="crowd", daemon=True)
    with _shown(out) as show:
        began = time.monotonic()

        def tick() -> None:
            show(_State(sent[-LATEST:], len(sent), len(run.crowd.planned), run.counts(), run.next_retry(), began))

        sender.start()
        try:
            while sender.is_alive():
                tick()
                sender.join(1 / REFRESH)
        finally:
            run.crowd.stop.set()
        if failed:
            raise failed[0]
        return run.settle(tick)


@dataclass(frozen=True, slots=True)
class _State:
    """How far a demo is. `retry` is a ping that waits for its next attempt, and how long, in seconds."""

    latest: list[Planned]
    sent: int
    planned: int
    counts: TubeCounts
    retry: tuple[Planned, int] | None
    began: float

    @property
    def worked(self) -> int:
        return max(0, self.sent - self.counts.ready - self.counts.reserved - self.counts.delayed)

    @property
    def waits(self) -> str:
        """For what it waits when all is sent; "" where that is no retry."""
        if self.retry is None:
            return ""
        ping, left = self.retry
        return f"{WAITS.get(ping.trouble, 'an attempt failed')}; tried again {f'in {left} s' if left else 'now'}"

    @property
    def queue(self) -> str:
        counts = self.counts
        return (
            f"{counts.ready} ready, {counts.reserved} at work, {counts.delayed} to be retried, {counts.buried} buried"
        )

    @property
    def took(self) -> str:
        return span(round(time.monotonic() - self.began))


@contextmanager
def _shown(out: Console) -> Iterator[Callable[[_State], None]]:
    """What shows a state: a view that is written over and over, or a line now and then."""
    if not _is_live(out):
        yield _Plain(out).show
        return
    from rich.live import Live

    with Live(console=out, refresh_per_second=REFRESH, transient=True) as live:
        yield lambda state: live.update(_view(state))


class _Plain:
    """A line now and then."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._next = time.monotonic() + PLAIN_EVERY

    def show(self, state: _State) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_EVERY
        waits = f" ({state.waits})" if state.waits else ""
        self._out.print(f"{state.took}: sent {state.sent} of {state.planned}; {state.queue}{waits}")


def _view(state: _State) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    def bar(done: int) -> Table:
        row = Table.grid(padding=(0, 2))
        row.add_row(
            ProgressBar(state.planned, done, BAR, complete_style="cyan", finished_style="green"),
            f"{done} of {state.planned}",
        )
        return row

    view = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    view.add_row("sent", bar(state.sent))
    view.add_row("worked", bar(state.worked))
    view.add_row("queue", state.queue)
    view.add_row("waiting", state.waits)
    view.add_row("time", state.took)
    for ping in state.latest:
        (result,) = ping.results
        trouble = "" if ping.trouble == "none" else ping.trouble
        view.add_row(f"ping {ping.number}", f"{result.statuses[-1]} in {result.seconds * 1000:.1f} ms   {trouble}")
    return view


def _count(run: Demo) -> Summary:
    over = time.monotonic() + LEDGER_LAG
    summary, wrong = run.summary(), run.look_up_webhooks()
    while (summary.lost or wrong) and time.monotonic() < over:
        time.sleep(0.2)
        summary, wrong = run.summary(), run.look_up_webhooks()
    summary.lost += wrong
    return summary


def _report(summary: Summary, run: Demo, out: Console, engine: str, settled: bool, took: float) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("sent", str(summary.sent), "pings, each of which is in one of these rows:")
    stored = f"{summary.stored_files} files, {summary.stored_bytes / 1024:.0f} KiB, byte for byte as shared"
    for fate, words in FATES.items():
        if summary.fates[fate] or fate != "unanswered":
            table.add_row(f"  {fate}", str(summary.fates[fate]), words or stored)
    out.print()
    out.print(table)
    fast, slow = (f"{summary.quantile(share) * 1000:.1f} ms" for share in (0.5, 0.99))
    out.print()
    out.print(f"Half of the pings were acknowledged within {fast}, 99 % within {slow}.")
    out.print(f"More than one attempt was needed for {summary.retried} deliveries. All of it took {span(round(took))}.")
    out.print(f"The queue was kept by {engine}.")
    _report_webhooks(run, out)
    for problem in summary.lost[:20]:
        out.print(f"LOST  {line(problem)}", style="red")
    if not settled:
        out.print("Not everything was worked in time: see the logs in log/.", style="red")
    _say_next(run, out)


def _report_webhooks(run: Demo, out: Console) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for sent in run.webhooks:
        forged = sent.expected == "refused"
        came = "changed on its way: refused by its signature" if forged else f"{sent.state}: {sent.result}"
        row = (f"  {sent.source}", sent.event, f"{sent.status} in {sent.seconds * 1000:.1f} ms", came)
        table.add_row(*map(line, row))
    out.print("\nBeside Glass, webhooks of today, signed as their senders sign (handlers.py has their handlers):")
    out.print(table)


def _say_next(run: Demo, out: Console) -> None:
    config = Path(run.settings.file)
    directory = config.parent
    troubles = sorted({ping.trouble for ping in run.crowd.planned if ping.trouble != "none"})
    glassq = glassq_for(config)
    out.print(f"\nThe awkward pings of Glass: {', '.join(troubles)}.")
    told = [
        f"The photos are in {directory / 'photos'}, the logs in {directory / 'log'}.",
        f"A shop's handler failed as well: of its {run.orders} orders some lie buried, for a few causes.",
        "To look around, start it again: its last lines have a link to the web console. Then, in another terminal:",
        f"  {shlex.join([glassq_called(), 'dev', '--dir', str(directory)])}",
        *(f"  {glassq} {words}" for words in ("status", "buried", "show ID", "sources", "ping github")),
    ]
    for each in told:
        # never broken into lines, as some of them are to be copied
        out.print(each, soft_wrap=True)


def _keep(run: Demo, out: Console) -> None:
    out.print(f"\nStill running, with the settings {run.settings.file}. Ctrl-C stops.", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        while not threading.Event().wait(LOOK):
            run.check()
