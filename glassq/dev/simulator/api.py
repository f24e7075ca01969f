"""The simulated Mirror API v1 and its OAuth token endpoint: the response to each request, without sockets."""

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
# Google's usual page sizes; the discovery document names neither default nor limit.
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
class ApiRequest:
    """One HTTP request. `path` is as sent, with its query; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=UTF-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A parsed request: the operation ("" if unknown), the ids in its path, and the user whose token it carries."""

    operation: str
    path: str
    ids: tuple[str, ...]
    query: Mapping[str, str]
    user: User | None


def json_response(form: Mapping[str, Any], status: int = 200) -> ApiResponse:
    """A response with `form` as JSON."""
    return ApiResponse(status, json.dumps(form).encode())


def error_response(status: int, reason: str, message: str) -> ApiResponse:
    """An error in the Mirror API's form, which googleapiclient's HttpError reads."""
    domain = "usageLimits" if reason.endswith(_USAGE_LIMITS) else "global"
    errors = [{"domain": domain, "reason": reason, "message": message}]
    return json_response({"error": {"code": status, "message": message, "errors": errors}}, status)


def oauth_error(status: int, error: str, description: str) -> ApiResponse:
    """An error in the token endpoint's form (RFC 6749, 5.2)."""
    return json_response({"error": error, "error_description": description}, status)


