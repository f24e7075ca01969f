from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.database import pruning
from glassq.database.pruning import PRUNE_AGAIN, PRUNE_EVERY, PRUNE_ROWS, PRUNE_SOON, Pruning

if TYPE_CHECKING:
    import pytest


def test_the_first_pruning_comes_soon_and_not_before_it_is_due() -> None:
    before = time.monotonic()
    due = [Pruning().due_at for _ in range(100)]
    assert min(due) >= before
    assert max(due) <= time.monotonic() + PRUNE_SOON
    assert len(set(due)) > 1, "children of a pool start together"
    waiting = Pruning()
    waiting.due_at = time.monotonic() + 3600.0
    waiting.run_if_due(lambda _: 1 / 0)  # type: ignore[arg-type, return-value]


def test_the_next_one_comes_soon_again_only_while_there_are_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PRUNE_SOON", 0.0)
    limits = []

    def prune(found: int) -> float:
        schedule = Pruning()
        schedule.run_if_due(lambda limit: limits.append(limit) or found)  # type: ignore[func-returns-value]
        return schedule.due_at - time.monotonic()

    assert prune(PRUNE_ROWS) <= 1.25 * PRUNE_AGAIN
    assert prune(PRUNE_ROWS - 1) > PRUNE_EVERY / 2
    assert limits == [PRUNE_ROWS, PRUNE_ROWS]
