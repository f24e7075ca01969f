"""The simulated Mirror API v1 and its OAuth token endpoint: what is answered to which request, without any sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from glassq.dev.simulator.world import COLLECTIONS, OPERATIONS, Subscription, User, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BASE = "/mirror/v1/"
TOKEN_PATH = "/token"  # noqa: S105 - a path
SCOPE = "https://www.googleapis.com/auth/glass.timeline"
# The discovery document names no default or limit; Google's usual ones.
PAGE, MAX_PAGE = 20, 100

# Method and path below /mirror/v1/ of every operation served.
_OPERATIONS = {
    "timeline.list": ("GET", "timeline"),
    "timeline.insert": ("POST", "timeline"),
    "timeline.get": ("GET", "timeline/*"),
    "timeline.delete": ("DELETE", "timeline/*"),
    "timeline.attachments.list": ("GET", "timeline/*/attachments"),
    "timeline.attachments.get": ("GET", "timeline/*/attachments/*"),
    "subscriptions.list": ("GET", "subscriptions"),
    "subscriptions.insert": ("POST", "subscriptions"),
    "subscriptions.update": ("PUT", "subscriptions/*"),
    "subscriptions.delete": ("DELETE", "subscriptions/*"),
}
_READ_ONLY = ("kind", "id", "etag", "selfLink", "created", "updated", "isDeleted", "attachments")
_USAGE_LIMITS = ("LimitExceeded", "LimitExceededUnreg", "quotaExceeded", "accessNotConfigured")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `path` is as sent, with its query; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=UTF-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for: an operation ("" where there is none such), its ids, and on whose behalf."""

    operation: str
    path: str
    ids: tuple[str, ...]
    query: Mapping[str, str]
    user: User | None


def json_answer(form: Mapping[str, Any], status: int = 200) -> Answer:
    """`form` as JSON."""
    return Answer(status, json.dumps(form).encode())


def error_answer(status: int, reason: str, message: str) -> Answer:
    """An error as the Mirror API has it, and googleapiclient's HttpError reads it."""
    domain = "usageLimits" if reason.endswith(_USAGE_LIMITS) else "global"
    errors = [{"domain": domain, "reason": reason, "message": message}]
    return json_answer({"error": {"code": status, "message": message, "errors": errors}}, status)


def oauth_error(status: int, error: str, description: str) -> Answer:
    """An error as the token endpoint has it (RFC 6749, 5.2)."""
    return json_answer({"error": error, "error_description": description}, status)


