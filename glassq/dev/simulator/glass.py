"""The simulated Glass: the Mirror API v1, its token endpoint and its pings, on a port of this machine.

It stands where Google stood, for `glassq demo`, `glassq dev` and the tests: real HTTP, real pictures, real expiry, and
faults on demand.

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
from glassq.dev.simulator.server import GlassServer, Logged
from glassq.dev.simulator.world import COLLECTIONS, Attachment, Item, Subscription, User, World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["HTML", "Attachment", "Item", "Logged", "PingResult", "SimulatedGlass", "Subscription"]

# The log is for looking back at: a simulation that runs for days must not grow without end.
MAX_REQUESTS = 100_000


class SimulatedGlass:
    """A Google of one's own. `token_lifetime` is how long access tokens live, in seconds; port 0 takes a free one."""

    def __init__(self, *, port: int = 0, token_lifetime: float = 3600.0) -> None:
        self.client_id = "simulated-glass.apps.googleusercontent.com"
        self.client_secret = "sim-" + secrets.token_urlsafe(16)
        self._port = port
        self._world = World(token_lifetime)
        self._faults = Faults()
        self._server: GlassServer | None = None
        self._stopping = threading.Event()
        self._requests: deque[Logged] = deque(maxlen=MAX_REQUESTS)
        self._pictures = iter(range(1, 1 << 62))

    def start(self) -> Self:
        """Begins to serve. Raises OSError where the port is taken."""
        self._stopping.clear()
        self._server = GlassServer(self._port)
        # A restart comes back at the same place.
        self._port = self._server.server_port
        api = Api(self._world, self.client_id, self.client_secret, self.origin)
        self._server.start(api, self._faults, self._requests)
        return self

    def stop(self) -> None:
        """Ends every connection and every resending; users and items stay for another `start`."""
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
        """http://127.0.0.1:PORT, known from `start` on."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def api_url(self) -> str:
        """What `[glass] api_url` is set to."""
        return self.origin + BASE

    @property
    def token_url(self) -> str:
        """What `[glass] token_url` is set to."""
        return self.origin + TOKEN_PATH

    @property
    def requests(self) -> list[Logged]:
        """The requests served, oldest first: the last MAX_REQUESTS of them."""
        return list(self._requests)

    # Users and what they do

    def add_user(self, name: str) -> dict[str, str]:
        """A user consents, for the first time or afresh: the authorized_user JSON for `glassq users add`."""
        return {
            "type": "authorized_user",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self._world.add_user(name).refresh_token,
        }

    def revoke(self, user: str) -> None:
        """The user takes the consent back: invalid_grant from now on, and 401 for tokens already out."""
        self._world.revoke(user)

    def expire_tokens(self, user: str) -> None:
        """The user's access tokens are stale from now on (401), whatever their holders believe."""
        self._world.expire_tokens(user)

    def share(
        self, user: str, kinds: Sequence[media.Kind | media.Media] = ("jpeg",), processing_for: float = 0.0
    ) -> Item:
        """A new item on the user's timeline with one attachment each of `kinds`: made to order, or given as it is.

        For `processing_for` seconds the API says isProcessingContent and has no content.
        """
        made = [kind if isinstance(kind, media.Media) else media.make(kind, next(self._pictures)) for kind in kinds]
        return self._world.add_item(self._user(user), made, ready_at=time.monotonic() + processing_for)

    def delete_item(self, user: str, item_id: str, *, trace: bool = True) -> bool:
        """Deletes an item: with `trace` the API answers its id and isDeleted, without it 404. False if not there."""
        return self._world.delete_item(self._user(user), item_id, trace=trace)

    def items(self, user: str) -> list[Item]:
        """The user's items, deleted ones too, in the order of their making."""
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
        """Lets the next `times` requests at `where` go wrong.

        `where` is the beginning of a path ("/mirror/v1/timeline/ID"; "/" is every request) or an operation or its
        group: "token", "timeline", "timeline.get", "timeline.attachments", "timeline.attachments.get" (metadata),
        "timeline.attachments.get_media", "subscriptions.insert" and so on. `user` narrows it to one user.

        mode "answer": `status` with Google's JSON error for `reason`, or with `body` instead; a redirect is status
        302 with a Location in `headers`. "cut off": half of the right body, then the connection ends. "slow": the
        right body spread over `seconds`. "hang up": the connection ends without an answer.
        """
        data = body.encode() if isinstance(body, str) else body
        self._faults.add(Fault(where, status, reason, headers or {}, data, mode, seconds, user, times))

    def clear_faults(self) -> None:
        """Forgets the faults that have not happened yet."""
        self._faults.clear()

    @property
    def waiting_faults(self) -> int:
        """How many requests are still to go wrong."""
        return self._faults.waiting()

    # Pings

    def subscribe(
        self, user: str, callback_url: str, verify_token: str | None = None, collection: str = "timeline"
    ) -> Subscription:
        """What `glassq subscribe` does through the API, done directly; the user's name is the userToken."""
        if collection not in COLLECTIONS or not is_callback(callback_url):
            raise ValueError(f"cannot subscribe {callback_url!r} to {collection!r}")
        made = Subscription(collection, callback_url, user, verify_token)
        with self._world.lock:
            self._user(user).subscriptions[collection] = made
        return made

    def subscription(self, user: str, collection: str = "timeline") -> Subscription:
        """The user's subscription. Raises LookupError where there is none."""
        with self._world.lock:
            return self._user(user).subscriptions[collection]

    def notification(
        self,
        user: str,
        item: Item | str,
        action: str = "SHARE",
        operation: str = "INSERT",
        *,
        omit: Sequence[str] = (),
        **override: object,
    ) -> dict[str, Any]:
        """A ping's body as Mirror writes it. `override` replaces keys or adds some, `omit` leaves some out."""
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
        item: Item | str,
        action: str = "SHARE",
        operation: str = "INSERT",
        *,
        omit: Sequence[str] = (),
        **override: object,
    ) -> PingResult:
        """Sends a ping to the user's subscription, again where it isn't acknowledged; see `notification`, `send`.

        A spoofed one is `ping(..., verifyToken="wrong")`, a duplicate one the same ping once more.
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
        """POSTs `form` as JSON (bytes: as they are) until it is acknowledged, `tries` times at most.

        Each wait for the other side is at most `timeout` seconds. `stop`, or else the end of the simulation, ends the
        resending.
        """
        return send_ping(callback_url, form, stop or self._stopping, tries=tries, timeout=timeout)
