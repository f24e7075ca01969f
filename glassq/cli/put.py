"""`glassq put`: a file, or standard input, as a delivery."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq import delivery as envelope
from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, pass_app
from glassq.cli.find import checked_tube, unworked
from glassq.cli.output import line, print_json
from glassq.cli.where import whole_seconds
from glassq.errors import JobNotFound, PingRefused, QueueUnavailable
from glassq.operations.words import span
from glassq.push.request import SOURCE as PUSH
from glassq.queues import open_queue
from glassq.sources import open_sources

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.queues import Queue
    from glassq.values import Size

# Labels are for routes to match, not for contents, in characters.
MAX_LABEL = 512
# A source's name is a word in logs, tables, the ledger and URLs.
_SOURCE = re.compile(r"[a-z][a-z0-9_-]{0,63}")


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

    What comes from a source of the settings is checked as intake does, and gets its labels from there; any other gets
    those of --label.
    """
    _check_source(source)
    given = _given(labels)
    checked = getattr(app.settings.sources, source, None) is not None and not no_check
    if checked and given:
        raise click.UsageError(f"the labels come from the ping, as {source} has them: --label goes with --no-check")
    into = checked_tube("--tube", tube) if tube is not None else app.settings.queue.tube
    wait = whole_seconds("--delay", delay) if delay is not None else 0
    body = _read(file, app.settings.intake.max_body)
    made = envelope.new(source, body, _checked_labels(app, source, body) if checked else given)
    _warn(app, made, into)
    if dry_run:
        _tell(made, None, into, wait, as_json)
        return 0
    durable = app.settings.intake.require_durable
    with closing(open_queue(app.settings.queue, lease=app.settings.lease, require_durable=durable)) as queue:
        job = _put(app, queue, made, into, wait)
        kept = not durable or _on_disk(queue, job)
    _tell(made, job, into, wait, as_json)
    if not kept:
        more = f"beanstalkd does not write to disk ({app.command('doctor')} says more)"
        click.echo(f"glassq: it is in the queue, but in memory only: {more}", err=True)
    return int(not kept)


def _check_source(name: str) -> None:
    if name == PUSH:
        raise click.UsageError(
            'tasks are not put as files: a program adds them, with "from glassq import taskqueue; '
            'taskqueue.add(url=..., payload=...)"'
        )
    if not _SOURCE.fullmatch(name):
        raise click.UsageError(f"--source {line(name)}: expected a name of up to 64 of a-z 0-9 _ and -, a letter first")


def _given(labels: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in labels:
        key, equals, value = text.partition("=")
        if not (key and equals and text.isprintable() and len(text) <= MAX_LABEL):
            raise click.UsageError(f"--label {line(text)}: expected KEY=VALUE, printable, up to {MAX_LABEL} characters")
        if key in found:
            raise click.UsageError(f"--label {key} is given twice")
        found[key] = value
    return found


def _read(file: str, most: Size) -> bytes:
    """The body, of `most` bytes at most. Raises click.ClickException."""
    try:
        if file == "-":
            if sys.stdin is None:
                raise click.ClickException("standard input is closed: name a file")
            if sys.stdin.isatty():
                click.echo("glassq: the body is what you type now, up to Ctrl-D", err=True)
            body = sys.stdin.buffer.read(most + 1)
        else:
            with Path(file).open("rb") as opened:
                body = opened.read(most + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{line(file)} cannot be read: {why}") from None
    if len(body) > most:
        raise click.ClickException(f"a body is at most {most} ([intake] max_body), and this one is larger")
    if not body:
        raise click.ClickException("the body is empty")
    return body


def _checked_labels(app: App, source: str, body: bytes) -> dict[str, str]:
    """What the source makes of the body. Raises click.ClickException where it does not take it."""
    try:
        return next(each for each in open_sources(app.settings) if each.name == source).check(body)
    except PingRefused as error:
        raise click.ClickException(
            f"{source} does not take it: {error.detail} (--no-check puts it all the same)"
        ) from None


def _warn(app: App, made: Delivery, tube: str) -> None:
    """Says why it may come to nothing."""
    if why := unworked(app, tube):
        click.echo(f"glassq: {why}", err=True)
    elif not any(route.wants(made.source, made.labels) for route in app.settings.routes):
        click.echo(f"glassq: no route takes it: glassq-worker drops it ([[routes]] in {app.settings.file})", err=True)


def _put(app: App, queue: Queue, made: Delivery, tube: str, delay: int) -> int:
    try:
        return queue.put(envelope.encode(made), delay=delay, tube=tube)
    except QueueUnavailable:
        show = app.command(f"show {made.id}")
        click.echo(f"glassq: perhaps it was put all the same: {show} tells, once the queue is back", err=True)
        raise


def _on_disk(queue: Queue, job: int) -> bool:
    """Whether the job is in the binlog; one that is gone has been worked by now."""
    try:
        return queue.stats_job(job).file > 0
    except JobNotFound:
        return True


def _tell(made: Delivery, job: int | None, tube: str, delay: int, as_json: bool) -> None:
    """`job` None: it was not put."""
    if as_json:
        print_json(
            {
                "delivery": made.id if job else None,
                "job": job,
                "source": made.source,
                "labels": made.labels,
                "tube": tube,
                "delay": delay,
                "bytes": len(made.body),
                "dry_run": job is None,
            }
        )
    elif job:
        click.echo(made.id)
    else:
        labels = " ".join(f"{key}={value}" for key, value in made.labels.items()) or "none"
        when = f", ready after {span(delay)}" if delay else ""
        words = f"{len(made.body)} bytes from {made.source} would be put into tube {tube}{when}; labels: {labels}"
        click.echo(line(words))
