"""`glassq`: finds the command, and turns whatever goes wrong into one line and an exit code.

| exit | what happened                                                               |
|------|-----------------------------------------------------------------------------|
| 0    | done                                                                        |
| 1    | failed, or some of what was asked could not be done                         |
| 2    | the command line is wrong                                                   |
| 69   | the queue cannot be reached                                                 |
| 74   | the command's output cannot be written, or the ledger not read or written   |
| 75   | not now: the queue or the API refuses; the same command may work later      |
| 78   | the configuration is wrong                                                  |
| 130  | Ctrl-C                                                                      |
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from glassq import __version__, errors, log
from glassq.cli.app import App
from glassq.values import is_postgres

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Where each command lives. A command's module is imported when it is called, not before: `glassq status` need not
# wait for Google's libraries.
COMMANDS = {
    "status": (
        "glassq.cli.commands.status:status",
        "What waits, what is worked, what lies buried; is it safe on disk?",
    ),
    "top": ("glassq.cli.commands.top:top", "A live overview: backlog, pace, failures; every two seconds."),
    "doctor": ("glassq.cli.commands.doctor:doctor", "What is wrong with this installation, and what to do about it."),
    "queues": (
        "glassq.cli.commands.queues:queues",
        "Queues: their shares and rates, how many wait; pause, resume and purge them.",
    ),
    "buried": (
        "glassq.cli.commands.buried:buried",
        "Deliveries that wait for a decision (dead letters), or their causes.",
    ),
    "show": ("glassq.cli.commands.show:show", "One delivery's whole story."),
    "kick": ("glassq.cli.commands.kick:kick", "Have buried deliveries worked again: retry, redrive."),
    "delete": ("glassq.cli.commands.delete:delete", "Remove deliveries for good."),
    "forget": (
        "glassq.cli.commands.forget:forget",
        "Remove everything about the deliveries with some labels (erasure).",
    ),
    "bury": ("glassq.cli.commands.bury:bury", "Put ready or delayed deliveries aside."),
    "move": ("glassq.cli.commands.move:move", "Put deliveries into another tube, as they are."),
    "pause": ("glassq.cli.commands.pause:pause", "Stop the work for a while; pings are still accepted."),
    "resume": ("glassq.cli.commands.pause:resume", "Let paused tubes go on."),
    "schedules": (
        "glassq.cli.commands.schedules:schedules",
        "Periodic work (cron): next time, last outcome; run one now.",
    ),
    "sources": ("glassq.cli.commands.sources:sources", "Who may send pings, how that goes, and why one is refused."),
    "ping": ("glassq.cli.commands.ping:ping", "Send a signed sample, as a source's sender would."),
    "console": ("glassq.cli.commands.console:console", "The web console: what is wrong, and what mends it."),
    "routes": ("glassq.cli.commands.routes:routes", "Which handler gets what; where a saved ping would go."),
    "put": ("glassq.cli.commands.put:put", "Put a file, or standard input, as a delivery."),
    "activity": ("glassq.cli.commands.activity:activity", "Who did what: operators, and the pool's starts."),
    "tail": ("glassq.cli.commands.tail:tail", "Outcomes of deliveries, as they happen."),
    "archive": ("glassq.cli.commands.archive:archive", "Take buried deliveries out of the queue, into a file."),
    "restore": ("glassq.cli.commands.restore:restore", "Put archived deliveries back, buried as they were."),
    "replay": ("glassq.cli.commands.replay:replay", "Put deliveries again that are done or dropped."),
    "journal": (
        "glassq.cli.commands.journal:journal",
        "The intake journal: what intake keeps on disk while the queue cannot take it.",
    ),
    "bodies": ("glassq.cli.commands.bodies:bodies", "Large bodies: what is stored, and sweeping what nobody needs."),
    "users": ("glassq.cli.commands.users:users", "Users who have given consent."),
    "subscribe": ("glassq.cli.commands.users:subscribe", "Ask Google to send pings for a user."),
    "queue": (
        "glassq.cli.commands.queue:queue",
        "What the queue's server needs, such as tables: make, upgrade, check.",
    ),
    "config": ("glassq.cli.commands.config:config", "The settings: are they right?"),
    "completion": ("glassq.cli.completion:completion", "What lets bash, zsh or fish complete commands and ids."),
    "dev": ("glassq.cli.commands.dev:dev", "Everything on this machine, in the foreground, for trying out."),
    "demo": ("glassq.cli.commands.demo:demo", "Simulated Glass users share photos; watch glassq store them."),
}

# In which order and under which headings `glassq --help` and glassq(1) list them.
SECTIONS = {
    "Look": (
        "status",
        "top",
        "doctor",
        "buried",
        "show",
        "tail",
        "activity",
        "console",
        "sources",
        "routes",
        "queues",
        "schedules",
        "journal",
        "bodies",
    ),
    "Decide on what failed": ("kick", "delete", "archive", "restore", "replay", "forget"),
    "Steer": ("pause", "resume", "put", "bury", "move"),
    "Set up": ("config", "queue", "users", "subscribe", "completion"),
    "Try out": ("ping", "dev", "demo"),
}

# What other systems call our commands. These work too, but are not listed.
SYNONYMS = {
    "retry": "kick",
    "requeue": "kick",
    "redrive": "kick",
    "list": "buried",
    "dead": "buried",
    "dlq": "buried",
    "failed": "buried",
    "logs": "tail",
    "audit": "activity",
    # its name up to the last release
    "spool": "journal",
}
# Words that may mean something else: they are not obeyed, but answered with the command that may be meant.
SUGGESTED = {
    "remove": "delete",
    "rm": "delete",
    "purge": "delete",
    "discard": "delete",
    "erase": "forget",
    "gdpr": "forget",
    "inspect": "show",
    "info": "show",
    "stats": "status",
    "stop": "pause",
    "start": "resume",
    "check": "doctor",
    "enqueue": "put",
    "trigger": "ping",
    "send": "ping",
    "webhooks": "sources",
    "hooks": "sources",
    "listen": "dev",
}

EX_IOERR = 74

# The first that fits decides. What to do next is in the exception's own words, or added here.
EXITS: list[tuple[type[Exception], int, str]] = [
    (errors.SettingsError, 78, ""),
    (errors.UserUnknown, 1, ""),
    (errors.UserRevoked, 1, ""),
    (errors.CredentialsError, 78, ""),
    (errors.LedgerError, EX_IOERR, ""),
    (errors.NoProof, 69, "; without its proof nothing is done: do glassq-syncer and beanstalkd work? ({doctor})"),
    (errors.QueueUnavailable, 69, "; is it running, and is [queue] url right? {doctor} looks, and says what to do"),
    (errors.WrongTables, 78, ""),
    (errors.QueueRefused, 75, "; try again when that is mended"),
    (errors.Retry, 75, "; try again later"),
    (errors.InvalidRequest, 2, ""),
    (errors.Ambiguous, 2, ""),
    (errors.NotFound, 1, ""),
    (errors.Conflict, 1, ""),
    (errors.Unsupported, 1, ""),
    (errors.Stopped, 130, ""),
    (errors.GlassqError, 1, ""),
]


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (place, _) in COMMANDS.items() if importlib.util.find_spec(place.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Takes the words that people know from elsewhere too. Raises InvalidRequest for a word that is no command."""
        name = args[0]
        if (ours := SYNONYMS.get(name)) and not ctx.resilient_parsing:
            click.echo(f"glassq: {name} is `glassq {ours}` here", err=True)
            args = [ours, *args[1:]]
        elif self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            raise errors.InvalidRequest(f"there is no command {name}; {_nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        there = set(self.list_commands(ctx))
        widest = max(map(len, there))
        for title, names in SECTIONS.items():
            rows = [(name.ljust(widest), COMMANDS[name][1]) for name in names if name in there]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = (name for name in self.list_commands(ctx) if name.startswith(incomplete))
        # click's own way imports every command for its words
        found = [CompletionItem(name, help=COMMANDS[name][1]) for name in names]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def _nearest(name: str, commands: list[str]) -> str:
    """Which command may be meant, in words."""
    near = difflib.get_close_matches(name.lower(), [*commands, *SYNONYMS], n=1)
    meant = SUGGESTED.get(name.lower()) or (SYNONYMS.get(near[0], near[0]) if near else "")
    return f"did you mean `glassq {meant}`?" if meant in commands else "`glassq --help` lists them"


def _synonyms() -> str:
    """The words that people know from elsewhere, in words."""
    known: dict[str, list[str]] = {}
    for word, ours in SYNONYMS.items():
        known.setdefault(ours, []).append(word)
    return "; ".join(f"{', '.join(words)} for {ours}" for ours, words in known.items())


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`glassq COMMAND --help` and `man glassq-COMMAND` tell all of one. The words of other systems work as well: "
    f"{_synonyms()}.",
)
@click.option(
    "--config",
    metavar="FILE",
    # for completion alone: what is wrong with the file is told by whoever reads it
    type=click.Path(readable=False),
    help="The settings file (else GLASSQ_CONFIG, /etc/glassq/glassq.toml, or that of `glassq dev` in var/).",
)
@click.version_option(__version__, message="glassq %(version)s")
@click.pass_context
def cli(context: click.Context, config: str | None) -> None:
    """Takes webhook pings, keeps them, and works them later."""
    context.obj.config = config


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    log.setup("warning")
    # a closed standard output or error (`>&-`) is one that nobody reads
    sys.stdout, sys.stderr = sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        # a terminal or pipe that cannot show a character is no reason to fail
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # `glassq buried | head`: nobody reads on, and the interpreter must not try to flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr.write(f"glassq: cannot write: {error.strerror}\n")
        return EX_IOERR
    return code