class Api:
    """Answers requests out of a World. `origin` is how the server is reached: http://HOST:PORT."""

    def __init__(self, world: World, client_id: str, client_secret: str, origin: str) -> None:
        self._world = world
        self._client = (client_id, client_secret)
        self._url = origin + BASE

    def understand(self, request: Request) -> Call:
        """What the request asks for, and who asks: nothing is done yet."""
        parts = urlsplit(request.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        if (request.method, path) == ("POST", TOKEN_PATH):
            user = self._world.by_refresh_token(_form(request).get("refresh_token", ""))
            return Call("token", path, (), query, user)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user = self._world.by_access_token(token.strip()) if scheme.lower() == "bearer" else None
        operation, ids = _operation(request.method, parts.path)
        if operation == "timeline.attachments.get" and query.get("alt") == "media":
            operation = "timeline.attachments.get_media"
        return Call(operation, path, ids, query, user)

    def answer(self, call: Call, request: Request) -> Answer:
        """Does what is asked for, and what comes of it."""
        if call.operation == "token":
            return self._token(call, request)
        if not call.operation:
            return error_answer(404, "notFound", "Not Found")
        if call.user is None:
            refusal = error_answer(401, "authError", "Invalid Credentials")
            return Answer(
                401, refusal.body, headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'}
            )
        with self._world.lock:
            if call.operation.startswith("subscriptions."):
                return self._subscriptions(call, call.user, request)
            return self._timeline(call, call.user, request)

    def _token(self, call: Call, request: Request) -> Answer:
        form = _form(request)
        if form.get("grant_type") != "refresh_token":
            return oauth_error(400, "unsupported_grant_type", "Invalid grant_type: expected refresh_token")
        if (form.get("client_id"), form.get("client_secret")) != self._client:
            return oauth_error(401, "invalid_client", "The OAuth client was not found.")
        if call.user is None or call.user.revoked:
            return oauth_error(400, "invalid_grant", "Token has been expired or revoked.")
        return json_answer(
            {
                "access_token": self._world.new_access_token(call.user),
                "expires_in": int(self._world.token_lifetime),
                "token_type": "Bearer",
                "scope": SCOPE,
            }
        )

    def _timeline(self, call: Call, user: User, request: Request) -> Answer:
        if call.operation == "timeline.list":
            return self._page(call, user)
        if call.operation == "timeline.insert":
            fields = _json_object(request.body)
            if fields is None:
                return error_answer(400, "parseError", "Parse Error")
            item = self._world.add_item(user, fields={k: v for k, v in fields.items() if k not in _READ_ONLY})
            return json_answer(item.to_json(self._url))
        item_id = call.ids[0]
        if call.operation == "timeline.delete":
            done = self._world.delete_item(user, item_id, trace=True)
            return Answer(204) if done else error_answer(404, "notFound", "Not Found")
        found = user.items.get(item_id)
        if found is None:
            return error_answer(404, "notFound", "Not Found")
        if call.operation == "timeline.get":
            return json_answer(found.to_json(self._url))
        return self._attachments(call, user)

    def _page(self, call: Call, user: User) -> Answer:
        """Items, latest first; the page token is how many came on the pages before."""
        limit, start = call.query.get("maxResults", str(PAGE)), call.query.get("pageToken", "0")
        if not (limit.isdecimal() and int(limit) and start.isdecimal()):
            return error_answer(400, "invalidParameter", "Invalid value for maxResults or pageToken")
        items = [item for item in user.items.values() if _wanted(item.is_deleted, item.fields, call.query)]
        items.sort(key=lambda item: item.updated if call.query.get("orderBy") == "writeTime" else item.created)
        end = int(start) + min(int(limit), MAX_PAGE)
        page = [item.to_json(self._url) for item in items[::-1][int(start) : end]]
        form: dict[str, Any] = {"kind": "mirror#timeline", "items": page}
        return json_answer(form | {"nextPageToken": str(end)} if end < len(items) else form)

    def _attachments(self, call: Call, user: User) -> Answer:
        item = user.items[call.ids[0]]
        attachments = () if item.is_deleted else item.attachments
        url = f"{self._url}timeline/{item.id}/attachments"
        if call.operation == "timeline.attachments.list":
            return json_answer({"kind": "mirror#attachmentsList", "items": [one.to_json(url) for one in attachments]})
        found = next((one for one in attachments if one.id == call.ids[1]), None)
        if found is None:
            return error_answer(404, "notFound", "Not Found")
        if call.operation == "timeline.attachments.get":
            return json_answer(found.to_json(url))
        if not found.is_ready:
            return error_answer(404, "notFound", "The content of this attachment is still being processed")
        return Answer(200, found.data, found.content_type)

    def _subscriptions(self, call: Call, user: User, request: Request) -> Answer:
        if call.operation == "subscriptions.list":
            every = [one.to_json() for one in user.subscriptions.values()]
            return json_answer({"kind": "mirror#subscriptionsList", "items": every})
        if call.ids and call.ids[0] not in user.subscriptions:
            return error_answer(404, "notFound", "Not Found")
        if call.operation == "subscriptions.delete":
            del user.subscriptions[call.ids[0]]
            return Answer(204)
        made = _subscription(request.body)
        if isinstance(made, Answer):
            return made
        if call.ids:
            del user.subscriptions[call.ids[0]]
        user.subscriptions[made.collection] = made
        return json_answer(made.to_json())


def is_callback(url: object) -> bool:
    """Whether pings may go there: https as the API demands, and plain http on loopback, for this is a simulation."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost"))
    )


def _subscription(body: bytes) -> Subscription | Answer:
    form = _json_object(body)
    if form is None:
        return error_answer(400, "parseError", "Parse Error")
    collection, url, operation = form.get("collection"), form.get("callbackUrl"), form.get("operation") or []
    if not collection or not url:
        return error_answer(400, "required", "Required: collection and callbackUrl")
    if collection not in COLLECTIONS:
        return error_answer(400, "invalid", f"Invalid value for collection: expected one of {', '.join(COLLECTIONS)}")
    if not is_callback(url):
        return error_answer(400, "invalid", "Invalid value for callbackUrl: expected https")
    if not isinstance(operation, list) or any(one not in OPERATIONS for one in operation):
        return error_answer(400, "invalid", f"Invalid value for operation: expected some of {', '.join(OPERATIONS)}")
    tokens = form.get("userToken"), form.get("verifyToken")
    if not all(isinstance(token, str | None) for token in tokens):
        return error_answer(400, "invalid", "Invalid value for userToken or verifyToken: expected a string")
    return Subscription(collection, url, *tokens, operation=tuple(operation))


def _operation(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The operation and the ids in its path; ("", ()) where there is none such."""
    if not path.startswith(BASE):
        return "", ()
    segments = path.removeprefix(BASE).split("/")
    for name, (its_method, pattern) in _OPERATIONS.items():
        ids = tuple(_ids(pattern.split("/"), segments))
        if method == its_method and len(ids) == pattern.count("*") and _fits(pattern.split("/"), segments):
            return name, ids
    return "", ()


def _fits(pattern: list[str], segments: list[str]) -> bool:
    return len(pattern) == len(segments) and all(a in ("*", b) for a, b in zip(pattern, segments, strict=True))


def _ids(pattern: list[str], segments: list[str]) -> Iterator[str]:
    # Unquoted only after the split: an id may hold a quoted slash.
    return (unquote(segment) for part, segment in zip(pattern, segments, strict=False) if part == "*" and segment)


def _wanted(is_deleted: bool, fields: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    if is_deleted and query.get("includeDeleted") != "true":
        return False
    if query.get("pinnedOnly") == "true" and not fields.get("isPinned"):
        return False
    return all(fields.get(name) == query[name] for name in ("bundleId", "sourceItemId") if name in query)


def _form(request: Request) -> dict[str, str]:
    text = request.body.decode("latin-1")
    return {name: values[-1] for name, values in parse_qs(text).items()}


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        form = json.loads(body)
    except ValueError:
        return None
    return form if isinstance(form, dict) else None
