"""What the simulated Glass knows: users, their timelines and subscriptions, and who holds which token.

Everything here may be used from several threads; `World.lock` is held wherever more than one field matters.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.dev.simulator.media import Media

COLLECTIONS = ("timeline", "locations", "settings")
OPERATIONS = ("UPDATE", "INSERT", "DELETE", "MENU_ACTION")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture or film of an item. `ready_at` is when its processing ends, on time.monotonic()."""

    id: str
    content_type: str
    data: bytes = field(repr=False)
    ready_at: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether the content can be had already."""
        return time.monotonic() >= self.ready_at

    def to_json(self, attachments_url: str) -> dict[str, Any]:
        """The API's Attachment; without a contentUrl while it is processed."""
        form: dict[str, Any] = {"id": self.id, "contentType": self.content_type}
        if not self.is_ready:
            return form | {"isProcessingContent": True}
        return form | {"contentUrl": f"{attachments_url}/{self.id}?alt=media"}


@dataclass(slots=True, eq=False)
class Item:
    """A card on one user's timeline. `fields` are what its author gave (text, html, ...)."""

    id: str
    user: str
    attachments: tuple[Attachment, ...]
    fields: Mapping[str, Any]
    created: datetime
    updated: datetime
    is_deleted: bool = False

    def to_json(self, api_url: str) -> dict[str, Any]:
        """The API's TimelineItem; a deleted one has nothing but its id and isDeleted."""
        if self.is_deleted:
            return {"id": self.id, "isDeleted": True}
        url = f"{api_url}timeline/{self.id}"
        form: dict[str, Any] = {
            **self.fields,
            "kind": "mirror#timelineItem",
            "id": self.id,
            "selfLink": url,
            "created": _timestamp(self.created),
            "updated": _timestamp(self.updated),
        }
        if self.attachments:
            form["attachments"] = [attachment.to_json(f"{url}/attachments") for attachment in self.attachments]
        return form


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where pings of one collection go. An empty `operation` means all of them."""

    collection: str
    callback_url: str
    user_token: str | None = None
    verify_token: str | None = None
    operation: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The API's Subscription; its id is the collection, as in practice."""
        form = {
            "kind": "mirror#subscription",
            "id": self.collection,
            "collection": self.collection,
            "callbackUrl": self.callback_url,
            "operation": list(self.operation),
            "userToken": self.user_token,
            "verifyToken": self.verify_token,
        }
        return {key: value for key, value in form.items() if value is not None}


@dataclass(slots=True, eq=False)
class User:
    """Somebody with a Glass on. Items are in the order of their making."""

    name: str
    refresh_token: str
    revoked: bool = False
    items: dict[str, Item] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)


class World:
    """All users of one simulated Glass, and the tokens that open their timelines."""

    def __init__(self, token_lifetime: float) -> None:
        self.lock = threading.RLock()
        self.token_lifetime = token_lifetime
        self.users: dict[str, User] = {}
        self._access: dict[str, tuple[User, float]] = {}

    def add_user(self, name: str) -> User:
        """A user with a fresh consent. A known one keeps the timeline; the old refresh token is worth nothing then."""
        with self.lock:
            token = "1//sim-" + secrets.token_urlsafe(24)
            user = self.users.setdefault(name, User(name, token))
            user.refresh_token, user.revoked = token, False
            return user

    def revoke(self, name: str) -> None:
        """The user takes the consent back: neither refresh nor access tokens are worth anything now."""
        with self.lock:
            self.users[name].revoked = True
            self.expire_tokens(name)

    def expire_tokens(self, name: str) -> None:
        """Ends the life of the user's access tokens, whatever their holders believe."""
        with self.lock:
            self._access = {token: held for token, held in self._access.items() if held[0].name != name}

    def by_refresh_token(self, token: str) -> User | None:
        """Whose refresh token this is, revoked or not."""
        with self.lock:
            return next((user for user in self.users.values() if user.refresh_token == token), None)

    def new_access_token(self, user: User) -> str:
        """A token for `token_lifetime` seconds."""
        with self.lock:
            now = time.monotonic()
            self._access = {token: held for token, held in self._access.items() if held[1] > now}
            token = "ya29.sim-" + secrets.token_urlsafe(24)
            self._access[token] = (user, now + self.token_lifetime)
            return token

    def by_access_token(self, token: str) -> User | None:
        """Whose access token this is; None where it is unknown, expired or revoked."""
        with self.lock:
            user, expires = self._access.get(token, (None, 0.0))
            return user if time.monotonic() < expires else None

    def add_item(
        self, user: User, media: Sequence[Media] = (), fields: Mapping[str, Any] | None = None, ready_at: float = 0.0
    ) -> Item:
        """A new card on the user's timeline, its media in this order."""
        attachments = tuple(Attachment(_attachment_id(one), *one, ready_at) for one in media)
        now = datetime.now(UTC)
        item = Item(str(uuid.uuid4()), user.name, attachments, fields or {}, now, now)
        with self.lock:
            user.items[item.id] = item
        return item

    def delete_item(self, user: User, item_id: str, *, trace: bool) -> bool:
        """Deletes a card; with `trace` the API still knows its id. False where there is no such card."""
        with self.lock:
            item = user.items.get(item_id)
            if item is None or item.is_deleted:
                return False
            item.is_deleted, item.updated = True, datetime.now(UTC)
            if not trace:
                del user.items[item_id]
            return True


def _attachment_id(media: Media) -> str:
    """Glass names photos by a number, and films by a UUID."""
    if media.content_type.startswith("image/"):
        return f"ps:{secrets.randbelow(9 * 10**18) + 10**18}"
    return f"bs:{uuid.uuid4()}"


def _timestamp(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
