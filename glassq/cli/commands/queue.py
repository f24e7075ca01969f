"""`glassq queue`: the tables of an engine that keeps jobs in a database, or the queues of Amazon SQS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import line, print_json
from glassq.operations import queue_tables as operation
from glassq.values import QueueUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.operations.queue_tables import TablesReport

# What may live in the queue's database; nothing else has to be right.
USES = frozenset({"queue", "ledger", "bodies", "push", "glass"})

_url = click.option(
    "--url",
    metavar="URL",
    default="",
    help="The database, as the role that is to own the tables; by default [queue] url.",
)
_grant = click.option(
    "--grant", "role", metavar="ROLE", default="", help="Give ROLE the rights that pools and intake need."
)


@click.group(cls=CommandGroup)
def queue() -> None:
    """The queue's tables, where it is a PostgreSQL database, or the queues of Amazon SQS; beanstalkd needs nothing."""


@queue.command()
@_url
@_grant
@as_json
@pass_app
def init(app: App, url: str, role: str, as_json: bool) -> None:
    """Make the tables. Where they are, only what is older than this glassq is changed.

    At Amazon SQS it makes a queue for each tube that settings and queue.yaml name, which keeps deliveries for 14 days.
    """
    _tell(app, operation.init, url, role, as_json)


@queue.command()
@_url
@_grant
@as_json
@pass_app
def upgrade(app: App, url: str, role: str, as_json: bool) -> None:
    """Bring the tables to this version, step by step, while pools of the version before go on.

    Upgrade the tables first, then the programs on each host.
    """
    _tell(app, operation.upgrade, url, role, as_json)


@queue.command()
@as_json
@pass_app
def check(app: App, as_json: bool) -> int:
    """What the queue's server tells of itself, and whether all that lives in its database can be written.

    The same lines as in `glassq doctor`.
    """
    # doctor's own printer takes what few commands need
    from glassq.cli.checks import tell
    from glassq.cli.progress import Spinner
    from glassq.operations.checks.examine import examine_engine

    app.uses = USES
    shown = Spinner()
    return tell(app, examine_engine(app.operations, shown), shown, as_json)


def _tell(app: App, do: Callable[..., TablesReport], url: str, role: str, as_json: bool) -> None:
    app.uses = USES
    report = do(app.operations, url=url, role=role)
    if report.made or report.changed or report.granted:
        # the ledger may be missing still
        app.has_done(f"queue {do.__name__}", warn=False)
    if as_json:
        print_json(report.document())
        return
    for words in _words(report):
        click.echo(line(words))
    if report.granted:
        click.echo(line(f"role {report.granted} has the rights that pools and intake need"))
    elif report.rights and not report.grants:
        about = f"docs/{QueueUrl(report.url).engine}.md has one for each"
        click.echo(f"Intake, pools and operators need no more than this (an IAM policy; {about}):")
        for words in report.rights:
            click.echo(f"  {line(words)}")
    elif report.rights:
        click.echo("A role of pools and intake needs no more than this (--grant ROLE does it):")
        for statement in report.rights:
            click.echo(line(f"  {statement};"))


def _words(report: TablesReport) -> Iterator[str]:
    if not report.known:
        yield f"{report.engine} at {report.url} needs no tables: there is nothing to do"
        return
    if report.found and report.found != report.known:
        yield (
            f"the queue's tables in {report.url} were of version {report.found}, and are of version {report.known} now"
        )
    if report.noun == "queues":
        yield from _queues(report)
        return
    things = "the tables of" if report.noun == "tables" else f"the {report.noun}"
    if report.made:
        yield f"made in {report.url}: {things} {', '.join(report.made)}"
    if changed := [name for name in report.changed if name != "queue"]:
        yield f"brought to this version in {report.url}: {things} {', '.join(changed)}"
    if not (report.made or report.changed):
        yield f"all {report.noun} in {report.url} are there already, of this version ({report.known})"


def _queues(report: TablesReport) -> Iterator[str]:
    if report.made:
        yield f"made in {report.url}: the queues {', '.join(report.made)}"
    if report.changed:
        yield f"set in {report.url} to keep deliveries for 14 days: {', '.join(report.changed)}"
    if not (report.made or report.changed):
        yield f"all queues in {report.url} are there already"
