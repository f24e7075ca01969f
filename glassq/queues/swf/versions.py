"""Which decider reads the histories of which version of the workflow type.

A run ends as it began: by the decider of its version, which has a list of its own, so that an older glassq never
decides what it cannot read. To change what follows from a history, write a decider beside the one that is there, and
make its version the NEWEST; the old row goes when no run of that version is open any more (`glassq doctor` counts).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from glassq.queues.swf import decider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DECIDERS: dict[str, Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]] = {
    version: partial(decider.decide, version=version) for version in (decider.FIRST, decider.VERSION)
}
NEWEST = decider.VERSION
