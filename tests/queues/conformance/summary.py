"""The last lines of a run of the conformance suite: what ran on which engine, and which engines were not tried."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

HERE = "tests/queues/conformance"
# A test's property of this name is a line of the summary.
SAYS = "conformance"


def write_conformance(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes them where the suite was run, or asked for."""
    # tests/conftest.py calls this, and the engines use what else is in there
    from tests.queues.conformance.engines import ENGINES, not_tried

    # All is in the reports, which xdist brings to the process that prints.
    reports = [
        (outcome, report)
        for outcome, found in terminalreporter.stats.items()
        for report in found
        if getattr(report, "nodeid", "").startswith(HERE) and hasattr(report, "duration")
    ]
    if not reports and not any(HERE in str(argument) for argument in terminalreporter.config.args):
        return
    terminalreporter.section("conformance of the queue's engines")
    for name in ENGINES:
        for line in _lines(name, [each for each in reports if f"[{name}" in each[1].nodeid]):
            terminalreporter.line(line)
    for name, why in not_tried().items():
        terminalreporter.line(f"not tried: {name} ({why})")


def _lines(name: str, reports: list[tuple[str, pytest.TestReport]]) -> Iterator[str]:
    if not reports:
        return
    # setups and teardowns that went well are without an outcome
    outcomes = Counter(outcome for outcome, _ in reports if outcome)
    said = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    yield f"{name}: {said} in {sum(report.duration for _, report in reports):.0f} s"
    for _, report in reports:
        if report.when == "call":
            yield from (f"  {value}" for key, value in report.user_properties if key == SAYS)
