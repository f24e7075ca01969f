"""`make example`: simulated Glass users share photos, the Glassware in app.py stores them as tasks of glassq.

Only Glass is simulated: beanstalkd, glassq's intake and pool, and the Glassware under gunicorn are real processes. The
demo compares the stored photos byte by byte with the shared ones, and exits with 0 only if nothing is lost.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from servers import running

from glassq.cli.output import console, facts, print_table, table
from glassq.dev.simulator.glass import HTML
from glassq.errors import GlassqError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from servers import Example

    from glassq.dev.simulator.glass import Attachment, TimelineItem

# Users whose pings go to /glassCallback.
USERS = ("ada", "grace")
# The user whose pings go to glassq's intake; a route posts them to /taskHandler, so the Glassware needs no callback.
INTAKE_USER = "hedy"
# Photos that each user shares without trouble.
PHOTOS = 3
# Deadline for all work after the last ping, in seconds.
SETTLE = 40.0
# Maximum wait for the ledger, which is written shortly after the work, in seconds.
LEDGER_LAG = 5.0


@dataclass(slots=True)
class Share:
    """One item and its pings. `trouble` is its problem, if any; `kept` means that its photos must be stored."""

    item: TimelineItem
    trouble: str = ""
    kept: bool = True
    pings: int = 0
    acknowledged: bool = True


def share_all(example: Example, tell: Callable[[Share], None]) -> list[Share]:
    """Shares the users' photos, with some trouble; sends each ping as Glass does."""
    glass, (ada, grace) = example.glass, USERS
    shares = []

    def ping(share: Share, times: int = 1, **override: object) -> None:
        for _ in range(times):
            share.acknowledged &= glass.ping(share.item.user, share.item, **override).acknowledged  # type: ignore[arg-type]
            share.pings += 1
        shares.append(share)
        tell(share)

    for _ in range(PHOTOS):
        for user in (*USERS, INTAKE_USER):
            ping(Share(glass.share(user)))
    ping(Share(glass.share(ada, ["jpeg", "mp4", "stream"]), "a film and a live stream, too"))
    ping(Share(glass.share(grace, processing_for=1.5), "still processed"))
    ping(Share(glass.share(ada), "the ping comes twice"), times=2)
    failing = Share(glass.share(grace), "Glass answers 503")
    glass.fail_next(f"/mirror/v1/timeline/{failing.item.id}", 503, body=HTML)
    ping(failing)
    cut = Share(glass.share(INTAKE_USER), "the download is cut off")
    glass.fail_next(f"/mirror/v1/timeline/{cut.item.id}/attachments/", mode="cut off")
    ping(cut)
    gone = Share(glass.share(ada), "deleted meanwhile", kept=False)
    glass.delete_item(ada, gone.item.id)
    ping(gone)
    ping(Share(glass.share(grace), "spoofed", kept=False), verifyToken="somebody-else")
    return shares


def settle(example: Example, tell: Callable[[int, int, int], None]) -> bool:
    """Waits until the queue is empty, reporting jobs ready, at work and to be retried; False after SETTLE seconds."""
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        both = example.counts()
        left = [sum(getattr(each, name) for each in both) for name in ("ready", "reserved", "delayed")]
        if not any(left):
            return True
        tell(*left)
        time.sleep(0.1)
    return False


@dataclass(slots=True)
class Result:
    """The outcome of the demo. `rows` are the stored files: user, file, size, whether as shared, trouble."""

    rows: list[tuple[str, ...]]
    sent: int
    done: int
    retried: int
    spoofed: int
    buried: int
    lost: list[str]


