"""What settings ask for that SQS cannot do: said before somebody meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.queues.sqs.leases import MAX_LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings


def remarks(settings: Settings) -> Iterator[str]:
    """See `glassq.queues.remarks`."""
    deadlines = {
        settings.place("worker", "deadline"): settings.worker.deadline,
        **{settings.place("routes", n, "deadline"): route.deadline for n, route in enumerate(settings.routes)},
    }
    for key, deadline in deadlines.items():
        if deadline is not None and deadline > MAX_LEASE:
            yield (
                f'{key} = "{deadline}": at Amazon SQS an attempt may take 12 hours, and '
                "no extension helps: then it is stopped, and tried again from the beginning"
            )
