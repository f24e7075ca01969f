"""The simulated Glass: the Mirror API v1, its token endpoint and its pings, on a port of this machine.

It replaces Google in `glassq demo`, `glassq dev` and the tests, with real HTTP, real pictures, real expiry, and faults
on demand.

    with SimulatedGlass() as glass:
        account = glass.add_user("ada")
        glass.subscribe("ada", "http://127.0.0.1:8080/hooks/mirror", verify_token="...")
        item = glass.share("ada", ["jpeg"])
        glass.fail_next("timeline.get", 429, "rateLimitExceeded", headers={"Retry-After": "1"})
        assert glass.ping("ada", item).acknowledged
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from glassq.dev.simulator import media
from glassq.dev.simulator.api import BASE, TOKEN_PATH, Api, is_callback
from glassq.dev.simulator.faults import HTML, Fault, Faults, Mode
from glassq.dev.simulator.ping import TIMEOUT, TRIES, PingResult, send_ping
from glassq.dev.simulator.server import GlassServer, LoggedRequest
from glassq.dev.simulator.world import COLLECTIONS, Attachment, Subscription, TimelineItem, User, World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["HTML", "Attachment", "LoggedRequest", "PingResult", "SimulatedGlass", "Subscription", "TimelineItem"]

# The log of requests is bounded, so that a simulation that runs for days does not grow without end.
MAX_REQUESTS = 100_000


class SimulatedGlass:
    """A simulated Google. `token_lifetime` is the life of access tokens in seconds; port 0 picks a free port."""

    def __init__(self, *, port: int = 0, token_lifetime: float = 3600.0) -> None:
        self.client_id = "simulated-glass.apps.googleusercontent.com"
        self.client_secret = "sim-" + secrets.token_urlsafe(16)
        self._port = port
        self._world = World(token_lifetime)
        self._faults = Faults()
        self._server: GlassServer | None = None
        self._stopping = threading.Event()
        self._requests: deque[LoggedRequest] = deque(maxlen=MAX_REQUESTS)
        self._pictures = iter(range(1, 1 << 62))

    def start(self) -> Self:
        """Starts serving. Raises OSError if the port is taken."""
        self._stopping.clear()
        self._server = GlassServer(self._port)
        # A restart uses the same port.
        self._port = self._server.server_port
        api = Api(self._world, self.client_id, self.client_secret, self.origin)
        self._server.start(api, self._faults, self._requests)
        return self

    def stop(self) -> None:
        """Ends every connection and every retry of a ping; users and items stay for another `start`."""
        self._stopping.set()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        """http://127.0.0.1:PORT; valid after `start`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def api_url(self) -> str:
        """The value for `[glass] api_url`."""
        return self.origin + BASE

    @property
    def token_url(self) -> str:
        """The value for `[glass] token_url`."""
        return self.origin + TOKEN_PATH

    @property
    def requests(self) -> list[LoggedRequest]:
        """The last MAX_REQUESTS requests served, oldest first."""
        return list(self._requests)

    # Users and what they do

    def add_user(self, name: str) -> dict[str, str]:
        """Gives the user's consent, the first or a new one; returns the authorized_user JSON for `glassq users add`."""
        return {
            "type": "authorized_user",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self._world.add_user(name).refresh_token,
        }

    def revoke(self, user: str) -> None:
        """Revokes the user's consent: invalid_grant from now on, and 401 for existing access tokens."""
        self._world.revoke(user)

    def expire_tokens(self, user: str) -> None:
        """Expires the user's access tokens early: they get 401 from now on."""
        self._world.expire_tokens(user)

    def share(
        self, user: str, kinds: Sequence[media.Kind | media.Media] = ("jpeg",), processing_for: float = 0.0
    ) -> TimelineItem:
        """Adds an item to the user's timeline, with one attachment for each of `kinds`: a kind to make, or ready media.

        For `processing_for` seconds the API answers isProcessingContent and serves no content.
        """
        made = [kind if isinstance(kind, media.Media) else media.make(kind, next(self._pictures)) for kind in kinds]
        return self._world.add_item(self._user(user), made, ready_at=time.monotonic() + processing_for)

    def delete_item(self, user: str, item_id: str, *, trace: bool = True) -> bool:
        """Deletes an item; False if there is none. The API then answers id and isDeleted, or 404 without `trace`."""
        return self._world.delete_item(self._user(user), item_id, trace=trace)

    def items(self, user: str) -> list[TimelineItem]:
        """The user's items, including deleted ones, oldest first."""
        with self._world.lock:
            return list(self._user(user).items.values())

    def _user(self, name: str) -> User:
        return self._world.users[name]

    # Faults

    def fail_next(
        self,
        where: str,
        status: int = 503,
        reason: str = "backendError",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        mode: Mode = "answer",
        seconds: float = 0.0,
        user: str | None = None,
        times: int = 1,
    ) -> None:
        """Makes the next `times` requests at `where` fail.

        `where` is a path prefix ("/mirror/v1/timeline/ID"; "/" matches every request), an operation, or a group of
        operations: "token", "timeline", "timeline.get", "timeline.attachments", "timeline.attachments.get" (metadata),
        "timeline.attachments.get_media", "subscriptions.insert" and so on. `user` narrows it to one user.

        mode "answer": `status` with Google's JSON error for `reason`, or with `body` instead; a redirect is status
        302 with a Location in `headers`. "cut off": half of the correct body, then the connection ends. "slow": the
        correct body spread over `seconds`. "hang up": the connection ends without a response.
        """
        data = body.encode() if isinstance(body, str) else body
        self._faults.add(Fault(where, status, reason, headers or {}, data, mode, seconds, user, times))

    def clear_faults(self) -> None:
        """Removes the faults that have not happened yet."""
        self._faults.clear()

    @property
    def waiting_faults(self) -> int:
        """The number of requests that will still fail."""
        return self._faults.waiting()

    # Pings

    def subscribe(
        self, user: str, callback_url: str, verify_token: str | None = None, collection: str = "timeline"
    ) -> Subscription:
        """Subscribes without a request, as `glassq subscribe` does through the API; the userToken is the user's name.

        Raises ValueError for an unknown collection or an unusable URL.
        """
        if collection not in COLLECTIONS or not is_callback(callback_url):
            raise ValueError(f"cannot subscribe {callback_url!r} to {collection!r}")
        made = Subscription(collection, callback_url, user, verify_token)
        with self._world.lock:
            self._user(user).subscriptions[collection] = made
        return made

    def subscription(self, user: str, collection: str = "timeline") -> Subscription:
        """The user's subscription. Raises LookupError if there is none."""
        with self._world.lock:
            return self._user(user).subscriptions[collection]

    def notification(
        self,
        user: str,
        item: TimelineItem | str,
        action: str = "SHARE",
        operation: str = "INSERT",
        *,
        omit: Sequence[str] = (),
        **override: object,
    ) -> dict[str, Any]:
        """The body of a ping as Mirror writes it. `override` replaces or adds keys, `omit` removes keys."""
        collection = str(override.get("collection", "timeline"))
        subscription = self.subscription(user, collection)
        form: dict[str, Any] = {
            "collection": collection,
            "itemId": item if isinstance(item, str) else item.id,
            "operation": operation,
            "userToken": subscription.user_token,
            "verifyToken": subscription.verify_token,
            "userActions": [{"type": action}],
        }
        form = {key: value for key, value in form.items() if value is not None} | override
        return {key: value for key, value in form.items() if key not in omit}

    def ping(
        self,
        user: str,
        item: TimelineItem | str,
        action: str = "SHARE",
        operation: str = "INSERT",
        *,
        omit: Sequence[str] = (),
        **override: object,
    ) -> PingResult:
        """Sends a ping to the user's subscription, and retries until it is acknowledged; see `notification`, `send`.

        `ping(..., verifyToken="wrong")` is a spoofed ping; the same call twice makes a duplicate.
        """
        form = self.notification(user, item, action, operation, omit=omit, **override)
        return self.send(self.subscription(user, form.get("collection", "timeline")).callback_url, form)

    def send(
        self,
        callback_url: str,
        form: Mapping[str, Any] | bytes,
        *,
        tries: int = TRIES,
        timeout: float = TIMEOUT,
        stop: threading.Event | None = None,
    ) -> PingResult:
        """POSTs `form` as JSON (bytes unchanged) until it is acknowledged, at most `tries` times.

        `timeout` limits each wait for the callback, in seconds. Setting `stop`, or the end of the simulation, ends the
        retries.
        """
        return send_ping(callback_url, form, stop or self._stopping, tries=tries, timeout=timeout)
