"""`glassq put`: a file, or standard input, becomes a delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, pass_app
from glassq.cli.files import MAX_SAVED, read_input
from glassq.cli.output import line, print_json
from glassq.operations import put as operation
from glassq.operations.filters import duration
from glassq.operations.put import PutRequest, parse_labels
from glassq.operations.words import span

if TYPE_CHECKING:
    from glassq.operations.put import PutPlan


@click.command()
@click.argument("file", metavar="[FILE|-]", default="-", shell_complete=completion.files)
@click.option(
    "--source", required=True, metavar="NAME", shell_complete=completion.sources, help='As whose ping: "mirror".'
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="What routes can match; several times.")
@click.option("--no-check", is_flag=True, help="Take it as it is: the source does not check it, --label makes labels.")
@click.option("--tube", metavar="TUBE", shell_complete=completion.tubes, help="Into this tube instead of [queue] tube.")
@click.option("--delay", metavar="DURATION", help='Ready after this: "10m".')
@dry_run
@as_json
@pass_app
def put(
    app: App,
    file: str,
    source: str,
    labels: tuple[str, ...],
    no_check: bool,
    tube: str | None,
    delay: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Put a file, or standard input, as a delivery, and print the delivery's id.

    A source of the settings checks it as intake does, and makes the labels: FILE is a whole saved request then (see
    `glassq sources test`), or a body that proves itself, as Mirror's does. For any other source --label makes them.
    """
    request = PutRequest(
        source=source,
        labels=parse_labels(labels),
        unchecked=no_check,
        tube=tube,
        delay=duration("--delay", delay) if delay is not None else 0.0,
    )
    request.check(app.operations)
    body = read_input(file, MAX_SAVED)
    with app.progress() as progress:
        plan = operation.plan(app.operations, request, body, progress)
        receipt = None if dry_run else operation.carry_out(app.operations, plan, progress)
    # what scripts run on any host: they hear of no ledger that is not there
    app.has_done("put", done=int(receipt is not None), filter_=plan.delivery.id, warn=False)
    if as_json:
        print_json(plan.document(receipt))
    else:
        click.echo(plan.delivery.id if receipt else line(_preview(plan)))
    return 0


def _preview(plan: PutPlan) -> str:
    labels = " ".join(f"{key}={value}" for key, value in plan.delivery.labels.items()) or "none"
    when = f", ready after {span(plan.delay)}" if plan.delay else ""
    size, source = len(plan.delivery.body), plan.delivery.source
    return f"{size} bytes from {source} would be put into tube {plan.tube}{when}; labels: {labels}"
