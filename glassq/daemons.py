"""glassq-web, glassq-worker and glassq-tasks as processes: their command lines, a reload, what `--check` answers.

Each is asked in a process of its own: what a handler's module does while it is imported (print, start threads, change
signal handlers, hang, end the process) does not concern whoever asks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.startcheck import END, Finding

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.settings import Settings

# A program that has not answered after this many seconds hangs. Handlers' modules may take a while to load.
CHECK_TIMEOUT = 20.0


def command(name: str, config: str | Path | None) -> list[str]:
    """The command line of "web", "worker" or "tasks". -P keeps modules of the working directory out."""
    words = [sys.executable, "-P", "-m", f"glassq.programs.{name}"]
    return [*words, "--config", str(config)] if config else words


def request_reload(pid: int) -> None:
    """Has the daemon with this process id read its settings again. Raises OSError."""
    os.kill(pid, signal.SIGHUP)


def check_worker(settings: Settings) -> list[Finding]:
    """What glassq-worker would refuse, or have nothing to do for.

    A handler whose module does not come back from its import is named.
    """
    findings, ended = _check("worker", settings.file)
    # It would start, but whoever checks settings wants them to be whole.
    findings = [Finding("handler", problem=found.name) if found.what == "idle" else found for found in findings]
    return [*findings, _unfinished(settings, findings, ended)] if ended else findings


def check_web(settings: Settings) -> list[Finding]:
    """What glassq-web would refuse, except for its addresses."""
    findings, ended = _check("web", settings.file)
    return [*findings, Finding("start", problem=ended)] if ended else findings


def problems_of(name: str, config: str | None) -> list[str]:
    """Why "web", "worker" or "tasks" would not start. `config` is the settings file; None: it finds that itself."""
    findings, ended = _check(name, config)
    problems = [finding.problem for finding in findings if finding.problem]
    return [*problems, ended] if ended else problems


def _unfinished(settings: Settings, findings: list[Finding], ended: str) -> Finding:
    """What it was looking at when it `ended`: the first handler of which it has not said anything."""
    push = next((finding for finding in findings if finding.what == "push"), None)
    judged = sum(finding.what == "handler" for finding in findings)
    # Without its push queues it looks at functions alone.
    looked_at = [
        (index, route.work)
        for index, route in enumerate(settings.routes)
        if push and not (push.problem and route.needs_push)
    ]
    if judged >= len(looked_at):
        return Finding("start", problem=ended)
    index, handler = looked_at[judged]
    return Finding("handler", handler, f'{settings.place("routes", index, "handler")} = "{handler}": {ended}')


def _check(name: str, config: str | None) -> tuple[list[Finding], str]:
    """What the program says of each thing that it needs, and how it ended where it has not said all."""
    # A file, no pipe: a process that a handler's module has started would keep that open.
    with tempfile.TemporaryFile("w+b") as output:
        process = subprocess.Popen(
            [*command(name, config), "--check", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            start_new_session=True,
        )
        try:
            how = f"ended with exit code {process.wait(CHECK_TIMEOUT)}"
        except subprocess.TimeoutExpired:
            how = f"was not done after {CHECK_TIMEOUT:g} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        findings = [Finding(**json.loads(line)) for line in output if line.endswith(b"\n")]
    if findings[-1:] == [END]:
        return findings[:-1], ""
    return findings, f"glassq-{name} --check {how} before it had looked at all"
