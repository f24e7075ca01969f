"""What every command starts from: the settings, and what they lead to, opened when it is needed."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from glassq import settings as configuration
from glassq.cli.nearby import settings_nearby
from glassq.errors import InvalidRequest, SettingsError
from glassq.operations import Operations, hints
from glassq.values import QueueUrl

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from glassq.cli.acting import Acting
    from glassq.cli.progress import Terminal
    from glassq.settings import Settings


@dataclass
class App:
    """`config` is what --config named; `environ` the process's environment.

    `uses` are the sections of the settings that the command needs to be right; None: all. `queues` are the settings
    with another queue, by the option that named it. `words` are the whole command, as a shell takes it.
    """

    config: str | None
    environ: Mapping[str, str]
    uses: Collection[str] | None = None
    queues: dict[str, Settings] = field(default_factory=dict)
    words: str = "glassq"

    @cached_property
    def file(self) -> str | None:
        """The settings file: what --config names, else that of `glassq dev` where no other is named or installed.

        None for what `glassq.settings.load` finds itself. Raises SettingsError where there is none at all.
        """
        if self.config or self.environ.get("GLASSQ_CONFIG") or not _is_missing(configuration.DEFAULT_FILE):
            return self.config
        nearby = settings_nearby(_here())
        if nearby.file is None:
            looked = ", ".join([str(configuration.DEFAULT_FILE), *nearby.looked])
            todo = "name a file with --config or GLASSQ_CONFIG, or begin with `glassq dev`"
            raise SettingsError(f"no settings file: looked at {looked}; {todo}")
        return str(nearby.file)

    @cached_property
    def settings(self) -> Settings:
        """Raises SettingsError."""
        if self.file and self.file != self.config and Path(self.file).parent.parent != _here() and sys.stderr.isatty():
            # those of a directory above: not the first that one thinks of
            click.echo(f"glassq: settings: {self.file}", err=True)
        return configuration.load(self.file, self.environ, self.uses)

    def with_queue(self, option: str, url: str) -> Settings:
        """The settings as if [queue] url were what `option` named. Raises InvalidRequest and SettingsError."""
        try:
            QueueUrl(url)
        except ValueError as error:
            raise InvalidRequest(f"{option}: {error}") from None
        self.queues[option] = configuration.load(self.file, self.environ, self.uses, queue_url=url)
        return self.queues[option]

    def queue_of(self, error: Exception) -> tuple[str, Settings]:
        """The queue that an error is about, as its words name one: the key or option that has its URL, the settings."""
        for option, settings in self.queues.items():
            url = urlsplit(str(settings.queue.url))
            if (url.netloc or url.path) in str(error):
                return option, settings
        return "[queue] url", self.settings

    @property
    def settings_file(self) -> Path | None:
        """Where the settings are, right or wrong; None where there is no such place."""
        try:
            return configuration.file_of(self.file, self.environ)
        except SettingsError:
            return None

    def command(self, words: str) -> str:
        """`glassq WORDS` as it is typed for these settings, for hints that name a command."""
        return hints.command(words, self.config)

    def adapt(self, text: str) -> str:
        """The text with each command of ours in it as it is typed for these settings."""
        return hints.adapt(text, self.config)

    def adapt_hints(self, document: dict[str, Any]) -> dict[str, Any]:
        """The JSON document with its hints adapted."""
        return hints.adapt_hints(document, self.adapt)

    @cached_property
    def operations(self) -> Operations:
        """What operators do on the installation of these settings. Raises SettingsError."""
        return Operations(self.settings, actor=self.operator())

    def progress(self, *, stoppable: bool = False) -> Terminal:
        """How the operator follows an operation: `with app.progress() as progress:`; see Terminal."""
        from glassq.cli.progress import Terminal

        return Terminal(self.adapt, stoppable=stoppable)

    def acting(self, did: str, *, chosen: int, filter_: str = "", command: str = "") -> Acting:
        """The same of an operation that changes so many deliveries, and is recorded: see Acting.

        `command` is recorded in place of the command as it was typed.
        """
        from glassq.cli.acting import Acting

        command = command or self.words
        return Acting(self.operations, self.adapt, did, chosen=chosen, filter_=filter_, command=command)

    def has_done(
        self, did: str, *, done: int = 1, filter_: str = "", failed: str = "", note: str = "", warn: bool = True
    ) -> None:
        """Records what a command has done at once, with so many things (0: nothing, which is not recorded).

        `failed` says why it could not be done after all, `note` what else came of it. Raises SettingsError.
        """
        from glassq.operations.activity import CameTo
        from glassq.operations.progress import Silent

        if done:
            log = self.operations.activities(self.progress() if warn else Silent())
            came_to = CameTo("failed", done=0, failed=done, note=failed) if failed else CameTo(done=done, note=note)
            log.record(did, came_to, command=self.words, filter_=filter_, chosen=done)

    def operator(self) -> str:
        """The operator's user name."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"user {os.getuid()}"
        behind = self.environ.get("SUDO_USER")
        return f"{behind} (as {user})" if behind and behind != user else user


def _here() -> Path:
    """The working directory; / where that was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def _is_missing(file: Path) -> bool:
    """Whether it is surely not there: one that cannot be looked at is no reason to take another."""
    try:
        file.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


pass_app = click.make_pass_decorator(App)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document (durations in seconds).")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
yes = click.option("--yes", is_flag=True, help="Don't ask.")


def as_directory(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """A callback for an option that names a directory, which may be missing. click itself takes devices for one."""
    # what cannot be looked at is told by whoever uses it
    with suppress(OSError):
        if path is not None and path.exists() and not path.is_dir():
            raise click.BadParameter(f"{str(path)!r} is not a directory")
    return path


def examples(*told: tuple[str, str]) -> str:
    """What stands below a command's options: command lines that can be copied, each below its words."""
    # click keeps the lines as they are after a line of \b
    return "\b\nExamples:" + "".join(f"\n  # {words}\n  {command}" for words, command in told)
