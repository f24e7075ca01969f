"""Bodies that are too large for a job go into the body store before their delivery is put, as the intake has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from glassq.errors import SettingsError

if TYPE_CHECKING:
    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.settings import Settings


def fitted(settings: Settings, bodies: BodyStore, delivery: Delivery) -> Delivery:
    """The delivery as this queue can hold it: a body that no job of its engine has room for is in the store then.

    Raises SettingsError and BodyError.
    """
    if not settings.queue.url.needs_store(len(delivery.body)) or delivery.stored is not None:
        return delivery
    check_store(settings, bodies, f"a body of {len(delivery.body)} bytes is too large for a job there")
    return stored(bodies, delivery)


def stored(bodies: BodyStore, delivery: Delivery) -> Delivery:
    """The delivery, whose body is in the store now, durably. Raises BodyError."""
    bodies.prepare()
    # should an earlier try have left one; a whole one may be read by now
    bodies.delete(delivery.id, "unfinished")
    writer = bodies.begin(delivery.id, len(delivery.body))
    try:
        writer.write(delivery.body)
        return msgspec.structs.replace(delivery, body=b"", stored=writer.finish())
    finally:
        writer.discard()


def check_store(settings: Settings, bodies: BodyStore, why: str) -> None:
    """Raises SettingsError or BodyError if no body can be stored where all hosts of the queue find it.

    `why` says what needs the store.
    """
    queue = settings.queue.url
    if queue.many_hosts and "bodies.url" in settings.unset:
        raise SettingsError(
            f"{settings.file}: [bodies] url is not set: {why} ({queue}). Set it to a store that all hosts reach, such "
            f'as "s3://BUCKET/PREFIX"; where one host alone uses this queue, to "{settings.bodies.url}"'
        )
    bodies.prepare()
