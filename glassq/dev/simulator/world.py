"""The state of the simulated Glass: users, their timelines, subscriptions and tokens.

All of it is used from several threads; `World.lock` guards every access to more than one field.
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
    """A picture or film of an item. Its processing ends at `ready_at`, on time.monotonic()."""

    id: str
    content_type: str
    data: bytes = field(repr=False)
    ready_at: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether the API serves the content yet."""
        return time.monotonic() >= self.ready_at

    def to_json(self, attachments_url: str) -> dict[str, Any]:
        """The API's Attachment, without a contentUrl while it is processed."""
        form: dict[str, Any] = {"id": self.id, "contentType": self.content_type}
        if not self.is_ready:
            return form | {"isProcessingContent": True}
        return form | {"contentUrl": f"{attachments_url}/{self.id}?alt=media"}


@dataclass(slots=True, eq=False)
class TimelineItem:
    """A card on one user's timeline. `fields` are its author's (text, html, ...)."""

    id: str
    user: str
    attachments: tuple[Attachment, ...]
    fields: Mapping[str, Any]
    created: datetime
    updated: datetime
    is_deleted: bool = False

    def to_json(self, api_url: str) -> dict[str, Any]:
        """The API's TimelineItem; a deleted one has only its id and isDeleted."""
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
    """The callback for pings of one collection. An empty `operation` means all operations."""

    collection: str
    callback_url: str
    user_token: str | None = None
    verify_token: str | None = None
    operation: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The API's Subscription; its id is the collection, as Google made it."""
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
    """A user of the simulated Glass. Items are in the order of their creation."""

    name: str
    refresh_token: str
    revoked: bool = False
    items: dict[str, TimelineItem] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)


class World:
    """All users of one simulated Glass, and their access tokens."""

    def __init__(self, token_lifetime: float) -> None:
        self.lock = threading.RLock()
        self.token_lifetime = token_lifetime
        self.users: dict[str, User] = {}
        self._access: dict[str, tuple[User, float]] = {}

    def add_user(self, name: str) -> User:
        """A user with a new consent. An existing user keeps the timeline; the old refresh token becomes invalid."""
        with self.lock:
            token = "1//sim-" + secrets.token_urlsafe(24)
            user = self.users.setdefault(name, User(name, token))
            user.refresh_token, user.revoked = token, False
            return user

    def revoke(self, name: str) -> None:
        """Revokes the user's consent: refresh and access tokens become invalid."""
        with self.lock:
            self.users[name].revoked = True
            self.expire_tokens(name)

    def expire_tokens(self, name: str) -> None:
        """Expires the user's access tokens early."""
        with self.lock:
            self._access = {token: held for token, held in self._access.items() if held[0].name != name}

    def by_refresh_token(self, token: str) -> User | None:
        """The user with this refresh token, revoked or not; None if it is unknown."""
        with self.lock:
            return next((user for user in self.users.values() if user.refresh_token == token), None)

    def new_access_token(self, user: User) -> str:
        """A new access token, valid for `token_lifetime` seconds."""
        with self.lock:
            now = time.monotonic()
            self._access = {token: held for token, held in self._access.items() if held[1] > now}
            token = "ya29.sim-" + secrets.token_urlsafe(24)
            self._access[token] = (user, now + self.token_lifetime)
            return token

    def by_access_token(self, token: str) -> User | None:
        """The user with this access token; None if it is unknown, expired or revoked."""
        with self.lock:
            user, expires = self._access.get(token, (None, 0.0))
            return user if time.monotonic() < expires else None

    def add_item(
        self, user: User, media: Sequence[Media] = (), fields: Mapping[str, Any] | None = None, ready_at: float = 0.0
    ) -> TimelineItem:
        """Adds a card to the user's timeline, with its media in this order."""
        attachments = tuple(Attachment(_attachment_id(one), *one, ready_at) for one in media)
        now = datetime.now(UTC)
        item = TimelineItem(str(uuid.uuid4()), user.name, attachments, fields or {}, now, now)
        with self.lock:
            user.items[item.id] = item
        return item

    def delete_item(self, user: User, item_id: str, *, trace: bool) -> bool:
        """Deletes a card; with `trace` the API still knows its id. False if there is no such card."""
        with self.lock:
            item = user.items.get(item_id)
            if item is None or item.is_deleted:
                return False
            item.is_deleted, item.updated = True, datetime.now(UTC)
            if not trace:
                del user.items[item_id]
            return True


def _attachment_id(media: Media) -> str:
    """An id as Glass makes them: a number for a photo, a UUID for a film."""
    if media.content_type.startswith("image/"):
        return f"ps:{secrets.randbelow(9 * 10**18) + 10**18}"
    return f"bs:{uuid.uuid4()}"


def _timestamp(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
