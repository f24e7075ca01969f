"""Room for lanes, made at the start of a pool for all its reloads."""

from __future__ import annotations

import pytest

from glassq.worker.room import lacking, room_for_lanes
from glassq.worker.scoreboard import MAX_LANES


@pytest.mark.parametrize(
    ("lane_processes", "lanes", "grown", "says"),
    [
        (2, 500, 500, ""),
        (2, 500, 1000, ""),
        (2, 500, 1001, "1000 lanes in each lane child, and routes with concurrency want 1001"),
        # a pool without lanes has some room for them
        (0, 0, 128, ""),
        # what one tube's limit counts up to
        (1, 4000, 4000, ""),
    ],
)
def test_a_reload_may_double_the_lanes(lane_processes: int, lanes: int, grown: int, says: str) -> None:
    room = room_for_lanes(2, lane_processes, lanes)
    assert room["lanes"] <= MAX_LANES
    children = lane_processes or min(1, room["crews"] // 2)
    assert lacking(room["crews"], room["lanes"], lane_processes=children, wanted=grown) == says


def test_a_reload_may_not_double_the_lane_children() -> None:
    assert lacking(4, 128, lane_processes=3, wanted=9) == "2 lane children, and 3 are wanted"
    assert lacking(4, 128, lane_processes=0, wanted=9000) == ""
