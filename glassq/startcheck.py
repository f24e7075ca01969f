"""What a program answers to `--check`: would it start with these settings?

Each program checks itself, with the same code that it starts with. `glassq config check`, `glassq doctor` and systemd
ask it, so they cannot accept settings that the program then rejects.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

from glassq import __version__
from glassq.errors import EX_CONFIG, SettingsError
from glassq.log import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the program needs at its start. `problem` says why it would not start; "" where it would.

    `what` is its kind ("settings", "push", "handler", "ledger", "sources", "spool"); `name` says which of several.
    "idle" is no refusal: the program starts and has nothing to do, for the reason in `name`.
    """

    what: str
    name: str = ""
    problem: str = ""


# A module that ends the process while it is imported must not pass for one that is right.
END = Finding("end")


def found(what: str, step: Callable[[], object], name: str = "") -> Finding:
    """What a step of the start comes to, of which only SettingsError stops a program."""
    try:
        step()
    except SettingsError as error:
        return Finding(what, name, str(error))
    return Finding(what, name)


def arguments(program: str, about: str, check: Callable[[str | None], Iterable[Finding]]) -> argparse.Namespace:
    """The command line of a daemon; with --check it answers what `check` finds in these settings, and ends."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--config", metavar="FILE", help="the settings file")
    parser.add_argument("--check", action="store_true", help="only say whether it would start: exit 0, or 78 and why")
    parser.add_argument("--json", action="store_true", help="with --check: a line of JSON for each thing looked at")
    parser.add_argument("--version", action="version", version=f"glassq {__version__}")
    given = parser.parse_args()
    if given.check:
        answer(program, check(given.config), as_json=given.json)
    return given


def answer(program: str, findings: Iterable[Finding], *, as_json: bool) -> NoReturn:
    """Says what was found and ends the process: with 0, or with 78 where there is a problem.

    A problem is a line on standard error; with `as_json` each finding is a line of JSON on standard output, written as
    soon as it is known, and END is the last one. What handlers print while they are imported goes to standard error.
    """
    sys.stdout.flush()
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    code = 0
    for finding in chain(findings, [END]):
        if finding.problem:
            code = EX_CONFIG
        if as_json:
            output.write(json.dumps(asdict(finding)) + "\n")
        elif finding.problem:
            # queue.yaml may have several mistakes, a line each
            lines = (f"{program}: {escape(line)}\n" for line in finding.problem.splitlines())
            sys.stderr.write("".join(lines))
        output.flush()
    if not as_json and not code:
        output.write(f"{program}: would start with these settings\n")
    for stream in (output, sys.stdout, sys.stderr):
        stream.flush()
    # not sys.exit: a thread that a handler's module has started would keep the process
    os._exit(code)
