"""`glassq spool`: what intake keeps on disk while the queue cannot take it, and putting it into the queue now."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.output import console, facts, print_json
from glassq.errors import JobNotFound, NotDurable, SettingsError
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from glassq.intake.spool import Spool
    from glassq.queues import Queue


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def spool(context: click.Context, as_json: bool) -> None:
    """What intake keeps on disk while the queue cannot take it. It drains by itself when the queue is back."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


def _list(app: App, as_json: bool) -> None:
    directory = app.settings.intake.spool
    opened = open_spool(app)
    found = opened.look() if opened else None
    if as_json:
        print_json({"directory": directory, **(asdict(found) if found else {}), "exists": found is not None})
        return
    out = console()
    if found is None:
        out.print(f"no spool at {directory}: nothing was ever kept there")
        return
    rows: list[tuple[str, object]] = [
        ("spool", directory),
        ("deliveries", found.count),
        ("size", f"{found.size} bytes of at most {app.settings.intake.spool_max}"),
        ("oldest", f"received {span(found.oldest)} ago" if found.count else "none"),
        ("damaged", found.damaged),
    ]
    out.print(facts(rows))
    if found.damaged:
        out.print(f"! {found.damaged} set aside: look at {directory}/damaged", style="yellow")
    if found.count:
        out.print(f"! glassq-web puts them into the queue once that takes them; {app.command('spool drain')} tries now")


@spool.command()
@as_json
@pass_app
def drain(app: App, as_json: bool) -> int:
    """Put what lies in the spool into the queue, oldest first, now."""
    opened = open_spool(app)
    before = opened.look().count if opened else 0
    drained = _drain(app, opened, before) if opened and before else 0
    after = opened.look() if opened else None
    left, damaged = (after.count, after.damaged) if after else (0, 0)
    if as_json:
        print_json({"drained": drained, "left": left, "damaged": damaged})
    elif not before:
        click.echo("the spool is empty")
    else:
        click.echo(f"{drained} put into the queue, {left} left, {damaged} damaged in all")
    if left and not drained:
        click.echo("glassq: another process drains it at this moment, or its files cannot be read", err=True)
    return int(left > 0)


def open_spool(app: App) -> Spool | None:
    """The spool of the settings; None where there is none, for here is no place to make it. Raises SettingsError."""
    from glassq.intake.spool import Spool

    intake = app.settings.intake
    directory = Path(intake.spool)
    try:
        owner = directory.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f'{app.settings.file}: [intake] spool = "{directory}": cannot be read: {error.strerror}'
        ) from None
    if os.geteuid() == 0 and owner.st_uid:
        # the lock would be root's, and intake could never drain again
        with os.fdopen(os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)) as lock:
            os.fchown(lock.fileno(), owner.st_uid, owner.st_gid)
    return Spool(directory, max_size=intake.spool_max, min_free=intake.spool_min_free)


def _drain(app: App, opened: Spool, total: int) -> int:
    """Raises QueueError; what was put until then is put."""
    from glassq.queues import open_queue

    durable = app.settings.intake.require_durable
    queue = open_queue(app.settings.queue, lease=app.settings.lease, require_durable=durable)
    bar = _bar(total)
    put = _durable_put(queue) if durable else queue.put

    def put_and_show(job: bytes) -> None:
        put(job)
        if bar is not None:
            bar.advance(bar.task_ids[0])

    try:
        return opened.drain(put_and_show)
    finally:
        queue.close()
        if bar is not None:
            bar.stop()


def _durable_put(queue: Queue) -> Callable[[bytes], int]:
    """A put that believes only what is in the binlog: its file may go once it is there."""

    def put(job: bytes) -> int:
        job_id = queue.put(job)
        try:
            in_memory_only = queue.stats_job(job_id).file == 0
        except JobNotFound:
            # it is worked already
            return job_id
        if in_memory_only:
            raise NotDurable("beanstalkd keeps jobs in memory only: its binlog failed")
        return job_id

    return put


def _bar(total: int) -> Progress | None:
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    bar.add_task("putting into the queue", total=total)
    bar.start()
    return bar
