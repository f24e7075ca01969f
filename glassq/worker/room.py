"""How many lanes a pool's memory has room for: it is made at the start, and children that a reload brings share it."""

from __future__ import annotations

import os

from glassq.worker.scoreboard import MAX_LANES

# A pool without lane children has room for those that a reload brings: so many lanes in all, half of them in use.
SPARE_LANES = 512


def room_for_lanes(processes: int, lane_processes: int = 0, lanes: int = 0) -> dict[str, int]:
    """Room for how many lane children, and how many lanes in each; twice as many of both, for a reload."""
    crews = lane_processes or min(processes, os.cpu_count() or 1)
    return {"crews": 2 * crews, "lanes": max(SPARE_LANES // (2 * crews), min(2 * lanes, MAX_LANES // crews))}


def lacking(crews: int, lanes: int, *, lane_processes: int, wanted: int) -> str:
    """What settings want that there is no room for; "" if there is room for all.

    There is room for `crews` lane children, half of them for a reload, with so many `lanes` each; wanted are
    `lane_processes` with `wanted` lanes.
    """
    if crews // 2 < lane_processes:
        return f"{crews // 2} lane children, and {lane_processes} are wanted"
    if lane_processes and lanes < wanted:
        return f"{lanes} lanes in each lane child, and routes with concurrency want {wanted}"
    return ""
