"""The Glass Mirror API: one JSON ping for each event, authenticated by the verifyToken of its subscription.

Sources: https://developers.google.com/glass/develop/mirror/subscriptions (as archived), and captured pings: SHARE comes
as INSERT though documented as UPDATE, verifyToken and userActions may be null, new fields and action types appear. So
the ping's structure is checked, but not which words it uses.
"""

from __future__ import annotations

import hmac
from typing import Any

from glassq.errors import PingRefused
from glassq.sources import strictjson

NAME = "mirror"
# Maximum length of the fields that are checked, in characters. Other fields are not checked.
MAX_TEXT = 512


class MirrorSource:
    """The source "mirror"."""

    name = NAME

    def __init__(self, verify_tokens: list[str]) -> None:
        """`verify_tokens` are all current ones: several while they are rotated."""
        self._tokens = [token.encode() for token in verify_tokens]

    def check(self, body: bytes) -> dict[str, str]:
        """The labels collection and operation of an accepted ping.

        Raises PingRefused: first 400 for a body that is not a JSON object, then 403 for a token that is missing, not a
        string, or wrong (one answer for all: a sender without the token learns nothing), then 400 for wrong fields.
        """
        try:
            ping = strictjson.loads(body)
        except ValueError as error:
            raise _malformed(f"The body must be one JSON object in UTF-8: {error}.") from None
        if not isinstance(ping, dict):
            raise _malformed("The body must be one JSON object.")
        if not self._genuine(ping.get("verifyToken")):
            raise PingRefused(403, "Forbidden", "The verifyToken is not one of this subscription's.")
        return _labels(ping)

    def _genuine(self, token: object) -> bool:
        text = token if isinstance(token, str) else ""
        if not text.isprintable():
            # if the token file had a byte order mark when the subscription was made, its pings have it, too
            text = "".join(filter(str.isprintable, text))
        given = text.encode()
        # compare with every token, also after a match, so that the time reveals nothing
        matches = [hmac.compare_digest(given, known) for known in self._tokens]
        return any(matches)


# The old name, for programs that use it; to be removed after one release.
Mirror = MirrorSource


def _labels(ping: dict[str, Any]) -> dict[str, str]:
    for name in ("collection", "itemId", "operation"):
        if not _is_text(ping.get(name)):
            raise _malformed(f"{name} must be a string of 1 to {MAX_TEXT} printable characters.")
    # a subscription may have been made without one; the handler decides what to do then
    if ping.get("userToken") is not None and not _is_text(ping["userToken"]):
        raise _malformed(f"userToken must be absent, null, or a string of 1 to {MAX_TEXT} printable characters.")
    actions = ping.get("userActions")
    if actions is not None and not (isinstance(actions, list) and all(isinstance(item, dict) for item in actions)):
        raise _malformed("userActions must be absent, null, or an array of objects.")
    return {"collection": ping["collection"], "operation": ping["operation"]}


def _malformed(detail: str) -> PingRefused:
    return PingRefused(400, "Malformed ping", detail)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()
