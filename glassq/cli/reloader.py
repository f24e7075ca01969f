"""How `glassq dev` takes up what its user changes, or says why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from glassq.cli.output import line
from glassq.cli.trial import say_sources, say_tasks
from glassq.dev.stack import handlers_env
from glassq.errors import SettingsError
from glassq.in_effect import read_record
from glassq.operations.reload import wait_for_outcome
from glassq.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.dev.door import Door
    from glassq.dev.stack import Stack
    from glassq.settings import Settings

# How often what was refused is looked at again, in seconds: what it lacked may be there.
REFUSED_EVERY = 3.0
# How long the check of a change may take, in seconds: a handler's modules are loaded in it.
CHECK_TIME = 60.0
# How long the pool may take to replace its children, in seconds.
REPLACE_TIME = 30.0


class Reloader:
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
            what = "[queue] url, [intake] bind or [metrics] intake"
            click.echo(f"{self._names} changed: for another {what}, start glassq dev again")
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
        return _fixed(new) != _fixed(self.settings)

    def _take_up(self, new: Settings) -> None:
        """Has the programs reload, and says what comes of that."""
        stack, old, names, changed = self._stack, self.settings, self._names, self._held
        click.echo(f"{names} changed: reloading")
        before = stack.tasks_door
        why_no_tasks = stack.tend_tasks(new) if stack.config in changed else ""
        click.echo(f"{names}: {_outcome(stack, _readers(stack, before, changed))}")
        if before is not stack.tasks_door or why_no_tasks:
            say_tasks(stack, why_no_tasks)
        if stack.config in changed:
            say_sources(stack, new, [name for name in new.sources if name not in old.sources])
        self.settings, self._held = new, []


def _fixed(settings: Settings) -> tuple[object, ...]:
    """What no reload can change here: the queue, and where glassq-web listens."""
    return settings.queue.url, settings.intake.bind, settings.metrics.intake


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
    if stack.console_door is not None and stack.config in changed:
        programs.append("console")
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
