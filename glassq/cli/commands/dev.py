"""`glassq dev`: everything on this machine, for trying out; it reloads what changes."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.app import as_directory
from glassq.cli.reloader import Reloader
from glassq.cli.trial import BEARER, say_console, say_ready
from glassq.dev.door import Door
from glassq.dev.queue_server import require_beanstalkd
from glassq.dev.stack import Stack, check_name, write_new, write_settings
from glassq.dev.watch import Watch
from glassq.settings import load
from glassq.values import Bind, url_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.settings import Settings

DEV_BIND = Bind("127.0.0.1:8080")
# How often files are looked at, in seconds.
LOOK_EVERY = 0.25

HANDLER = '''\
"""Your handlers. `glassq dev` reloads them when you save this file."""

import logging

from glassq import Bury, Delivery, Drop, Retry  # what a handler may raise, beside returning

log = logging.getLogger("handlers")


def handle(delivery: Delivery) -> str:
    log.info("a ping of %s came: %s", delivery.source, delivery.labels)
    return f"{len(delivery.body)} bytes"
'''

QUEUES = """\
# The queues of your tasks, as in App Engine's queue.yaml; conf/queue.yaml explains all keys. `glassq dev` reloads it.
queue:
- name: default
  rate: 5/s
  retry_parameters:
    task_retry_limit: 7
"""


def _as_bind(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Bind | None:
    try:
        return None if text is None else Bind(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def home_directory(default: str) -> Callable[[Any], Any]:
    """The option that says where everything of a trial is kept."""
    return click.option(
        "--dir",
        "directory",
        metavar="DIR",
        default=default,
        show_default=True,
        type=click.Path(path_type=Path),
        callback=as_directory,
        help="Where all state lies.",
    )


without_console = click.option("--no-console", is_flag=True, help="Do not start the web console.")


@click.command()
@home_directory("var")
@click.option(
    "--bind",
    metavar="ADDRESS",
    callback=_as_bind,
    help=f"Where intake listens, for new settings: HOST:PORT or unix:/PATH; else {DEV_BIND}.",
)
@without_console
@click.option(
    "--console-port",
    metavar="PORT",
    type=click.IntRange(1, 65_535),
    help="Where the web console listens on 127.0.0.1.  [default: 8099, or another free one]",
)
def dev(directory: Path, bind: Bind | None, no_console: bool, console_port: int | None) -> None:
    """Run the queue's server, the intake and the pool in the foreground, for trying out.

    The settings are DIR/glassq.toml, the handler is in DIR/handlers.py, the queues of tasks are in DIR/queue.yaml; all
    are written when they are not there, and yours to change. beanstalkd and its syncer run here, unless [queue] url
    names a PostgreSQL. glassq-tasks runs once a route or a target takes tasks. The last lines have a link to the web
    console. A change is in effect some seconds after
    you save it; if it is wrong, the reason is shown and the previous version keeps running. Ctrl-C stops everything;
    jobs stay on disk for the next time.
    """
    stop_as_by_ctrl_c()
    directory = directory.resolve()
    file = directory / "glassq.toml"
    if not file.exists():
        require_beanstalkd()
        # before gunicorn is loaded, which cannot read such a command line
        check_name(directory)
        # an address that cannot be, or is taken, is not written: another one may be tried at once
        Door(bind or DEV_BIND).check_free()
        write_settings(directory, new_sections(directory, bind or DEV_BIND), "handlers:handle")
        write_new(directory / "handlers.py", HANDLER)
        write_new(directory / "queue.yaml", QUEUES)
    settings = load(str(file), {})
    if bind and bind != settings.intake.bind:
        raise click.UsageError(f'{file} has [intake] bind = "{settings.intake.bind}": change it there')
    # Before the programs read the files: no change after that may be missed.
    watch = Watch(file)
    with Stack(directory, logs=False) as stack:
        try:
            why = stack.tend_tasks(settings)
            why_no_console = "" if no_console else stack.start_console(console_port)
            say_ready(stack, settings, why)
            say_console(stack, why_no_console)
            _watch(stack, settings, watch)
        except KeyboardInterrupt:
            click.echo("stopping: what is being worked is finished first (Ctrl-C again: at once)", err=True)
    click.echo("stopped", err=True)


def new_sections(directory: Path, bind: Bind) -> dict[str, dict[str, object]]:
    """The sections of new settings, beside those that each stack has. The default places of all files are root's."""
    intake: dict[str, object] = {"bind": bind}
    glass: dict[str, object] = {"credentials": directory / "credentials"}
    return {"intake": intake, **_tasks(directory), "glass": glass, **_sources(directory)}


def _sources(directory: Path) -> dict[str, dict[str, object]]:
    """The sources of new settings: one's own program with a token, and the webhook that most have to do with."""
    own = {"kind": "token", "token": BEARER, "secrets_file": directory / "own-token"}
    return {"sources.own": own, "sources.github": {"secrets_file": directory / "github-secret"}}


def _tasks(directory: Path) -> dict[str, dict[str, object]]:
    """Queues, names and the server of tasks; where glassq-console would listen beside those that are started here."""
    push: dict[str, object] = {"queue_yaml": "queue.yaml", "names": f"sqlite:///{url_path(directory)}/task-names.db"}
    try:
        tasks, console = (Bind(f"unix:{directory}/{name}.sock") for name in ("tasks", "console"))
        return {"push": push, "tasks": {"bind": tasks}, "console": {"bind": console}}
    except ValueError:
        # too deep for a socket
        return {"push": push}


def stop_as_by_ctrl_c() -> None:
    """A kill, or a terminal that is closed, stops everything too: what was started here must not live on alone."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _watch(stack: Stack, settings: Settings, watch: Watch) -> None:
    """Until Ctrl-C. Raises StackError where one of the processes has ended."""
    reloader = Reloader(stack, settings)
    while True:
        push = reloader.settings.push
        if push is not None and push.queue_yaml:
            watch.include(Path(push.queue_yaml))
        stack.check()
        reloader.look(watch.changed())
        time.sleep(LOOK_EVERY)
