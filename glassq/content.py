"""Reads a ping's body as what its Content-Type says: text, JSON, a form.

The sender decides what it sends, so everything here is lenient. A body that cannot be read at all raises
UnreadableBody: no retry can help, so a handler that lets it pass buries the delivery with that reason.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from glassq.errors import UnreadableBody

if TYPE_CHECKING:
    from collections.abc import Iterator

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
# The field of a form in which GitHub, Gitea and Slack put their JSON.
PAYLOAD = "payload"

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([A-Za-z0-9._:-]{1,40})', re.IGNORECASE)
_decode = msgspec.json.Decoder().decode


# Nearly all pings have one of few types.
@lru_cache(maxsize=128)
def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case; "" if there is none."""
    return content_type.partition(";")[0].strip().lower()


def text(body: bytes, content_type: str) -> str:
    """The body in its charset, by default UTF-8; bytes that are no characters become U+FFFD."""
    named = _CHARSET.search(content_type)
    try:
        found = body.decode(named[1] if named else "utf-8", "replace")
    except (LookupError, UnicodeError):
        # not a charset, such as "hex", or one that Python does not know
        found = body.decode("utf-8", "replace")
    return found.removeprefix("\ufeff")


def json_value(body: bytes, content_type: str) -> Any:
    """The JSON in the body, or in the field `payload` of a form, whatever else the type says.

    Raises UnreadableBody.
    """
    if media_type(content_type) == FORM and body.lstrip()[:1] not in (b"{", b"["):
        found = form(body, content_type).get(PAYLOAD)
        if not found:
            raise UnreadableBody(f'the body is not JSON, but a form without a field "{PAYLOAD}"')
        return _json(found[0].encode("utf-8", "replace"))
    if _CHARSET.search(content_type):
        return _json(text(body, content_type).encode("utf-8", "replace"))
    return _json(body.removeprefix(BOM_UTF8))


def form(body: bytes, content_type: str) -> dict[str, list[str]]:
    """The fields of a form, with all values of each in order; files that were uploaded with it are left out.

    Raises UnreadableBody if the type is another one than a form's.
    """
    kind = media_type(content_type)
    if kind == MULTIPART:
        return _collected(_parts(body, content_type))
    if kind not in (FORM, ""):
        raise UnreadableBody(f"the body is not a form, but {kind[:100]}")
    named = _CHARSET.search(content_type)
    try:
        return parse_qs(body.decode("latin-1"), True, encoding=named[1] if named else "utf-8")
    except (LookupError, UnicodeError):
        return parse_qs(body.decode("latin-1"), True)


def _json(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        strict = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    try:
        # this reader takes NaN, lone surrogates and huge numbers, too
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UnreadableBody(f"the body is not JSON: {strict}") from None


def _parts(body: bytes, content_type: str) -> Iterator[tuple[str, str]]:
    # few senders need it, and it takes memory
    from email.parser import BytesParser

    head = b"Content-Type: %b\r\n\r\n" % content_type.encode("latin-1", "replace")
    for part in BytesParser().parsebytes(head + body).walk():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes) and part.get_filename() is None:
            yield name, text(payload, str(part.get("content-type", "")))


def _collected(pairs: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
