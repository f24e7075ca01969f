"""HMAC signatures: the body, or a text made of parts of the request, under a shared secret. Most senders do this."""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from glassq.sources.base import HookRequest, Proof
from glassq.sources.places import PlaceReader, PlaceValues, Spec, parse_spec
from glassq.sources.schemes.base import (
    SchemeConfig,
    UnusableKey,
    Verify,
    check_head_time,
    check_time,
    matching,
    unproven,
)
from glassq.sources.schemes.keys import KeyForm, decoded_keys
from glassq.sources.template import SignedTemplate, raw, required
from glassq.sources.times import Unit, unix_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Hash = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64"]
# The most signatures of one ping that are compared: nobody sends more than two or three while keys are rotated.
MAX_SIGNATURES = 16


class Hmac(msgspec.Struct, frozen=True):
    """The parameters of an HMAC signature.

    `signature` are the places where signatures are looked for (`glassq.sources.places`), `signed` is what is signed
    (`glassq.sources.template`). `prefix` stands before each signature. `list` is for a header that lists several by
    name: (separator, name of a signature), or (separator, name of the time, name of a signature). `named` are the
    hashes that the signature itself may name ("sha256=..."), in place of `hash` and `prefix`. `timestamp` and
    `event_id` are the places of the signed time and id.
    """

    signature: tuple[str, ...]
    signed: str = "{body}"
    hash: Hash = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    list: tuple[str, ...] = ()
    named: tuple[Hash, ...] = ()
    key: KeyForm = "text"
    timestamp: str = ""
    unit: Unit = "s"
    event_id: str = ""

    may: ClassVar[tuple[str, ...]] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The secrets, and our URL where that is signed."""
        return ("secrets_file", "url") if "{url}" in self.signed else ("secrets_file",)

    @property
    def signs_time(self) -> bool:
        """Whether the time is known that the sender signed."""
        return bool(self.timestamp) or len(self.list) == 3

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        keys = decoded_keys(given.secrets, self.key)
        try:
            template = SignedTemplate(self.signed, given.url)
        except ValueError as error:
            raise UnusableKey("signed", str(error)) from None
        for key, texts in (
            ("header", self.signature),
            ("timestamp", (self.timestamp,)),
            ("event_id", (self.event_id,)),
        ):
            try:
                specs = [parse_spec(text) for text in texts]
            except ValueError as error:
                raise UnusableKey(key, str(error)) from None
            if key == "header" and len(specs) == 1 and specs[0][0][0].kind == "header" and self._is_plain(template):
                return _of_body(self, specs[0][0][0].name, keys)
        return _Parts(self, keys, template, given.tolerance).verify

    def _is_plain(self, template: SignedTemplate) -> bool:
        return template.is_body and not (self.list or self.named or self.signs_time)


def encoder(encoding: Encoding) -> Callable[[bytes], bytes]:
    """How a digest is written."""
    return base64.b64encode if encoding == "base64" else _hex


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


def _of_body(scheme: Hmac, header: str, keys: Sequence[bytes]) -> Verify:
    """The quick way for most senders: one header signs the body."""
    encode, prefix = encoder(scheme.encoding), scheme.prefix.encode()
    # a copy of a keyed hash costs less than a new one; and for a small body it keeps the interpreter's lock, for which
    # the loop would have to wait again
    keyed = [hmac.new(key, None, scheme.hash) for key in keys]

    def verify(request: HookRequest) -> Proof:
        value = request.headers.get(header)
        if not value:
            raise unproven("no signature", f"The header {header} with the signature is not there.")
        macs = [each.copy() for each in keyed]
        for mac in macs:
            mac.update(request.body)
        return proof([prefix + encode(mac.digest()) for mac in macs], (raw(value),))

    return verify


def proof(expected: Sequence[bytes], given: Sequence[bytes], skew: float | None = None) -> Proof:
    """The proof, if one of the given signatures is one of the expected. Raises PingRefused."""
    place = matching(expected, given)
    if place is None:
        raise unproven("wrong signature", "The signature is not the one of this request under a secret known here.")
    return Proof(place, skew)


class _Parts:
    """Verifies a signature over a text made of parts."""

    def __init__(self, scheme: Hmac, keys: Sequence[bytes], template: SignedTemplate, tolerance: float | None) -> None:
        self._scheme = scheme
        self._template = template
        self._tolerance = tolerance
        self._signatures = [parse_spec(each) for each in scheme.signature]
        self._timestamp, self._event_id = parse_spec(scheme.timestamp), parse_spec(scheme.event_id)
        self._places = PlaceReader([*self._signatures, self._timestamp, self._event_id, *template.specs])
        # a copy of a keyed hash costs less than a new one
        self._keyed: dict[str, list[hmac.HMAC]] = {
            name: [hmac.new(key, None, name) for key in keys] for name in scheme.named or (scheme.hash,)
        }
        self._encode = encoder(scheme.encoding)
        self._prefix = scheme.prefix.encode()

    def verify(self, request: HookRequest) -> Proof:
        values = self._places.values(request)
        stamp, given = self._given(values)
        skew = None
        if self._scheme.signs_time:
            sent = unix_time(stamp, self._scheme.unit)
            if sent is None:
                raise unproven("malformed", "The signed time cannot be read.")
            skew = sent - request.now
            check_head_time(request, skew, self._tolerance)
        found = proof(self._expected(request, values, stamp, given), given, skew)
        if skew is not None:
            check_time(skew, self._tolerance)
        return found

    def _given(self, values: PlaceValues) -> tuple[str, Sequence[bytes]]:
        """The signed time as it was sent, and the signatures."""
        found = [value for spec in self._signatures if (value := _optional(values, spec))]
        if not found:
            raise unproven("no signature", "The signature is not there.")
        if not self._scheme.list:
            return required(values, self._timestamp) if self._timestamp else "", [raw(value) for value in found]
        separator, *names = self._scheme.list
        pairs = [pair.strip().partition("=") for value in found for pair in value.split(separator, 64)]
        signatures = [raw(value.strip()) for name, _, value in pairs if name == names[-1]][:MAX_SIGNATURES]
        if not signatures:
            raise unproven("no signature", "The header lists no signature that is known here.")
        if len(names) == 1:
            return required(values, self._timestamp) if self._timestamp else "", signatures
        stamps = [value.strip() for name, _, value in pairs if name == names[0]]
        if len(stamps) != 1:
            raise unproven("no signature", "The header lists no signed time, or several.")
        return stamps[0], signatures

    def _expected(self, request: HookRequest, values: PlaceValues, stamp: str, given: Sequence[bytes]) -> list[bytes]:
        """What the signature has to be under each key."""
        event_id = required(values, self._event_id) if self._event_id else ""
        prefix, name = self._prefix, str(self._scheme.hash)
        if self._scheme.named:
            name = given[0].partition(b"=")[0].decode("latin-1")
            prefix = f"{name}=".encode("latin-1")
        macs = [keyed.copy() for keyed in self._keyed.get(name, ())]
        if not macs:
            raise unproven("wrong signature", "The signature is by a method that is not taken here.")
        for piece in self._template.pieces(request, values, stamp, event_id):
            for mac in macs:
                mac.update(piece)
        return [prefix + self._encode(mac.digest()) for mac in macs]


def _optional(values: PlaceValues, spec: Spec) -> str | None:
    try:
        return values.text(spec)
    except ValueError:
        return None
