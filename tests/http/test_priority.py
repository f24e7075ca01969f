"""Large bodies give way to small pings."""

from __future__ import annotations

import itertools

import pytest

from glassq.http.priority import MAX_PAUSE, RECENT, SmallFirst


@pytest.mark.parametrize(
    ("seen", "took", "pauses"),
    [
        (None, 0.005, []),
        (0.0, 0.005, [0.005]),
        (0.0, 0.5, [MAX_PAUSE]),
        (-RECENT, 0.005, []),
    ],
)
def test_a_step_on_a_large_body_is_followed_by_a_pause_while_small_pings_are_about(
    seen: float | None, took: float, pauses: list[float]
) -> None:
    slept: list[float] = []
    clock = itertools.count(0.0, took)
    first = SmallFirst(lambda: next(clock), slept.append)
    if seen is not None:
        first.saw_small(seen)
    with first.step():
        pass
    assert slept == pauses


def test_a_step_that_fails_is_followed_by_a_pause_too() -> None:
    slept: list[float] = []
    clock = itertools.count(0.0, 0.001)
    first = SmallFirst(lambda: next(clock), slept.append)
    first.saw_small(0.0)
    with pytest.raises(ValueError, match="bad"), first.step():
        raise ValueError("bad")
    assert slept == [0.001]
