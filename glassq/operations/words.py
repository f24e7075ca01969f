"""Counts, times and reasons as people read them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

# A pause of at least this many seconds was meant to last until it is resumed.
PAUSED_FOR_GOOD = 365 * 86_400


def moment(value: datetime) -> str:
    """A time in RFC 3339, UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A duration in its two largest units: 3d 4h, 2m 5s, 0.3s."""
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    left, parts = int(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])


def deliveries(count: int) -> str:
    """So many deliveries, in words."""
    return "1 delivery" if count == 1 else f"{count} deliveries"


def attempts(count: int) -> str:
    """So many attempts, in words."""
    return "1 attempt" if count == 1 else f"{count} attempts"


def until(seconds: int) -> str:
    """How long a pause still lasts, in words."""
    return "until it is resumed" if seconds >= PAUSED_FOR_GOOD else f"for {span(seconds)} more"