class Api:
    """Answers requests from a World. `origin` is the server's own address: http://HOST:PORT."""

    def __init__(self, world: World, client_id: str, client_secret: str, origin: str) -> None:
        self._world = world
        self._client = (client_id, client_secret)
        self._url = origin + BASE

    def understand(self, request: ApiRequest) -> ApiCall:
        """Parses the request and finds its user; changes nothing."""
        parts = urlsplit(request.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        if (request.method, path) == ("POST", TOKEN_PATH):
            user = self._world.by_refresh_token(_form(request).get("refresh_token", ""))
            return ApiCall("token", path, (), query, user)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user = self._world.by_access_token(token.strip()) if scheme.lower() == "bearer" else None
        operation, ids = _operation(request.method, parts.path)
        if operation == "timeline.attachments.get" and query.get("alt") == "media":
            operation = "timeline.attachments.get_media"
        return ApiCall(operation, path, ids, query, user)

    def answer(self, call: ApiCall, request: ApiRequest) -> ApiResponse:
        """Carries out the call and returns the response."""
        if call.operation == "token":
            return self._token(call, request)
        if not call.operation:
            return error_response(404, "notFound", "Not Found")
        if call.user is None:
            refusal = error_response(401, "authError", "Invalid Credentials")
            return ApiResponse(
                401, refusal.body, headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'}
            )
        with self._world.lock:
            if call.operation.startswith("subscriptions."):
                return self._subscriptions(call, call.user, request)
            return self._timeline(call, call.user, request)

    def _token(self, call: ApiCall, request: ApiRequest) -> ApiResponse:
        form = _form(request)
        if form.get("grant_type") != "refresh_token":
            return oauth_error(400, "unsupported_grant_type", "Invalid grant_type: expected refresh_token")
        if (form.get("client_id"), form.get("client_secret")) != self._client:
            return oauth_error(401, "invalid_client", "The OAuth client was not found.")
        if call.user is None or call.user.revoked:
            return oauth_error(400, "invalid_grant", "Token has been expired or revoked.")
        return json_response(
            {
                "access_token": self._world.new_access_token(call.user),
                "expires_in": int(self._world.token_lifetime),
                "token_type": "Bearer",
                "scope": SCOPE,
            }
        )

    def _timeline(self, call: ApiCall, user: User, request: ApiRequest) -> ApiResponse:
        if call.operation == "timeline.list":
            return self._page(call, user)
        if call.operation == "timeline.insert":
            fields = _json_object(request.body)
            if fields is None:
                return error_response(400, "parseError", "Parse Error")
            item = self._world.add_item(user, fields={k: v for k, v in fields.items() if k not in _READ_ONLY})
            return json_response(item.to_json(self._url))
        item_id = call.ids[0]
        if call.operation == "timeline.delete":
            done = self._world.delete_item(user, item_id, trace=True)
            return ApiResponse(204) if done else error_response(404, "notFound", "Not Found")
        found = user.items.get(item_id)
        if found is None:
            return error_response(404, "notFound", "Not Found")
        if call.operation == "timeline.get":
            return json_response(found.to_json(self._url))
        return self._attachments(call, user)

    def _page(self, call: ApiCall, user: User) -> ApiResponse:
        """One page of items, latest first. The page token is the number of items on the pages before it."""
        limit, start = call.query.get("maxResults", str(PAGE)), call.query.get("pageToken", "0")
        if not (limit.isdecimal() and int(limit) and start.isdecimal()):
            return error_response(400, "invalidParameter", "Invalid value for maxResults or pageToken")
        items = [item for item in user.items.values() if _wanted(item.is_deleted, item.fields, call.query)]
        items.sort(key=lambda item: item.updated if call.query.get("orderBy") == "writeTime" else item.created)
        end = int(start) + min(int(limit), MAX_PAGE)
        page = [item.to_json(self._url) for item in items[::-1][int(start) : end]]
        form: dict[str, Any] = {"kind": "mirror#timeline", "items": page}
        return json_response(form | {"nextPageToken": str(end)} if end < len(items) else form)

    def _attachments(self, call: ApiCall, user: User) -> ApiResponse:
        item = user.items[call.ids[0]]
        attachments = () if item.is_deleted else item.attachments
        url = f"{self._url}timeline/{item.id}/attachments"
        if call.operation == "timeline.attachments.list":
            return json_response({"kind": "mirror#attachmentsList", "items": [one.to_json(url) for one in attachments]})
        found = next((one for one in attachments if one.id == call.ids[1]), None)
        if found is None:
            return error_response(404, "notFound", "Not Found")
        if call.operation == "timeline.attachments.get":
            return json_response(found.to_json(url))
        if not found.is_ready:
            return error_response(404, "notFound", "The content of this attachment is still being processed")
        return ApiResponse(200, found.data, found.content_type)

    def _subscriptions(self, call: ApiCall, user: User, request: ApiRequest) -> ApiResponse:
        if call.operation == "subscriptions.list":
            every = [one.to_json() for one in user.subscriptions.values()]
            return json_response({"kind": "mirror#subscriptionsList", "items": every})
        if call.ids and call.ids[0] not in user.subscriptions:
            return error_response(404, "notFound", "Not Found")
        if call.operation == "subscriptions.delete":
            del user.subscriptions[call.ids[0]]
            return ApiResponse(204)
        made = _subscription(request.body)
        if isinstance(made, ApiResponse):
            return made
        if call.ids:
            del user.subscriptions[call.ids[0]]
        user.subscriptions[made.collection] = made
        return json_response(made.to_json())


def is_callback(url: object) -> bool:
    """Whether pings may go to this URL: https as the API demands, or plain http on loopback for the simulation."""
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


def _subscription(body: bytes) -> Subscription | ApiResponse:
    form = _json_object(body)
    if form is None:
        return error_response(400, "parseError", "Parse Error")
    collection, url, operation = form.get("collection"), form.get("callbackUrl"), form.get("operation") or []
    if not collection or not url:
        return error_response(400, "required", "Required: collection and callbackUrl")
    if collection not in COLLECTIONS:
        return error_response(400, "invalid", f"Invalid value for collection: expected one of {', '.join(COLLECTIONS)}")
    if not is_callback(url):
        return error_response(400, "invalid", "Invalid value for callbackUrl: expected https")
    if not isinstance(operation, list) or any(one not in OPERATIONS for one in operation):
        return error_response(400, "invalid", f"Invalid value for operation: expected some of {', '.join(OPERATIONS)}")
    tokens = form.get("userToken"), form.get("verifyToken")
    if not all(isinstance(token, str | None) for token in tokens):
        return error_response(400, "invalid", "Invalid value for userToken or verifyToken: expected a string")
    return Subscription(collection, url, *tokens, operation=tuple(operation))


def _operation(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The operation and the ids in its path; ("", ()) if the operation is unknown."""
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
    # Unquote only after the split: an id may hold a quoted slash.
    return (unquote(segment) for part, segment in zip(pattern, segments, strict=False) if part == "*" and segment)


def _wanted(is_deleted: bool, fields: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    if is_deleted and query.get("includeDeleted") != "true":
        return False
    if query.get("pinnedOnly") == "true" and not fields.get("isPinned"):
        return False
    return all(fields.get(name) == query[name] for name in ("bundleId", "sourceItemId") if name in query)


def _form(request: ApiRequest) -> dict[str, str]:
    text = request.body.decode("latin-1")
    return {name: values[-1] for name, values in parse_qs(text).items()}


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        form = json.loads(body)
    except ValueError:
        return None
    return form if isinstance(form, dict) else None
