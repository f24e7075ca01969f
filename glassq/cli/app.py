"""What every command starts from: the settings, and what they lead to, opened when it is needed."""

from __future__ import annotations

import os
import pwd
import shlex
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

from glassq import settings as configuration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.ledger.reader import LedgerReader
    from glassq.queues import Queue
    from glassq.settings import Settings


@dataclass
class App:
    """`config` is what --config named; `environ` the process's environment."""

    config: str | None
    environ: Mapping[str, str]

    @cached_property
    def settings(self) -> Settings:
        """Raises SettingsError."""
        return configuration.load(self.config, self.environ)

    def command(self, words: str) -> str:
        """`glassq WORDS` as it is typed for these settings, for hints that name a command."""
        config = f" --config {shlex.quote(self.config)}" if self.config else ""
        return f"`glassq{config} {words}`"

    def operator(self) -> str:
        """Who types this."""
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"user {os.getuid()}"
        behind = self.environ.get("SUDO_USER")
        return f"{behind} (as {user})" if behind and behind != user else user

    def queue(self) -> closing[Queue]:
        """`with app.queue() as queue:`; it connects at its first command."""
        from glassq.queues import open_queue

        return closing(open_queue(self.settings.queue))

    def ledger(self) -> LedgerReader:
        """`with app.ledger() as ledger:`. Raises SettingsError where it is there and cannot be read."""
        from glassq.ledger.reader import LedgerReader

        return LedgerReader(self.settings.ledger)


pass_app = click.make_pass_decorator(App)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document (durations in seconds).")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
yes = click.option("--yes", is_flag=True, help="Don't ask.")


def examples(*told: tuple[str, str]) -> str:
    """What stands below a command's options: command lines that can be copied, each below its words."""
    # click keeps the lines as they are after a line of \b
    return "\b\nExamples:" + "".join(f"\n  # {words}\n  {command}" for words, command in told)
