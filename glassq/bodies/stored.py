"""A delivery whose body is in the body store, as its handler gets it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO, Protocol

from glassq.delivery import Delivery
from glassq.errors import BodyDamaged

if TYPE_CHECKING:
    from glassq.bodies.base import BodyStore
    from glassq.delivery import StoredBody

# One read, in bytes.
_CHUNK = 1 << 20


class OpensBodies(Protocol):
    """Whoever has bodies to read."""

    def open(self, key: str) -> BinaryIO:
        """See BodyStore."""


class StoredDelivery(Delivery, frozen=True, kw_only=True):
    """Its body is read each time that it is asked for: keep it, or read it in parts by `open`.

    `key` is that of the body, if that is not the delivery's id.
    """

    bodies: BodyStore
    key: str = ""

    @property  # type: ignore[misc]
    def body(self) -> bytes:
        """The whole body. Raises BodyError."""
        with self.open() as file:
            return file.read()

    def open(self) -> BinaryIO:
        """The body as a file, to be read in parts. Raises BodyError."""
        return self.bodies.open(self.key or self.id)


def with_body(delivery: Delivery, bodies: BodyStore) -> Delivery:
    """The delivery with its body, wherever that is. A stored one is read, and compared with what was stored.

    Raises BodyLost or BodyDamaged if the body will never be whole again, BodyError if it cannot be read now.
    """
    if delivery.stored is None:
        return delivery
    check(bodies, delivery.id, delivery.stored)
    return attached(delivery, bodies)


def attached(delivery: Delivery, bodies: BodyStore) -> Delivery:
    """The same, but nothing is read before it is asked for."""
    if delivery.stored is None:
        return delivery
    fields = {name: getattr(delivery, name) for name in Delivery.__struct_fields__ if name != "body"}
    return StoredDelivery(**fields, body=b"", bodies=bodies)


def check(bodies: OpensBodies, key: str, stored: StoredBody) -> None:
    """Raises BodyLost, BodyDamaged or BodyError unless this body is as it was stored."""
    digest, size = hashlib.sha256(), 0
    with bodies.open(key) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    if size != stored.size:
        raise BodyDamaged(f"body {key} has {size} bytes, and had {stored.size}")
    if digest.hexdigest() != stored.sha256:
        raise BodyDamaged(f"body {key} was changed since it was stored: its SHA-256 is another")
