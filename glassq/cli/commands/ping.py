"""`glassq ping`: a signed sample goes to the running intake, as its sender would send it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, examples, pass_app
from glassq.cli.files import MAX_SAVED, read_input
from glassq.cli.output import console, line, print_hints, print_json
from glassq.errors import InvalidRequest
from glassq.operations import ping as operation

if TYPE_CHECKING:
    from glassq.operations.ping import PingAnswer, PingPlan


@click.command(
    epilog=examples(
        ("the usual event of that sender", "glassq ping github"),
        ("another one", "glassq ping stripe --event invoice.paid"),
        ("a ping of one's own, signed anew", "glassq ping github push.json --event push"),
    )
)
@click.argument("name", metavar="NAME", shell_complete=completion.sources)
@click.argument("file", metavar="[FILE|-]", default="", shell_complete=completion.files)
@click.option("--event", metavar="E", default="", shell_complete=completion.events, help="What the ping tells of.")
@click.option("--header", "headers", metavar="NAME:VALUE", multiple=True, help="Send this header too; several times.")
@click.option("--repeat", metavar="N", default=1, type=click.IntRange(1, 100_000), help="Send N, each of its own.")
@click.option(
    "--key-file",
    metavar="FILE",
    shell_complete=completion.files,
    help="The private key, in PEM, for senders that sign with one: the settings hold the public one alone.",
)
@click.option("--url", metavar="URL", default="", help="Send it there instead of to [intake] bind.")
@as_json
@pass_app
def ping(
    app: App,
    name: str,
    file: str,
    event: str,
    headers: tuple[str, ...],
    repeat: int,
    key_file: str | None,
    url: str,
    as_json: bool,
) -> int:
    """Send a correctly signed ping of this source to the running intake, and say what became of it.

    NAME is a source of the settings. Without a file, a small sample of glassq's is sent; FILE is a body, or a whole
    saved request, that is signed anew. Exit 0: all were taken; 1: one was not.
    """
    request = operation.PingRequest(
        name=name,
        event=event,
        content=read_input(file, MAX_SAVED) if file else None,
        headers=_headers(headers),
        key=read_input(key_file, MAX_SAVED) if key_file else None,
        url=url,
    )
    plan = operation.plan(app.operations, request)
    with app.progress(stoppable=True) as progress:
        answers = []
        for number in range(repeat):
            progress.advance(number, repeat, "sent so far")
            answer = operation.send(plan)
            if repeat == 1 and answer.taken and not url:
                answer = operation.follow(app.operations, plan, answer, progress)
            answers.append(answer)
    # what scripts run on any host: they hear of no ledger that is not there
    app.has_done("ping", done=sum(answer.taken for answer in answers), filter_=f"source={name}", warn=False)
    if as_json:
        print_json({"sent_to": plan.where, "pings": [answer.document() for answer in answers]})
    else:
        _tell(app, plan, answers)
    return 0 if all(answer.taken for answer in answers) else 1


def _headers(texts: tuple[str, ...]) -> dict[str, str]:
    """Raises InvalidRequest."""
    found: dict[str, str] = {}
    for text in texts:
        header, colon, value = text.partition(":")
        if not (header.strip() and colon and text.isprintable()):
            raise InvalidRequest(f"--header {text}: expected NAME:VALUE")
        found[header.strip()] = value.strip()
    return found


def _tell(app: App, plan: PingPlan, answers: list[PingAnswer]) -> None:
    out = console()
    if len(answers) > 1:
        taken = sum(answer.taken for answer in answers)
        slowest = max(answer.seconds for answer in answers) * 1000
        out.print(f"{taken} of {len(answers)} taken at {line(plan.where)}, the slowest in {slowest:.1f} ms")
    last = next((answer for answer in answers if not answer.taken), answers[-1])
    if len(answers) == 1 or not last.taken:
        labels = " ".join(f"{key}={value}" for key, value in last.labels.items())
        said = f": {last.said}" if last.said else ""
        out.print(line(f"{last.status} in {last.seconds * 1000:.1f} ms at {plan.where}{said}   {labels}"))
    if last.outcome is not None:
        result = last.outcome.result or last.outcome.reason
        out.print(line(f"delivery {last.outcome.delivery}: {last.outcome.state}" + (f": {result}" if result else "")))
    print_hints(out, (app.adapt(str(hint)) for hint in operation.hints(plan, last, len(answers) > 1)))