def count(example: Example, shares: list[Share]) -> Result:
    """Checks each item's photos on disk, and each ping's outcome in the ledger."""
    sent = sum(share.pings for share in shares)
    deadline = time.monotonic() + LEDGER_LAG
    while len(answers := example.answers()) < sent and time.monotonic() < deadline:
        time.sleep(0.1)
    codes = [status for status, _ in answers]
    retried = sum(entry.attempts > 1 for _, entry in answers)
    buried = sum(each.buried for each in example.counts())
    result = Result([], sent, codes.count(200), retried, codes.count(299), buried, [])
    for share in shares:
        if not share.acknowledged:
            result.lost.append(f"a ping of item {share.item.id} was not acknowledged")
        for path, attachment in example.files(share.item):
            _compare(path, attachment, share, result)
    if len(answers) < sent - buried:
        result.lost.append(f"{sent} pings were sent, {len(answers)} are done, {buried} buried")
    if result.spoofed != 1:
        result.lost.append(f"{result.spoofed} tasks were dropped as spoofed; expected 1")
    return result


def _compare(path: Path, attachment: Attachment, share: Share, result: Result) -> None:
    if not share.kept:
        if path.exists():
            result.lost.append(f"{path.name} is stored ({share.trouble})")
        return
    try:
        data = path.read_bytes()
    except OSError:
        result.lost.append(f"{path.name} is not stored")
        return
    same = data == attachment.data
    if not same:
        result.lost.append(f"{path.name} differs from what was shared")
    result.rows.append(
        (share.item.user, path.name, f"{len(data):,}", "as shared" if same else "DIFFERS", share.trouble)
    )


@click.command(help=__doc__)
@click.option(
    "--dir",
    "directory",
    default="var/example",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Directory for all state; files of an earlier run are removed.",
)
def main(directory: Path) -> None:
    # a kill, or a closed terminal, stops everything as Ctrl-C does
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    out = console()
    try:
        with out.status("starting beanstalkd, glassq, the Glassware and a simulated Glass"), running(directory) as up:
            fine = show(up, directory.resolve(), out)
    except GlassqError as error:
        raise click.ClickException(str(error)) from None
    if not fine:
        raise SystemExit(1)


def show(example: Example, directory: Path, out: Console) -> bool:
    """Shares the photos, and prints what came of them; whether nothing was lost, and all done in time."""
    settled, result = _play(example, out)
    _report(result, settled, directory, out)
    return settled and not result.lost


def _play(example: Example, out: Console) -> tuple[bool, Result]:
    out.print(f"ready: /glassCallback at http://{example.public}, /taskHandler at http://{example.tasks}")
    for user in USERS:
        example.enrol(user, example.callback)
    example.enrol(INTAKE_USER, example.intake)

    def shared(share: Share) -> None:
        out.print(f"  {share.item.user} shares {share.item.id}" + (f" ({share.trouble})" if share.trouble else ""))

    shares = share_all(example, shared)
    before = [""]

    def worked(ready: int, at_work: int, delayed: int) -> None:
        words = f"  {ready} ready, {at_work} at work, {delayed} to be retried"
        if words != before[0]:
            out.print(words)
            before[0] = words

    return settle(example, worked), count(example, shares)


def _report(result: Result, settled: bool, directory: Path, out: Console) -> None:
    out.print()
    print_table(out, table("Photos", ("user", "file", "bytes", "", "trouble"), result.rows))
    rows = (
        ("pings", result.sent, "sent by the simulated Glass"),
        ("200", result.done, "tasks: stored, stored before, or nothing to store"),
        ("299", result.spoofed, "tasks: spoofed, so dropped"),
        ("retried", result.retried, "tasks took more than one attempt"),
        ("buried", result.buried, "tasks, for an operator"),
        ("lost", len(result.lost), "photos or pings"),
    )
    out.print()
    out.print(facts((name, f"{number:>4}  {words}") for name, number, words in rows))
    for problem in result.lost:
        out.print(f"LOST  {problem}", style="red")
    if not settled:
        out.print("Some work was not done in time: see the logs.", style="red")
    out.print(f"\nThe photos are in {directory / 'photos'}, the logs in {directory / 'log'}.")


if __name__ == "__main__":
    main()
