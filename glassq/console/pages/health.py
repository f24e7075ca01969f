"""What is wrong with the installation: `glassq doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.request import Page
from glassq.operations.checks.base import document
from glassq.operations.checks.examine import examine
from glassq.operations.progress import Silent

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest


def health(console: Console, request: PageRequest) -> Answer:
    """The checks, what is wrong first."""
    checks = list(examine(console.operations_for(request.actor), Silent()))
    order = {False: 0, None: 1, True: 2}
    shown = sorted(checks, key=lambda check: order[check.ok])
    return Page("health.html", "Health", document(checks, console.adapt), {"checks": shown})