def _run(arguments: list[str] | None) -> int:
    app = App(None, os.environ, words=shlex.join(["glassq", *(sys.argv[1:] if arguments is None else arguments)]))
    try:
        result: Any = cli.main(arguments, prog_name="glassq", standalone_mode=False, obj=app)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except errors.GlassqError as error:
        return _failed(app, error)
    return result if isinstance(result, int) else 0


def _show(error: click.ClickException) -> None:
    """Says what is wrong with the command line as every other error is said, and which command's help to read."""
    # older releases of click print the help themselves
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" (see `{context.command_path} --help`)" if context else ""
    click.echo(f"glassq: {log.escape(error.format_message().removesuffix('.'))}{hint}", err=True)


def _failed(app: App, error: errors.GlassqError) -> int:
    """Says what went wrong, and what to do next; returns the exit code."""
    code, hint = next((code, hint) for kind, code, hint in EXITS if isinstance(error, kind))
    if isinstance(error, errors.Stopped):
        # the operator knows, and what was done has been told
        return code
    hint = _advice(app, error, hint.format(check=app.command("config check"), doctor=app.command("doctor")))
    click.echo(f"glassq: {log.escape(app.adapt(str(error)))}{hint}", err=True)
    for candidate in error.candidates if isinstance(error, errors.Ambiguous) else ():
        click.echo(f"  {log.escape(candidate)}", err=True)
    return code


def _advice(app: App, error: errors.GlassqError, otherwise: str) -> str:
    """What the queue's engine knows to do about it, or `otherwise`, for the queue that the error is about."""
    cause: BaseException | None = error
    # bodies and credentials may be in the queue's database
    while cause is not None and not isinstance(cause, errors.QueueError):
        cause = cause.__cause__
    if cause is None and isinstance(error, errors.LedgerError) and is_postgres(app.settings.ledger.url):
        cause = errors.QueueError(str(error))
    # the words of the one name the command already
    if cause is None or isinstance(cause, errors.WrongTables):
        return otherwise
    # what few calls need
    from glassq import queues

    place, settings = app.queue_of(cause)
    todo = queues.advice(settings, cause)
    return (f"; {app.adapt(todo)}" if todo else otherwise).replace("[queue] url", place)
