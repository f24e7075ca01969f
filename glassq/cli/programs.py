"""Asking glassq-worker and glassq-web whether they would start with these settings (their option `--check`).

Each is asked in a process of its own: what a handler's module does while it is imported (print, start threads, change
signal handlers, hang, end the process) is none of this command's business.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.dev.stack import daemon
from glassq.startcheck import END, Finding

if TYPE_CHECKING:
    from glassq.cli.app import App
    from glassq.settings import Settings

# A program that has not answered within this time hangs, in seconds. Modules of handlers may take a while to load.
PATIENT = 20.0


def ask_worker(app: App) -> list[Finding]:
    """What glassq-worker would refuse, or have nothing to do for.

    A handler whose module does not come back from its import is named.
    """
    findings, ended = _ask("worker", app.settings.file)
    # it would start, but whoever checks settings wants them to be whole
    findings = [Finding("handler", problem=each.name) if each.what == "idle" else each for each in findings]
    return [*findings, _unfinished(app.settings, findings, ended)] if ended else findings


def ask_web(app: App) -> list[Finding]:
    """What glassq-web would refuse, except for its addresses."""
    findings, ended = _ask("web", app.settings.file)
    return [*findings, Finding("start", problem=ended)] if ended else findings


def _unfinished(settings: Settings, findings: list[Finding], ended: str) -> Finding:
    """What it was looking at, when it `ended`: the first handler of which it has not said anything."""
    push = next((finding for finding in findings if finding.what == "push"), None)
    judged = sum(finding.what == "handler" for finding in findings)
    # without its push queues it looks at functions alone
    looked_at = [
        (index, route.handler)
        for index, route in enumerate(settings.routes)
        if push and not (push.problem and route.handler.is_url)
    ]
    if judged >= len(looked_at):
        return Finding("start", problem=ended)
    index, handler = looked_at[judged]
    return Finding("handler", handler, f'{settings.file}: [routes.{index}] handler = "{handler}": {ended}')


def problems_of(name: str, config: str | None) -> list[str]:
    """Why the program "web" or "worker" would not start. `config` is the settings file; None: it finds that itself."""
    findings, ended = _ask(name, config)
    problems = [finding.problem for finding in findings if finding.problem]
    return [*problems, ended] if ended else problems


def _ask(name: str, config: str | None) -> tuple[list[Finding], str]:
    """What the program says of each thing that it needs, and how it ended where it has not said all."""
    command = [*daemon(name, config), "--check", "--json"]
    # a file, no pipe: a process that a handler's module has started would keep that open
    with tempfile.TemporaryFile("w+b") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True)
        try:
            how = f"ended with exit code {process.wait(PATIENT)}"
        except subprocess.TimeoutExpired:
            how = f"was not done after {PATIENT:g} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        findings = [Finding(**json.loads(line)) for line in output if line.endswith(b"\n")]
    if findings[-1:] == [END]:
        return findings[:-1], ""
    return findings, f"glassq-{name} --check {how} before it had looked at all"
