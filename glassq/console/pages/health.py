"""What is wrong with the installation: `glassq doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.request import Page
from glassq.operations.checks.base import document

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest

# So long a page waits for checks that nobody has made yet, in seconds.
PATIENCE = 20.0
_ORDER = {False: 0, None: 1, True: 2}


def health(console: Console, request: PageRequest) -> Answer:
    """The checks, what is wrong first. They are made by the doctor's thread, at most once a minute.

    A person sees those that were made last, while new ones are made; the twin waits for these.
    """
    found = console.doctor.latest(PATIENCE)
    values = {
        "checks": sorted(found.checks, key=lambda check: _ORDER[check.ok]),
        "at": found.at,
        "sums": {level: sum(check.ok is ok for check in found.checks) for level, ok in LEVELS},
        "command": console.command("doctor"),
    }

    def fresh() -> object:
        return document(console.doctor.whole(PATIENCE).checks, console.adapt)

    return Page("health.html", "Health", fresh, values)


LEVELS = (("wrong", False), ("note", None), ("ok", True))
