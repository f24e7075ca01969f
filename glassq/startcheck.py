"""The option `--check` of a program: would it start with these settings?

Each program checks itself, with the code of its own start. `glassq config check`, `glassq doctor` and a reload call it,
so they cannot accept settings that the program then rejects.
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
    """One thing that the program needs to start. `problem` says why it would not start; "" if it would.

    `what` is its kind ("settings", "push", "handler", "queue", "ledger", "sources", "journal"); `name` tells several
    apart. "idle" is not a problem: the program starts and has nothing to do, for the reason in `name`.
    """

    what: str
    name: str = ""
    problem: str = ""


# Marks the end, so that a module that ends the process during its import does not pass for a correct one.
END = Finding("end")


def found(what: str, step: Callable[[], object], name: str = "") -> Finding:
    """Runs a step of the start; a SettingsError becomes the finding's problem."""
    try:
        step()
    except SettingsError as error:
        return Finding(what, name, str(error))
    return Finding(what, name)


def arguments(program: str, about: str, check: Callable[[str | None], Iterable[Finding]]) -> argparse.Namespace:
    """Parses a daemon's command line; with --check, prints the findings of `check` and ends the process."""
    given = parser_of(program, about).parse_args()
    if given.check:
        answer(program, check(given.config), as_json=given.json)
    return given


def parser_of(program: str, about: str) -> argparse.ArgumentParser:
    """The options that every daemon has."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--config", metavar="FILE", help="the settings file")
    parser.add_argument(
        "--check", action="store_true", help="only check whether it would start: exit 0, or 78 with the reason"
    )
    parser.add_argument("--json", action="store_true", help="with --check: one line of JSON per finding")
    parser.add_argument("--version", action="version", version=f"glassq {__version__}")
    return parser


def answer(program: str, findings: Iterable[Finding], *, as_json: bool) -> NoReturn:
    """Prints the findings and ends the process: with 0, or with 78 if there is a problem.

    A problem is a line on standard error. With `as_json` each finding is a line of JSON on standard output, written at
    once, and END is the last one. Output of handlers during their import goes to standard error.
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
            # queue.yaml may have several mistakes, one per line
            lines = (f"{program}: {escape(line)}\n" for line in finding.problem.splitlines())
            sys.stderr.write("".join(lines))
        output.flush()
    if not as_json and not code:
        output.write(f"{program}: would start with these settings\n")
    for stream in (output, sys.stdout, sys.stderr):
        stream.flush()
    # not sys.exit: a thread of a handler's module would keep the process alive
    os._exit(code)
