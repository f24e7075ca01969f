"""`glassq dev`: everything on this machine, for trying out; it reloads what changes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.app import App, as_directory
from glassq.cli.output import line
from glassq.dev.door import Door
from glassq.dev.queue_server import require_beanstalkd
from glassq.dev.stack import Stack, check_name, handlers_env, write_new, write_settings
from glassq.dev.watch import Watch
from glassq.errors import GlassqError, SettingsError
from glassq.in_effect import read_record
from glassq.operations.reload import wait_for_outcome
from glassq.settings import load
from glassq.sources.signer import open_signer
from glassq.values import Bind, url_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from glassq.settings import Settings

DEV_BIND = Bind("127.0.0.1:8080")
# How often files are looked at, in seconds.
LOOK_EVERY = 0.25
# How often what was refused is looked at again, in seconds: what it lacked may be there.
REFUSED_EVERY = 3.0
# How long the check of a change may take, in seconds: a handler's modules are loaded in it.
CHECK_TIME = 60.0
# How long the pool may take to replace its children, in seconds.
REPLACE_TIME = 30.0
# By these, curl would ask a proxy for this machine. It reads HTTP_PROXY in small letters only.
PROXIES = ("http_proxy", "all_proxy", "ALL_PROXY")

# The first ping of a new user, and where its token stands: in the header Authorization.
BEARER = "bearer"
OWN_BODY = '{"event": "hello", "from": "me"}'

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


@click.command()
@home_directory("var")
@click.option(
    "--bind",
    metavar="ADDRESS",
    callback=_as_bind,
    help=f"Where intake listens, for new settings: HOST:PORT or unix:/PATH; else {DEV_BIND}.",
)
def dev(directory: Path, bind: Bind | None) -> None:
    """Run the queue's server, the intake and the pool in the foreground, for trying out.

    The settings are DIR/glassq.toml, the handler is in DIR/handlers.py, the queues of tasks are in DIR/queue.yaml; all
    are written when they are not there, and yours to change. beanstalkd and its syncer run here, unless [queue] url
    names a PostgreSQL. glassq-tasks runs once a route or a target takes tasks. A change is in effect some seconds after
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
        why = stack.tend_tasks(settings)
        _say_ready(stack, settings, why)
        try:
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
    """Queues, names and the server of tasks."""
    push: dict[str, object] = {"queue_yaml": "queue.yaml", "names": f"sqlite:///{url_path(directory)}/task-names.db"}
    try:
        return {"push": push, "tasks": {"bind": Bind(f"unix:{directory}/tasks.sock")}}
    except ValueError:
        # too deep for a socket
        return {"push": push}


def _say_ready(stack: Stack, settings: Settings, why_no_tasks: str) -> None:
    where = f"{stack.door.url}/hooks/NAME{stack.door.by_socket}"
    click.echo(f"ready: POST {where}   settings: {shlex.quote(str(stack.config))}   (Ctrl-C stops)")
    _say_tasks(stack, why_no_tasks)
    _say_sources(stack, settings, settings.sources)
    click.echo(f"       {glassq_for(stack.config)} status")


def _say_tasks(stack: Stack, why_not: str) -> None:
    """Where tasks can be added, or why not; nothing where the settings want none."""
    if why_not:
        click.echo(f"tasks: glassq-tasks does not run: {line(why_not)}")
    elif stack.tasks_door is not None:
        click.echo(f"tasks: POST {stack.tasks_door.url}/tasks/QUEUE{stack.tasks_door.by_socket}")


def _say_sources(stack: Stack, settings: Settings, names: Iterable[str]) -> None:
    """Command lines that send a ping of each of these sources, where we can sign one; to be pasted into a shell."""
    tries = []
    for name in names:
        section = settings.sources[name]
        if section.token == BEARER and section.secrets_file and not section.path_token_file:
            tries.append(_curl(stack.door, f"{stack.door.url}/hooks/{name}", section.secrets_file))
        elif _can_sign(settings, name):
            tries.append(f"{glassq_for(stack.config)} ping {name}")
    for number, command in enumerate(tries):
        click.echo(f"{'       ' if number else 'try:   '}{command}")


def _can_sign(settings: Settings, name: str) -> bool:
    """Whether `glassq ping` can send a ping of this source: for some kinds only the sender has the key."""
    try:
        signer, now = open_signer(settings, name), time.time()
        signer.sign(signer.sample("", now), now)
    except GlassqError:
        return False
    return True


def _curl(door: Door, url: str, secrets_file: str) -> str:
    """A command line that sends a ping with a token: anybody's own webhook."""
    straight = ["--noproxy", "*"] if any(os.environ.get(name) for name in PROXIES) else []
    words = ["curl", "-i", *straight, *door.curl, url, "-H", "Content-Type: application/json", "-d", OWN_BODY, "-H"]
    return f'{shlex.join(words)} "Authorization: Bearer $(head -n 1 {shlex.quote(secrets_file)})"'


def glassq_called() -> str:
    """How this program was called, short enough to type."""
    path = Path(sys.argv[0]).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def glassq_for(config: Path) -> str:
    """`glassq` as it was called, for these settings, to be pasted into a shell."""
    try:
        found = App(None, os.environ).file
    except SettingsError:
        found = None
    words = [] if found == str(config) else ["--config", str(config)]
    return shlex.join([glassq_called(), *words])


