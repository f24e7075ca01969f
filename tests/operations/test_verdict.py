"""The verdict: the most urgent of what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glassq.causes import Cause
from glassq.operations.census_view import CensusView
from glassq.operations.checks.base import Check
from glassq.operations.doctor import Examination
from glassq.operations.groups import Grouping
from glassq.operations.hints import Hint
from glassq.operations.sampler import Samples
from glassq.operations.status import QueueStatus, SystemStatus
from glassq.operations.verdict import verdict
from glassq.queues.base import EngineStatus, TubeCounts

NOW = datetime(2026, 11, 29, 3, 30, tzinfo=UTC)
WELL = Examination((Check("queue", True, "fine"), Check("disks", None, "one note")), NOW)


class Blamed:
    def __init__(self, message: str) -> None:
        self.source, self.handler = "mirror", "app:store"
        self.cause = Cause("mirror", "HttpError", message, "app.py:store")


def census(*groups: tuple[str, int, timedelta]) -> CensusView:
    """Groups, by message, of so many that began so long ago."""
    grouping = Grouping("reason", NOW, NOW - timedelta(hours=1))
    for message, count, ago in groups:
        for _ in range(count):
            grouping.tally(Blamed(message), "x").add((NOW - ago).timestamp())
    counts = {"glassq": sum(count for _, count, _ in groups)}
    return CensusView(groups=tuple(grouping.groups()), counts=counts, new_since=NOW, looked_at=NOW, complete=True)


def status(*hints: Hint, **changes: Any) -> SystemStatus:
    engine = EngineStatus("beanstalkd", "1.13", 1, True, True, 1, 65_535)
    queue = QueueStatus("beanstalk://", engine, (TubeCounts("glassq"),), (), None, "")
    return SystemStatus(replace(queue, **changes), None, "empty", None, NOW, "", None, hints)


CALM = Samples(at=NOW, status=status())
OLD, YOUNG = timedelta(hours=5), timedelta(minutes=28)


def test_nothing_is_said_before_anybody_has_looked() -> None:
    assert verdict(CensusView(), Samples(), Examination(), NOW) is None
    assert verdict(CensusView(), CALM, Examination(), NOW) is None


def test_nothing_is_wrong() -> None:
    found = verdict(census(), CALM, WELL, NOW)
    assert found is not None
    assert (found.level, found.words, found.url, found.cause) == ("ok", "nothing is wrong", "", "")


@pytest.mark.parametrize(
    ("view", "samples", "examined", "level", "words", "url"),
    [
        # what is most urgent comes first, whatever else there is
        (
            census(("503", 9, YOUNG)),
            Samples(at=NOW, trouble="cannot be reached", status=status(Hint("a hint"), refuses="full")),
            Examination((Check("disks", False, "full", "make room"),), NOW),
            "wrong",
            "the queue cannot be looked at: cannot be reached",
            "/health",
        ),
        (
            census(("503", 9, YOUNG)),
            replace(CALM, status=status(Hint("a hint"), refuses="it is full")),
            Examination((Check("x", True, "y"), Check("disks", False, "full", "make room")), NOW),
            "wrong",
            "disks: full: make room",
            "/health",
        ),
        (census(("503", 9, YOUNG)), replace(CALM, status=status(refuses="full")), WELL, "wrong", "no jobs: full", ""),
        (census(), replace(CALM, status=status(files_missing="gone: /a")), WELL, "wrong", "gone: /a", "/health"),
        (
            census(("no item", 11, OLD), ("503 from a", 298, YOUNG), ("404", 3, YOUNG)),
            replace(
                CALM, status=status(Hint("312 are buried", "buried --by reason", "buried"), Hint("tube x is paused"))
            ),
            WELL,
            "note",
            "298 of 312 buried are one error, new since 03:02 UTC: HttpError: 503 from a in app.py:store from mirror",
            "/buried/",
        ),
        (
            census(("503", 1, YOUNG)),
            CALM,
            WELL,
            "note",
            "1 buried delivery is new since 03:02 UTC: HttpError: 503 in app.py:store from mirror",
            "/buried/",
        ),
        (
            census(("503", 2, OLD), ("404", 1, OLD)),
            CALM,
            WELL,
            "note",
            "3 deliveries buried in 2 groups, none of them new, the last at 22:30 UTC",
            "/buried",
        ),
        (
            census(("503", 1, timedelta(days=9))),
            CALM,
            WELL,
            "note",
            "1 delivery buried of one error, not new: HttpError: 503 in app.py:store from mirror",
            "/buried/",
        ),
        (CensusView(counts={"glassq": 2}), CALM, WELL, "note", "2 deliveries buried", "/buried"),
        (census(), replace(CALM, status=status(Hint("tube x is paused"))), WELL, "note", "tube x is paused", "/"),
        (CensusView(trouble="no"), CALM, WELL, "note", "what lies buried cannot be looked at: no", "/buried"),
    ],
)
def test_the_most_urgent_is_said(
    view: CensusView, samples: Samples, examined: Examination, level: str, words: str, url: str
) -> None:
    found = verdict(view, samples, examined, NOW)
    assert found is not None
    assert found.level == level
    assert found.words == words or found.words.endswith(words)
    assert found.url.startswith(url)
    assert bool(found.cause) == ("/buried/" in found.url)


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (0, "nothing is wrong"),
        (40, "nothing is wrong"),
        (
            75,
            "nothing was wrong, but nobody has looked at the queue since: as of 03:30:00 UTC, 1m 15s ago",
        ),
    ],
)
def test_that_nothing_is_wrong_is_said_of_now_alone(age: int, said: str) -> None:
    found = verdict(census(), CALM, WELL, NOW + timedelta(seconds=age))
    assert found is not None
    assert (found.level, found.words) == ("ok" if age < 45 else "note", said)


def test_a_verdict_of_old_samples_says_how_old_they_are() -> None:
    later = NOW + timedelta(minutes=3)
    found = verdict(census(("503", 9, YOUNG)), replace(CALM, at=later), replace(WELL, at=later), later)
    assert found is not None
    assert found.words.endswith("from mirror (as of 03:30:00 UTC, 3m ago)")
    old = replace(CALM, at=later, status=status(refuses="full"), status_at=NOW)
    found = verdict(census(), old, replace(WELL, at=later), later)
    assert found is not None
    assert found.words == "the queue takes no jobs: full (as of 03:30:00 UTC, 3m ago)"
    # that nobody can look is known now
    found = verdict(census(), replace(CALM, trouble="cannot be reached"), WELL, later)
    assert found is not None
    assert found.words == "the queue cannot be looked at: cannot be reached"


def test_that_nobody_looks_any_more_comes_before_all_else() -> None:
    found = verdict(census(("503", 9, YOUNG)), CALM, WELL, NOW, ["the queue", "the checks"])
    assert found is not None
    assert found.level == "wrong"
    assert found.words == (
        "the console does not look at the queue and the checks any more; what is shown was so at 03:30:00 UTC: "
        "restart glassq-console; its log says why"
    )
