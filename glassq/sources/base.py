"""What a source sees of a request, what it answers, and what every source can do.

All of it is values, so that a source is tried without a server: a saved request in, a proof or a refusal out.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Protocol

import msgspec

from glassq.errors import GlassqError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A body in memory, or a large one on disk. Never copied or joined: a hash takes it as it is.
Body = bytes | mmap.mmap


class HookRequest(msgspec.Struct, frozen=True):
    """A request to `/hooks/<name>`.

    `target` is the raw path and query as received, `peer` the client's address, `now` the time of arrival (Unix time).
    Names of `headers` are in lower case; the values of a repeated header are joined by ", ".
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Body
    peer: str
    now: float


class BodyAwaited(GlassqError):
    """The body of a request was asked for whose head alone is here."""


class HeadRequest(HookRequest, frozen=True):
    """A request without its body: who needs that, gets BodyAwaited. What is refused before, is so whatever the body."""

    @property  # type: ignore[misc]
    def body(self) -> Body:
        """Raises BodyAwaited."""
        raise BodyAwaited


class Reply(msgspec.Struct, frozen=True):
    """An answer of a source's own: to a challenge, or to a ping that it accepts.

    Without `content_type` the answer has no such header. `kept`: the request is an ordinary ping, too: it is kept, and
    then answered by this in place of `accept`.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    kept: bool = False


class Proof(msgspec.Struct, frozen=True):
    """How a ping was found genuine.

    `secret` is the place of the line of the secrets file that matched, from 0, over all current secrets. `skew` is the
    sender's signed time minus the time of arrival, in seconds; None where the sender signs none.
    """

    secret: int = 0
    skew: float | None = None


class Description(msgspec.Struct, frozen=True):
    """What a delivery keeps of a request beside its body.

    `labels` have 1 to 512 printable characters each. `headers` are those that the kind and `keep` name, in lower case,
    at most 32 and 4 KiB, and never a signature, a token or a cookie. `unread` are labels that could not be read.
    """

    labels: dict[str, str]
    headers: dict[str, str]
    content_type: str
    unread: tuple[str, ...] = ()


class Source(Protocol):
    """A sender of pings, as a section [sources.NAME] names it. Its methods may be called by several threads at once."""

    @property
    def name(self) -> str:
        """The name in `/hooks/<name>`, in a delivery's `source`, and in routes."""

    @property
    def kind(self) -> str:
        """The preset, or "hmac", "token", "none", "custom"."""

    @property
    def max_body(self) -> int:
        """The largest body, in bytes."""

    @property
    def tube(self) -> str:
        """The tube of its deliveries; "" for the pool's."""

    @property
    def secrets(self) -> int:
        """How many current secrets it has; `Proof.secret` is below."""

    @property
    def methods(self) -> frozenset[str]:
        """The methods that it takes; others get 405."""

    @property
    def accept(self) -> Reply:
        """The answer to a ping that is kept."""

    def admit(self, request: HookRequest) -> None:
        """Checks what needs no proof and no body: token in the path (404), address (403), content type (415).

        Raises PingRefused.
        """

    def challenge(self, request: HookRequest) -> Reply | None:
        """The answer to a challenge that nobody signs; None: it is none. Raises PingRefused."""

    def verify(self, request: HookRequest) -> Proof:
        """The proof that the ping is genuine.

        Raises PingRefused, with its reason, and SourceUnready where a certificate or key is not here yet.
        """

    def reply(self, request: HookRequest) -> Reply | None:
        """The answer to a challenge that is proven to be genuine; None: it is an ordinary ping, to be kept."""

    def describe(self, request: HookRequest) -> Description:
        """What its delivery keeps. Raises nothing: what cannot be read is left out."""
