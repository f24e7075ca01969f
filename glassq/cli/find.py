"""What commands that are not moved to operations/ yet ask about tubes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.operations import find
from glassq.operations.find import is_ours

if TYPE_CHECKING:
    from glassq.cli.app import App
    from glassq.queues import Queue

__all__ = ["is_ours", "our_tubes", "unworked"]


def unworked(app: App, tube: str) -> str:
    """Why no pool with these settings works a tube, in words; "" where one does."""
    return app.adapt(find.unworked(app.operations, tube))


def our_tubes(queue: Queue) -> list[str]:
    """The main tube, and those of push queues that exist now."""
    return [queue.tube, *sorted(tube for tube in queue.tubes() if tube != queue.tube and is_ours(queue.tube, tube))]
