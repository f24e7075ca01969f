"""The line of a whole run that says where its seconds went: those of each package, and of each engine beside them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

#: an engine that not everybody has; a test is its own where its id has this word
ENGINES = ("postgres",)


def write_seconds(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes it. Several processes run tests at once: the sum is more than the run took."""
    seconds: Counter[str] = Counter()
    # setups and teardowns that went well are without an outcome
    for found in terminalreporter.stats.values():
        for report in found:
            # warnings and tests that another expression has left out have none
            seconds[owner(getattr(report, "nodeid", ""))] += getattr(report, "duration", 0)
    told = ", ".join(f"{name} {took:.0f}" for name, took in seconds.most_common() if took >= 1)
    terminalreporter.write_line(f"seconds of the tests: {sum(seconds.values()):.0f} ({told})")


def owner(nodeid: str) -> str:
    """The engine, or the package of tests/, that a test belongs to."""
    for engine in ENGINES:
        if engine in nodeid:
            return engine
    _, _, place = nodeid.partition("/")
    return place.partition("/")[0] if "/" in place else "tests"
