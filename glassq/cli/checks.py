"""Prints what checks came to, as they come: a line each, or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.cli.output import console, line, print_folded, print_json
from glassq.operations.checks.base import document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from glassq.cli.app import App
    from glassq.cli.progress import Spinner
    from glassq.operations.checks.base import Check

_MARKS = {True: ("ok", ""), False: ("WRONG", "bold red"), None: ("note", "yellow")}
# As wide as the longest name of a check.
_NAME = 12


def tell(app: App, checks: Iterable[Check], shown: Spinner, as_json: bool) -> int:
    """Prints the checks, and how many are wrong; returns the exit code. `shown` is what turns while they are made."""
    seen = []
    out = console()
    try:
        for check in checks:
            shown.stop()
            seen.append(check)
            if not as_json:
                _print(app, out, check)
    finally:
        shown.stop()
    wrong = [check for check in seen if check.ok is False]
    if as_json:
        print_json(document(seen, app.adapt))
    else:
        out.print({0: "nothing is wrong", 1: "one thing is wrong"}.get(len(wrong), f"{len(wrong)} things are wrong"))
    return max((check.code for check in wrong), default=0)


def _print(app: App, out: Console, check: Check) -> None:
    mark, style = _MARKS[check.ok]
    head = f"{mark:<5}  {check.name:<{_NAME}}  "
    print_folded(out, f"{head}{line(app.adapt(str(check)))}", len(head), style)
