"""The handler of Glass pings: stores the photos of a shared timeline item.

    [[routes]]
    source = "mirror"
    collection = "timeline"
    handler = "glassq.glass.photos:store"

It is idempotent, because it runs at least once for a ping: an object's name is known before its content, and an object
that exists is not downloaded again. Running it twice, even at the same time, stores each photo once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import Bury, Drop, Retry
from glassq.glass import names
from glassq.glass.api import MirrorApi
from glassq.glass.credentials import CredentialStore
from glassq.glass.storage import open_storage, preload_storage
from glassq.routes import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.delivery import Delivery
    from glassq.glass.api import Account
    from glassq.glass.storage import PhotoStorage, Stored
    from glassq.routes import Context
    from glassq.settings import Settings

# Maximum delay before the next look at a photo that Glass is still uploading, in seconds. The first delay is [glass]
# processing_delay, and it doubles each time.
MAX_WAIT = 600.0


class Action(msgspec.Struct, frozen=True):
    """A user's action. Unknown types are ignored, as the API's guide asks."""

    type: str | None = None


class Ping(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of a ping that are read; it may have more."""

    collection: str
    item_id: str = ""
    operation: str | None = None
    user_token: str | None = None
    user_actions: list[Action] | None = None

    def has(self, action: str) -> bool:
        """Whether the user took this action."""
        return any(taken.type == action for taken in self.user_actions or ())


@dataclass(frozen=True, slots=True)
class GlassServices:
    """What a handler of Glass pings needs; one per process (`context.resource(GlassServices.open)`)."""

    credentials: CredentialStore
    mirror: MirrorApi
    storage: PhotoStorage

    @classmethod
    def open(cls, settings: Settings) -> GlassServices:
        """Opens all of it by the settings. Raises SettingsError."""
        store = CredentialStore.open(settings)
        return cls(store, MirrorApi(settings, store), open_storage(settings.storage.url))

    def close(self) -> None:
        """Closes every connection."""
        self.mirror.close()
        self.storage.close()


# The old name, for programs that use it; to be removed after one release.
Glass = GlassServices


@dataclass(frozen=True, slots=True)
class Photo:
    """An attachment to store: its id, the object's name, its declared content type, and whether it is complete."""

    id: str
    name: str
    content_type: str
    ready: bool


@requires(GlassServices.open, preload=lambda settings: preload_storage(settings.storage.url))
def store(delivery: Delivery, context: Context) -> dict[str, Any]:
    """Stores what the user shared; the result is {"urls": [...], "bytes": total}.

    For a deletion, with on_delete = "delete", the result is {"deleted": [names]}. Raises Drop if there is nothing to
    do, and Retry or Bury as glass/verdicts.py and glass/storage decide.
    """
    ping = _parse(delivery.body)
    if ping.collection != "timeline":
        raise Drop(f"collection {names.shown(ping.collection)}: only timeline items have photos")
    item, user = names.check_item(ping.item_id), ping.user_token
    if not user:
        raise Bury(f"timeline item {item}: the ping has no userToken, so its user is unknown")
    # SHARE is documented as UPDATE and comes as INSERT, so the user's action decides and not the operation.
    if ping.has("SHARE") or (not ping.user_actions and ping.operation != "DELETE"):
        return _store_item(user, item, delivery, context)
    if ping.has("DELETE") or ping.operation == "DELETE":
        return _delete_item(user, item, context)
    raise Drop(f"timeline item {item} of user {names.shown(user)}: no SHARE among the user actions")


def _parse(body: bytes) -> Ping:
    try:
        return msgspec.json.decode(body, type=Ping)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Bury(f"the body is not a ping: {error}") from None


def _store_item(user: str, item: str, delivery: Delivery, context: Context) -> dict[str, Any]:
    glass = context.resource(GlassServices.open)
    account = glass.mirror.account(user, context.remaining)
    whose = f"timeline item {item} of user {names.shown(user)}"
    stored: list[Stored] = []
    waiting: list[str] = []
    answer = account.item(item)
    if answer.get("isDeleted"):
        raise Drop(f"gone: {whose} is deleted")
    for photo in _photos(user, item, answer):
        done = glass.storage.find(photo.name)
        if done is None and photo.ready:
            done = _download(photo, item, account, glass.storage, delivery, context)
        if done is None:
            waiting.append(photo.id)
        else:
            stored.append(done)
    if waiting:
        raise _not_ready(whose, waiting, delivery, context)
    if not stored:
        raise Drop(f"{whose}: no attachments to store")
    return {"urls": [photo.url for photo in stored], "bytes": sum(photo.size for photo in stored)}


def _photos(user: str, item: str, answer: dict[str, Any]) -> Iterator[Photo]:
    """The attachments of an item that can be stored. The first one gets the short name, also if it is not ready."""
    first = True
    listed = answer.get("attachments")
    for attachment in listed if isinstance(listed, list) else ():
        if not isinstance(attachment, dict):
            continue
        content_type = names.canonical(attachment.get("contentType"))
        if content_type == names.STREAM:
            continue
        attachment_id = names.check_attachment(attachment.get("id"), item)
        name = names.object_name(user, item, None if first else attachment_id, content_type)
        ready = not attachment.get("isProcessingContent")
        yield Photo(attachment_id, name, content_type, ready)
        if not (ready or content_type):
            # It may turn out to be a stream. Until its type is known, the first attachment after it is unknown, too.
            return
        first = False


def _download(
    photo: Photo, item: str, account: Account, storage: PhotoStorage, delivery: Delivery, context: Context
) -> Stored:
    settings = context.settings
    with account.media(item, photo.id, settings.glass.max_attachment) as pieces:
        head, content = _peek(pieces)
        return storage.write(
            photo.name,
            content,
            content_type=names.stored_type(photo.content_type, head),
            metadata={"item": item, "attachment": photo.id, "delivery": delivery.id},
            timeout=min(context.remaining(), settings.worker.deadline),
        )


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, which show the kind of content, and an iterator over all of it."""
    head = b""
    while len(head) < names.HEAD:
        piece = next(pieces, None)
        if piece is None:
            break
        head += piece
    return head[: names.HEAD], chain([head], pieces)


def _not_ready(whose: str, waiting: list[str], delivery: Delivery, context: Context) -> Retry | Bury:
    reason = f"{whose}: Glass still processes attachment {', '.join(waiting)}"
    patience = context.settings.glass.processing_patience
    # after a kick the delivery shall wait once more
    if delivery.age() > patience and (delivery.waits or delivery.attempt == 1):
        return Bury(f"{reason}, for more than {patience} ([glass] processing_patience)")
    # The exponent is bounded: a delivery can wait for months, and 2.0 ** 1024 overflows.
    delay = context.settings.glass.processing_delay * 2 ** min(delivery.waits, 16)
    return Retry(reason, delay=min(delay, MAX_WAIT), counts=False)


def _delete_item(user: str, item: str, context: Context) -> dict[str, Any]:
    if context.settings.glass.on_delete == "keep":
        raise Drop(f"timeline item {item} of user {names.shown(user)}: deleted on Glass; kept")
    storage = context.resource(GlassServices.open).storage
    mine = [name for name in storage.names(names.prefix(user, item)) if names.belongs(name, user, item)]
    return {"deleted": [name for name in mine if storage.delete(name)]}
