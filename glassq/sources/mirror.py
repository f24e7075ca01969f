"""The Glass Mirror API: one JSON ping for each event, authenticated by the verifyToken of its subscription.

Sources: https://developers.google.com/glass/develop/mirror/subscriptions (as archived), and captured pings: SHARE comes
as INSERT though documented as UPDATE, verifyToken and userActions may be null, new fields and action types appear. So
the ping's structure is checked, but not which words it uses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from glassq.errors import PingRefused
from glassq.sources import strictjson
from glassq.sources.base import Proof
from glassq.sources.schemes.base import SchemeConfig, Verify, matching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.sources.base import Body, HookRequest

# Maximum length of the fields that are checked, in characters. Other fields are not checked.
MAX_TEXT = 512
_JSON = re.compile(r"application/json\s*(?:;\s*charset\s*=\s*(\"?)([\w.-]+)\1\s*)?", re.ASCII | re.IGNORECASE)


class MirrorSource:
    """Verifies pings of the Mirror API."""

    def __init__(self, verify_tokens: Sequence[str]) -> None:
        """`verify_tokens` are all current ones: several while they are rotated."""
        self._tokens = [token.encode() for token in verify_tokens]

    def check(self, body: Body) -> dict[str, str]:
        """The labels collection and operation of an accepted ping. Raises PingRefused like `verify`."""
        ping, _ = self._checked(body)
        return {"collection": ping["collection"], "operation": ping["operation"]}

    def verify(self, request: HookRequest) -> Proof:
        """The token that a ping carries.

        Raises PingRefused: first 400 for a body that is not a JSON object, then 403 for a token that is missing, not a
        string, or wrong (one answer for all: a sender without the token learns nothing), then 400 for wrong fields.
        """
        return self._checked(request.body)[1]

    def _checked(self, body: Body) -> tuple[dict[str, Any], Proof]:
        try:
            ping = strictjson.loads(bytes(body))
        except ValueError as error:
            raise _malformed(f"The body must be one JSON object in UTF-8: {error}.") from None
        if not isinstance(ping, dict):
            raise _malformed("The body must be one JSON object.")
        proof = self._proof(ping.get("verifyToken"))
        _check_fields(ping)
        return ping, proof

    def _proof(self, token: object) -> Proof:
        text = token if isinstance(token, str) else ""
        if not text.isprintable():
            # if the token file had a byte order mark when the subscription was made, its pings have it, too
            text = "".join(filter(str.isprintable, text))
        # compared with every token, also after a match, so that the time reveals nothing
        place = matching(self._tokens, (text.encode(),))
        if place is None:
            reason = "wrong token" if text else "no token"
            raise PingRefused(403, "Forbidden", "The verifyToken is not one of this subscription's.", reason)
        return Proof(place)


class VerifyToken(msgspec.Struct, frozen=True):
    """The scheme of the Mirror API. Its secrets are in a file of their own name."""

    needs: ClassVar[tuple[str, ...]] = ("verify_tokens_file",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping."""
        return MirrorSource(given.secrets).verify


# The old name, for programs that use it; to be removed after one release.
Mirror = MirrorSource


# Nearly all pings have one of few types. Who is refused is not remembered.
@lru_cache(maxsize=16)
def check_content_type(content_type: str | None) -> None:
    """Raises PingRefused unless the type is JSON. It may be missing: the body itself is checked strictly."""
    if content_type is None:
        return
    match = _JSON.fullmatch(content_type.strip())
    if not match:
        raise PingRefused(415, "Unsupported media type", "Send the body as application/json.", "content type")
    if (match[2] or "utf-8").lower() not in ("utf-8", "utf8"):
        raise _malformed("The charset must be UTF-8.")


def _check_fields(ping: dict[str, Any]) -> None:
    for name in ("collection", "itemId", "operation"):
        if not _is_text(ping.get(name)):
            raise _malformed(f"{name} must be a string of 1 to {MAX_TEXT} printable characters.")
    # a subscription may have been made without one; the handler decides what to do then
    if ping.get("userToken") is not None and not _is_text(ping["userToken"]):
        raise _malformed(f"userToken must be absent, null, or a string of 1 to {MAX_TEXT} printable characters.")
    actions = ping.get("userActions")
    if actions is not None and not (isinstance(actions, list) and all(isinstance(item, dict) for item in actions)):
        raise _malformed("userActions must be absent, null, or an array of objects.")


def _malformed(detail: str) -> PingRefused:
    return PingRefused(400, "Malformed ping", detail, "malformed")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()
