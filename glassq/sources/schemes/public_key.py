"""Signatures under a private key that only the sender has; our secrets file holds the public one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from glassq.sources.base import HookRequest, Proof
from glassq.sources.places import PlaceReader, parse_spec
from glassq.sources.schemes.base import UnusableKey, check_head_time, check_time, unproven
from glassq.sources.schemes.encodings import from_base64
from glassq.sources.schemes.keys import decoded_keys
from glassq.sources.template import SignedTemplate, required
from glassq.sources.times import Unit, unix_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from glassq.sources.base import Body
    from glassq.sources.schemes.base import SchemeConfig, Verify

    Matches = Callable[[Any, bytes, Iterable[Body]], bool]

Algorithm = Literal["ed25519", "ecdsa"]


class PublicKey(msgspec.Struct, frozen=True):
    """The parameters of a signature by ed25519, or by ECDSA with P-256 and SHA-256.

    `signature` and `timestamp` are places (`glassq.sources.places`), `signed` is what is signed
    (`glassq.sources.template`). An ed25519 key has 32 bytes and is written in hex, an ECDSA key as base64 of its DER.
    """

    signature: str
    algorithm: Algorithm
    signed: str = "{timestamp}{body}"
    encoding: Literal["hex", "base64"] = "hex"
    timestamp: str = ""
    unit: Unit = "s"

    needs: ClassVar[tuple[str, ...]] = ("secrets_file",)
    may: ClassVar[tuple[str, ...]] = ()

    @property
    def signs_time(self) -> bool:
        """Whether the time is known that the sender signed."""
        return bool(self.timestamp)

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        from glassq.sources.schemes import asymmetric

        form: Literal["hex", "base64"] = "base64"
        load: Callable[[bytes], Any] = asymmetric.p256_key
        matches: Matches = asymmetric.ecdsa_matches
        if self.algorithm == "ed25519":
            form, load, matches = "hex", asymmetric.ed25519_key, asymmetric.ed25519_matches
        keys = []
        for number, raw in enumerate(decoded_keys(given.secrets, form), 1):
            try:
                keys.append(load(raw))
            except ValueError:
                expected = f"expected the {self.algorithm} public key that the sender shows, in {form}"
                raise UnusableKey("secrets_file", f"has no such key in secret {number}: {expected}") from None
        return _Verifier(self, keys, matches, SignedTemplate(self.signed, given.url), given.tolerance).verify


class _Verifier:
    def __init__(
        self,
        scheme: PublicKey,
        keys: Sequence[Any],
        matches: Matches,
        template: SignedTemplate,
        tolerance: float | None,
    ) -> None:
        self._scheme = scheme
        self._keys = keys
        self._matches = matches
        self._template = template
        self._tolerance = tolerance
        self._signature, self._timestamp = parse_spec(scheme.signature), parse_spec(scheme.timestamp)
        self._places = PlaceReader([self._signature, self._timestamp, *template.specs])
        self._decode = from_base64 if scheme.encoding == "base64" else bytes.fromhex

    def verify(self, request: HookRequest) -> Proof:
        look = self._places.values(request)
        text = required(look, self._signature)
        if not text:
            raise unproven("no signature", "The signature is empty.")
        stamp = required(look, self._timestamp) if self._timestamp else ""
        try:
            signature = self._decode(text)
        except ValueError:
            raise unproven("wrong signature", f"The signature is not {self._scheme.encoding}.") from None
        sent = unix_time(stamp, self._scheme.unit) if stamp else None
        if sent is not None:
            check_head_time(request, sent - request.now, self._tolerance)
        signed = list(self._template.pieces(request, look, stamp))
        # public keys hold no secret, so the time of this may reveal which one matches
        place = next((place for place, key in enumerate(self._keys) if self._matches(key, signature, signed)), None)
        if place is None:
            raise unproven("wrong signature", "The signature is not the one of this request under a key known here.")
        if not stamp:
            return Proof(place)
        if sent is None:
            raise unproven("malformed", "The signed time cannot be read.")
        check_time(sent - request.now, self._tolerance)
        return Proof(place, sent - request.now)
