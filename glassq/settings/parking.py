"""The names of parking tubes, in which deliveries wait that may not be worked now.

A parking tube is named after the tube that its deliveries came from, and go back to: ORIGIN.key.ROUTE.HASH where they
wait for their turn by `concurrency_by`, ORIGIN.held.ROUTE where the breaker of the route is open. So the rate, the
share and the pause of the origin are theirs as well. A consumer reserves from such a tube only when the gate lets it.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# A parking tube's name is so much longer than its origin's, beside the name of the route.
SUFFIX = len(".key..") + 16
_FORM = re.compile(
    r"(?P<origin>.+)\.(?:key\.(?P<route>[a-z0-9-]{1,40})\.(?P<key>[0-9a-f]{16})|held\.(?P<held>[a-z0-9-]{1,40}))"
)


class ParkingTube(NamedTuple):
    """A parking tube: the tube that its deliveries came from, their route, and their hashed key.

    `key` is "" where a breaker holds them, whatever their key.
    """

    origin: str
    route: str
    key: str = ""

    @property
    def name(self) -> str:
        """The tube's name."""
        return f"{self.origin}.key.{self.route}.{self.key}" if self.key else f"{self.origin}.held.{self.route}"


@lru_cache(4096)
def parking_tube(base: str, tube: str) -> ParkingTube | None:
    """What the name of a tube says, if it is that of a parking tube; `base` is [queue] tube."""
    found = _FORM.fullmatch(tube)
    if found is None or not f"{found['origin']}.".startswith(f"{base}."):
        return None
    return ParkingTube(found["origin"], found["route"] or found["held"], found["key"] or "")


def parked_of(base: str, origin: str, tubes: Iterable[str]) -> list[str]:
    """Those of these tubes in which deliveries of the tube `origin` are parked."""
    return [tube for tube in tubes if (found := parking_tube(base, tube)) is not None and found.origin == origin]


@lru_cache(4096)
def hashed_key(route: str, value: str) -> str:
    """The key of a route's deliveries whose label has this value: 16 hex digits."""
    # a label may have what UTF-8 has not
    text = f"{route}\0{value}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).hexdigest()