def stop_as_by_ctrl_c() -> None:
    """A kill, or a terminal that is closed, stops everything too: what was started here must not live on alone."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _watch(stack: Stack, settings: Settings, watch: Watch) -> None:
    """Until Ctrl-C. Raises StackError where one of the processes has ended."""
    reloader = _Reloader(stack, settings)
    while True:
        push = reloader.settings.push
        if push is not None and push.queue_yaml:
            watch.include(Path(push.queue_yaml))
        stack.check()
        reloader.look(watch.changed())
        time.sleep(LOOK_EVERY)


class _Reloader:
    """Brings changes into effect. `settings` are those in effect.

    A change that is refused is looked at again and again: what it lacks (a secret's file, a program) may come without a
    change of what is watched.
    """

    def __init__(self, stack: Stack, settings: Settings) -> None:
        self._stack = stack
        self.settings = settings
        # what has changed and is not in effect, why it is refused, and when to look again
        self._held: list[Path] = []
        self._why: list[str] = []
        self._again = 0.0

    def look(self, changed: list[Path]) -> None:
        """Takes these changes up, with those that were refused before."""
        self._held = list(dict.fromkeys([*self._held, *changed]))
        began = time.monotonic()
        if not changed and (not self._why or began < self._again):
            return
        why, new = self._checked()
        # a check that takes long leaves the machine alone for longer
        ended = time.monotonic()
        self._again = ended + max(REFUSED_EVERY, 5 * (ended - began))
        before, self._why = self._why, why
        if why:
            if changed or why != before:
                _say_refused(self._stack, self._names, why)
        elif self._needs_start(new):
            click.echo(f"{self._names} changed: for another [queue] url or [intake] bind, start glassq dev again")
        else:
            self._take_up(new)

    @property
    def _names(self) -> str:
        return line(", ".join(os.path.relpath(path, self._stack.directory) for path in self._held))

    def _checked(self) -> tuple[list[str], Settings]:
        """Why settings and handlers cannot be used as they are now (empty: they can be), and the settings."""
        why = _refusal(self._stack.config)
        try:
            return why, load(str(self._stack.config), {})
        except SettingsError as error:
            # they may have changed once more
            return why or [str(error)], self.settings

    def _needs_start(self, new: Settings) -> bool:
        return (new.queue.url, new.intake.bind) != (self.settings.queue.url, self.settings.intake.bind)

    def _take_up(self, new: Settings) -> None:
        """Has the programs reload, and says what comes of that."""
        stack, old, names, changed = self._stack, self.settings, self._names, self._held
        click.echo(f"{names} changed: reloading")
        before = stack.tasks_door
        why_no_tasks = stack.tend_tasks(new) if stack.config in changed else ""
        click.echo(f"{names}: {_outcome(stack, _readers(stack, before, changed))}")
        if before is not stack.tasks_door or why_no_tasks:
            _say_tasks(stack, why_no_tasks)
        if stack.config in changed:
            _say_sources(stack, new, [name for name in new.sources if name not in old.sources])
        self.settings, self._held = new, []


def _say_refused(stack: Stack, names: str, why: list[str]) -> None:
    separator = " " if len(why) == 1 else "\n  "
    reasons = (line(each.removeprefix(f"{stack.config}: ")) for each in why)
    head = f"{names} changed but cannot be used; the previous version keeps running:"
    click.echo(separator.join([head, *reasons]))


def _readers(stack: Stack, tasks_before: Door | None, changed: list[Path]) -> list[str]:
    """Which programs are to read what has changed."""
    programs = ["worker", "web"] if stack.config in changed else ["worker"]
    # one that was just started has read all; queue.yaml is its file, too
    if tasks_before is not None and tasks_before is stack.tasks_door and any(path.suffix != ".py" for path in changed):
        programs.append("tasks")
    return programs


def _outcome(stack: Stack, programs: list[str]) -> str:
    """Has these programs reload, and waits for what comes of that."""
    before = {name: read_record(stack.runtime_directory(name)) for name in programs}
    for name in programs:
        stack.reload(name)
    try:
        for name, record in before.items():
            # without one nobody can tell
            if record is not None:
                wait_for_outcome(name, stack.runtime_directory(name), record)
                _wait_for_replacement(stack.runtime_directory(name))
    except SettingsError as error:
        return f"not in effect; the previous version keeps running: {line(str(error))}"
    return "in effect"


def _wait_for_replacement(directory: Path) -> None:
    """Until the old children have left, but not for long: the next ping then meets what is new."""
    deadline = time.monotonic() + REPLACE_TIME
    while (record := read_record(directory)) and not record.replaced and time.monotonic() < deadline:
        time.sleep(0.05)


def _refusal(config: Path) -> list[str]:
    """Why settings and handlers cannot be used as they are now; empty if they can be used."""
    code = "import sys; from glassq.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", code, "--config", str(config), "config", "check"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CHECK_TIME, env=handlers_env()
        )
    except subprocess.TimeoutExpired:
        return [f"its modules are not loaded within {CHECK_TIME:g} s"]
    if not done.returncode:
        return []
    # beside what the handlers' modules print
    said = [each.removeprefix("glassq: ") for each in done.stderr.splitlines() if each.startswith("glassq: ")]
    return said or [f"`glassq config check` ended with exit code {done.returncode}"]
