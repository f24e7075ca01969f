"""`glassq dev` and `glassq demo`: everything on this machine."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.output import console
from glassq.dev.stack import Stack, write_new, write_settings
from glassq.settings import load

if TYPE_CHECKING:
    from collections import deque

    from rich.console import Console
    from rich.table import Table

    from glassq.dev.demo import Demo, Summary
    from glassq.dev.glass_crowd import Planned
    from glassq.queues import TubeStats

# The live view: this often a second, with so many of the latest pings.
REFRESH = 8
LATEST = 8
# The ledger is written a moment after the work is done; so long the count may wait for it, in seconds.
LEDGER_LAG = 5.0

DEV_BIND = "127.0.0.1:8080"

HANDLER = '''\
"""Your handlers. A change takes effect when `glassq dev` is started again."""

import logging

from glassq import Bury, Delivery, Drop, Retry  # what a handler may raise, beside returning

log = logging.getLogger("handlers")


def handle(delivery: Delivery) -> str:
    log.info("a ping of %s came: %s", delivery.source, delivery.labels)
    return f"{len(delivery.body)} bytes"
'''


@click.command()
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    default="var",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where all state lies.",
)
@click.option("--bind", metavar="HOST:PORT", help=f"Where intake listens, for new settings; else {DEV_BIND}.")
def dev(directory: Path, bind: str | None) -> None:
    """Run beanstalkd, the intake and the pool in the foreground, for trying out.

    The settings are DIR/glassq.toml and the handler is in DIR/handlers.py; both are written when they are not there,
    and yours to change. Ctrl-C stops everything; jobs stay on disk for the next time.
    """
    _stop_as_by_ctrl_c()
    directory = directory.resolve()
    file = directory / "glassq.toml"
    if not file.exists():
        write_settings(directory, {"intake": {"bind": bind or DEV_BIND}}, "handlers:handle")
        write_new(directory / "handlers.py", HANDLER)
    settings = load(str(file), {})
    if bind and bind != settings.intake.bind:
        raise click.UsageError(f'{file} has [intake] bind = "{settings.intake.bind}": change it there')
    with Stack(directory, logs=False) as stack:
        _say_ready(stack, settings.intake.bind)
        try:
            while True:
                stack.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            click.echo("stopping: what is being worked is finished first", err=True)


def _say_ready(stack: Stack, bind: str) -> None:
    token_file = stack.directory / "mirror-verify-tokens"
    click.echo(f"ready: POST http://{bind}/hooks/mirror   settings: {stack.config}   (Ctrl-C stops)")
    if not token_file.exists():
        return
    ping = (
        '{"collection": "timeline", "itemId": "my-item", "operation": "INSERT", "userToken": "me", '
        '"userActions": [{"type": "SHARE"}], "verifyToken": "\'"$(cat ' + str(token_file) + ')"\'"}'
    )
    click.echo(f"try:   curl -i http://{bind}/hooks/mirror -H 'Content-Type: application/json' -d '{ping}'")
    click.echo(f"       {_me()} --config {stack.config} status")


@click.command()
@click.option(
    "--pings",
    metavar="N",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="How many photos are shared.",
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
    "--dir",
    "directory",
    metavar="DIR",
    default="var/demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where all state lies.",
)
@click.option("--keep", is_flag=True, help="Keep everything running afterwards, to look around, until Ctrl-C.")
def demo(pings: int, rate: float, users: int, seed: int, directory: Path, keep: bool) -> int:
    """Watch simulated Glass users share photos and glassq store them.

    A real HTTP server plays Google: Mirror API, token endpoint, pings. A quarter of the pings is awkward: photos still
    processing, deleted, rate limited, cut off, sent twice, by a user who took the consent back, with a wrong token.
    Exits with 0 only when nothing was lost.
    """
    from glassq.dev.demo import Demo, prepare
    from glassq.dev.glass import SimulatedGlass
    from glassq.dev.glass_crowd import Crowd

    _stop_as_by_ctrl_c()
    out = console()
    with SimulatedGlass() as glass:
        directory = prepare(directory, glass)
        out.print(f"state: {directory}")
        crowd = Crowd(glass, pings=pings, users=users, seed=seed, rate=rate)
        with Stack(directory, logs=True) as stack:
            run = Demo(stack, crowd)
            try:
                out.print(f"ready: intake http://{run.settings.intake.bind}, {run.settings.worker.processes} consumers")
                run.enrol()
                settled = _watch(run, out)
                summary = _count(run)
                _report(summary, run, out, settled)
                if keep:
                    _keep(directory, out)
            except KeyboardInterrupt:
                raise click.Abort from None
            finally:
                run.close()
    return 0 if settled and not summary.lost else 1


def _watch(run: Demo, out: Console) -> bool:
    """The live view, while the crowd sends and until everything is settled; False if it does not settle."""
    from collections import deque

    from rich.live import Live

    latest: deque[Planned] = deque(maxlen=LATEST)
    failed: list[BaseException] = []
    sent = [0]

    def on_event(planned: Planned) -> None:
        sent[0] += 1
        latest.append(planned)

    def send() -> None:
        try:
            run.crowd.run(on_event)
        except BaseException as error:
            failed.append(error)

    sender = threading.Thread(target=send, name="crowd", daemon=True)
    with Live(console=out, refresh_per_second=REFRESH, transient=True) as live:

        def tick() -> None:
            live.update(_view(sent[0], len(run.crowd.planned), run.counts(), latest))

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


def _view(sent: int, planned: int, counts: TubeStats, latest: deque[Planned]) -> Table:
    from rich.table import Table

    view = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    view.add_row("sent", f"{sent} of {planned}")
    view.add_row("queue", f"{counts.ready} ready, {counts.reserved} at work, {counts.delayed} to be retried")
    view.add_row("buried", str(counts.buried))
    for each in tuple(latest):
        answers = ", ".join(f"{result.statuses[-1]} in {result.seconds * 1000:.1f} ms" for result in each.results)
        view.add_row(f"ping {each.number}", f"{answers}   {'' if each.trouble == 'none' else each.trouble}")
    return view


def _count(run: Demo) -> Summary:
    over = time.monotonic() + LEDGER_LAG
    summary = run.summary()
    while summary.lost and time.monotonic() < over:
        time.sleep(0.2)
        summary = run.summary()
    return summary


def _report(summary: Summary, run: Demo, out: Console, settled: bool) -> None:
    from rich.table import Table

    from glassq.cli.output import line

    troubles = sorted({each.trouble for each in run.crowd.planned if each.trouble != "none"})
    rows = [
        ("sent", summary.sent, "pings, those that were sent again included"),
        (
            "acknowledged",
            summary.acknowledged,
            f"p50 {summary.quantile(0.5) * 1000:.1f} ms, p99 {summary.quantile(0.99) * 1000:.1f} ms",
        ),
        ("refused", summary.refused, "with a wrong token"),
        (
            "stored",
            summary.stored,
            f"items: {summary.stored_files} files, {summary.stored_bytes / 1024:.0f} KiB, as shared",
        ),
        ("retried", summary.retried, "deliveries took more than one attempt"),
        ("dropped", summary.dropped, "gone before they were worked"),
        ("buried", summary.buried, "for an operator: the user took the consent back"),
        ("lost", len(summary.lost), "acknowledged, and without an outcome"),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, number, words in rows:
        table.add_row(name, str(number), words)
    out.print()
    out.print(table)
    for problem in summary.lost[:20]:
        out.print(f"LOST  {line(problem)}", style="red")
    if not settled:
        out.print("Not everything was worked in time: see the logs in log/.", style="red")
    _say_next(run, out, ", ".join(troubles))


def _say_next(run: Demo, out: Console, troubles: str) -> None:
    directory = Path(run.settings.file).parent
    config = f"{_me()} --config {run.settings.file}"
    out.print(f"\nAwkward ones among them: {troubles}.")
    out.print(f"The photos are in {directory / 'photos'}, the logs in {directory / 'log'}.")
    out.print("To look around, start it again and ask, in another terminal:")
    out.print(f"  {_me()} dev --dir {directory}")
    out.print(f"  {config} status")
    out.print(f"  {config} buried")
    out.print(f"  {config} show ID")


def _stop_as_by_ctrl_c() -> None:
    """A kill, or a terminal that is closed, stops everything too: what was started here must not live on alone."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _me() -> str:
    """How this program was called, short enough to type."""
    path = Path(sys.argv[0]).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _keep(directory: Path, out: Console) -> None:
    out.print(f"\nStill running, with the settings {directory / 'glassq.toml'}. Ctrl-C stops.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
