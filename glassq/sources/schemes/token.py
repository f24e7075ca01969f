"""A token that the sender shows: in a header, in the URL, or in the body. It proves the sender, not the body."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, ClassVar

import msgspec

from glassq.sources.base import HookRequest, Proof
from glassq.sources.places import PlaceReader, parse_spec
from glassq.sources.schemes.base import SchemeConfig, UnusableKey, Verify, matching, unproven
from glassq.sources.template import raw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EXPECTED = 'expected "basic", "bearer", or a place such as "header:X-Token", "query:token" or "json:token"'


class ShownToken(msgspec.Struct, frozen=True):
    """A token. `place` is "basic" or "bearer" (RFC 7617, RFC 6750), or a place (`glassq.sources.places`).

    With "basic" a secret is USER:PASSWORD, or the password alone if the section has `username`.
    """

    place: str

    needs: ClassVar[tuple[str, ...]] = ("secrets_file",)
    signs_time: ClassVar[bool] = False

    @property
    def may(self) -> tuple[str, ...]:
        """The user's name, where there is one."""
        return ("username",) if "basic" in self.place else ()

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        if self.place == "basic" and given.section.username is None and any(":" not in each for each in given.secrets):
            raise UnusableKey("secrets_file", "has a line without a colon: expected USER:PASSWORD, or the key username")
        readers = [_reader(each, given) for each in self.place.split(" | ")]

        def verify(request: HookRequest) -> Proof:
            for read, tokens in readers:
                shown = read(request)
                if shown:
                    return token_proof(tokens, shown)
            raise unproven("no token", "The token is not there.")

        return verify


def token_proof(tokens: Sequence[bytes], shown: bytes) -> Proof:
    """The proof, if the token is one of ours. Raises PingRefused."""
    place = matching(tokens, (shown,))
    if place is None:
        raise unproven("wrong token", "The token is not one that is known here.")
    return Proof(place)


def _reader(place: str, given: SchemeConfig) -> tuple[Callable[[HookRequest], bytes | None], list[bytes]]:
    """How the token is read, and what it may be."""
    if place == "basic":
        return _authorization("basic"), _basic_tokens(given)
    tokens = [secret.encode() for secret in given.secrets]
    if place == "bearer":
        return _authorization("bearer"), tokens
    try:
        spec = parse_spec(place)
    except ValueError:
        raise UnusableKey("token", _EXPECTED) from None
    places = PlaceReader([spec])

    def read(request: HookRequest) -> bytes | None:
        try:
            found = places.values(request).text(spec)
        except ValueError:
            return None
        if not found:
            return None
        return raw(found) if spec[0][0].kind == "header" else found.encode("utf-8", "replace")

    return read, tokens


def _basic_tokens(given: SchemeConfig) -> list[bytes]:
    username = given.section.username
    pairs = given.secrets if username is None else [f"{username}:{secret}" for secret in given.secrets]
    return [base64.b64encode(pair.encode()) for pair in pairs]


def _authorization(scheme: str) -> Callable[[HookRequest], bytes | None]:
    def read(request: HookRequest) -> bytes | None:
        name, _, value = request.headers.get("authorization", "").partition(" ")
        return raw(value.strip()) if name.lower() == scheme else None

    return read


class ClientState(msgspec.Struct, frozen=True):
    """Microsoft Graph: each item of `value` shows the `clientState` that its subscription was made with.

    Source: https://learn.microsoft.com/graph/change-notifications-delivery-webhooks.
    """

    needs: ClassVar[tuple[str, ...]] = ("secrets_file",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping."""
        tokens = [secret.encode() for secret in given.secrets]

        def verify(request: HookRequest) -> Proof:
            try:
                items = _decode_items(request.body).value
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise unproven("malformed", "The body is no JSON object with items in value.") from None
            if not items:
                raise unproven("no token", "There is no item with a clientState.")
            # the first that is wrong ends it: which one that is, is no secret
            proofs = [token_proof(tokens, _shown(item)) for item in items]
            return proofs[0]

        return verify


class _Item(msgspec.Struct):
    clientState: str | None = None  # noqa: N815 (Graph's name)


class _Items(msgspec.Struct):
    value: list[_Item]


def _shown(item: _Item) -> bytes:
    if item.clientState is None:
        raise unproven("no token", "An item has no clientState.")
    return item.clientState.encode("utf-8", "replace")


_decode_items = msgspec.json.Decoder(_Items).decode


class Unsigned(msgspec.Struct, frozen=True):
    """No proof but the path or the address (`path_token_file`, `allow`)."""

    needs: ClassVar[tuple[str, ...]] = ()
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that takes every ping: `admit` has checked it."""
        return lambda request: Proof()
