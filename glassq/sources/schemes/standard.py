"""Standard Webhooks: `id.timestamp.body`, by HMAC-SHA256 (v1) or ed25519 (v1a).

Source: https://github.com/standard-webhooks/standard-webhooks (spec and libraries). Svix and many of its users send the
same in headers of their own names.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, ClassVar

import msgspec

from glassq.sources.base import HookRequest, Proof
from glassq.sources.schemes.base import (
    SchemeConfig,
    UnusableKey,
    Verify,
    check_head_time,
    check_time,
    matching,
    unproven,
)
from glassq.sources.schemes.hmac import MAX_SIGNATURES
from glassq.sources.template import raw
from glassq.sources.times import unix_time
from glassq.standard_webhooks import PUBLIC, shared_key, unpadded_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


_NAMES = ("webhook", "svix")


class Standard(msgspec.Struct, frozen=True):
    """Standard Webhooks. Secrets are whsec_... (or the same without that) and whpk_..., one per line."""

    needs: ClassVar[tuple[str, ...]] = ("secrets_file",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = True

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        shared: dict[int, hmac.HMAC] = {}
        public: dict[int, Ed25519PublicKey] = {}
        for place, secret in enumerate(given.secrets):
            if secret.startswith(PUBLIC):
                public[place] = _public_key(secret.removeprefix(PUBLIC), place)
            else:
                shared[place] = hmac.new(_shared_key(secret, place), None, "sha256")
        return _Verifier(shared, public, given.tolerance).verify


def _shared_key(secret: str, place: int) -> bytes:
    try:
        return shared_key(secret)
    except ValueError as error:
        raise UnusableKey("secrets_file", f"has no key in secret {place + 1}: {error}") from None


def _public_key(text: str, place: int) -> Ed25519PublicKey:
    from glassq.sources.schemes import asymmetric

    try:
        return asymmetric.ed25519_key(unpadded_base64(text))
    except ValueError:
        expected = f"expected {PUBLIC} and base64 of 32 bytes"
        raise UnusableKey("secrets_file", f"has no public key in secret {place + 1}: {expected}") from None


class _Verifier:
    def __init__(
        self, shared: dict[int, hmac.HMAC], public: dict[int, Ed25519PublicKey], tolerance: float | None
    ) -> None:
        self._shared = shared
        self._public = public
        self._tolerance = tolerance

    def verify(self, request: HookRequest) -> Proof:
        event_id, stamp, signatures = _headers(request)
        sent = unix_time(stamp, "s")
        if sent is None:
            raise unproven("malformed", "The signed time cannot be read.")
        skew = sent - request.now
        check_head_time(request, skew, self._tolerance)
        head = raw(f"{event_id}.{stamp}.")
        found = self._by_shared(request, head, signatures)
        if found is None:
            found = self._by_public(request, head, signatures)
        if found is None:
            raise unproven("wrong signature", "No signature is that of this request under a secret known here.")
        check_time(skew, self._tolerance)
        return Proof(found, skew)

    def _by_shared(self, request: HookRequest, head: bytes, signatures: Sequence[tuple[str, str]]) -> int | None:
        """The place of the secret that matches."""
        given = [raw(value) for version, value in signatures if version == "v1"]
        if not (given and self._shared):
            return None
        expected = []
        for keyed in self._shared.values():
            mac = keyed.copy()
            mac.update(head)
            mac.update(request.body)
            expected.append(base64.b64encode(mac.digest()))
        place = matching(expected, given)
        return None if place is None else list(self._shared)[place]

    def _by_public(self, request: HookRequest, head: bytes, signatures: Sequence[tuple[str, str]]) -> int | None:
        """The place of the public key that matches."""
        given = [decoded for version, value in signatures if version == "v1a" and (decoded := _decoded(value))]
        if not (given and self._public):
            return None
        from glassq.sources.schemes import asymmetric

        parts = (head, request.body)
        matches = asymmetric.ed25519_matches
        found = [place for place, key in self._public.items() if any(matches(key, each, parts) for each in given)]
        return found[0] if found else None


def _decoded(signature: str) -> bytes:
    """The bytes, if the text is the one that base64 has for them: others would make one signature look like two."""
    try:
        found = base64.b64decode(signature, validate=True)
    except ValueError:
        return b""
    return found if base64.b64encode(found) == raw(signature) else b""


def _headers(request: HookRequest) -> tuple[str, str, list[tuple[str, str]]]:
    """The id, the time and the signatures, by version. Raises PingRefused."""
    headers = request.headers
    for name in _NAMES:
        if listed := headers.get(f"{name}-signature"):
            event_id, stamp = headers.get(f"{name}-id"), headers.get(f"{name}-timestamp")
            if not (event_id and stamp):
                break
            # a list is separated by one space; two headers of this name come to us with a comma between
            pairs = [each.partition(",") for each in listed.split(" ", MAX_SIGNATURES)]
            return event_id, stamp, [(version, value.rstrip(",")) for version, _, value in pairs][:MAX_SIGNATURES]
    raise unproven("no signature", "The headers webhook-id, webhook-timestamp and webhook-signature are not all there.")
