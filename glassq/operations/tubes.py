"""The tubes that an installation uses, whether they are there or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.push.request import tube_of
from glassq.settings import named_tubes

if TYPE_CHECKING:
    from glassq.operations import Operations


def wanted_tubes(operations: Operations) -> list[str]:
    """Those that the settings name, and those of queue.yaml as far as that can be read."""
    settings = operations.settings
    found = named_tubes(settings)
    if settings.push is not None:
        # queue.yaml takes a while to load
        from glassq.operations.push_queues import planned

        found += [tube_of(settings.queue.tube, name) for name in planned(operations).queues]
    return found
