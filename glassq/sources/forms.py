"""Fields of a form: application/x-www-form-urlencoded, and the small fields of a multipart/form-data.

Strangers' forms are read before their proof, so what a form may cost is bounded, whatever its size.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from glassq.content import FORM, MULTIPART, media_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.sources.base import Body, HookRequest

# More fields than any sender has.
MAX_FIELDS = 1000
# The largest value that is read whole, in bytes.
MAX_VALUE = 1 << 20
_MAX_NAME = 1 << 10
_MAX_HEAD = 8 << 10
_CHUNK = 64 << 10
_QUOTED = bytes.maketrans(b"%+", b"= ")
_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(rb'(?i)content-disposition:[^\r\n]*?[; ]name="([^"\r\n]*)"')


class UnreadableForm(ValueError):
    """A form has too many fields, or a field that is too large."""


def is_form(request: HookRequest) -> bool:
    """Whether the request says that its body is a form of the simple sort."""
    return media_type(request.headers.get("content-type", "")) == FORM


def has_fields(request: HookRequest) -> bool:
    """Whether the request says that its body is a form of either sort."""
    return is_form(request) or _is_multipart(request)


def _is_multipart(request: HookRequest) -> bool:
    return media_type(request.headers.get("content-type", "")) == MULTIPART


def field(request: HookRequest, name: str) -> str | None:
    """The first value of the field; None if the form has none. Raises UnreadableForm."""
    found = next(field_chunks(request, name), None)
    if found is None:
        return None
    value = b"".join(found)
    return value.decode("utf-8", "replace")


def field_chunks(request: HookRequest, name: str, most: int = MAX_VALUE) -> Iterator[Iterator[bytes]]:
    """The values of the field, decoded, each in chunks. Raises UnreadableForm for one of more than `most` bytes."""
    if _is_multipart(request):
        parts = _parts(request.body, request.headers["content-type"])
        yield from (iter((value,)) for each, value in parts if each == name.encode())
        return
    body = request.body
    for start, equals, end in pairs(body):
        if equals - start <= _MAX_NAME and _decoded(body, start, equals) == name.encode():
            if end - equals > most:
                raise UnreadableForm(f"a field has more than {most} bytes")
            yield chunks(body, equals + 1, end)


def fields(body: Body) -> list[tuple[str, str]]:
    """Names and values of a whole form. Raises UnreadableForm, also for one of more than `MAX_VALUE` bytes."""
    if len(body) > MAX_VALUE:
        raise UnreadableForm(f"it has more than {MAX_VALUE} bytes")
    return [
        (
            _decoded(body, start, equals).decode("utf-8", "replace"),
            _decoded(body, equals + 1, end).decode("utf-8", "replace"),
        )
        for start, equals, end in pairs(body)
    ]


def pairs(body: Body) -> Iterator[tuple[int, int, int]]:
    """Where each field is: its start, its "=" and its end. Raises UnreadableForm for too many."""
    start, size = 0, len(body)
    for _ in range(MAX_FIELDS):
        end = body.find(b"&", start)
        end = size if end < 0 else end
        equals = body.find(b"=", start, end)
        if end > start:
            yield start, end if equals < 0 else equals, end
        start = end + 1
        if start >= size:
            return
    raise UnreadableForm(f"it has more than {MAX_FIELDS} fields")


def chunks(body: Body, start: int, end: int) -> Iterator[bytes]:
    """A value, decoded in chunks: decoding it at once takes many times its size."""
    while start < end:
        stop = min(start + _CHUNK, end)
        # an escape is not cut
        escape = body.find(b"%", max(start, stop - 2), stop)
        if escape >= 0 and escape > start and stop < end:
            stop = escape
        yield _decoded(body, start, stop)
        start = stop


def _decoded(body: Body, start: int, end: int) -> bytes:
    """A name or value, decoded. Quoted-printable is the same with "=" for "%", and is decoded thirty times faster."""
    text = body[start:end] if start < end else b""
    if b"%" not in text:
        return text.replace(b"+", b" ")
    return binascii.a2b_qp(text.replace(b"=", b"%3D").translate(_QUOTED))


def _parts(body: Body, content_type: str) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of a multipart's small fields; files are skipped."""
    boundary = _BOUNDARY.search(content_type)
    if not boundary:
        return
    line = b"--" + boundary[1].encode("latin-1", "replace")
    start = body.find(line)
    for _ in range(MAX_FIELDS):
        if start < 0:
            return
        end = body.find(b"\r\n" + line, start + len(line))
        head_end = body.find(b"\r\n\r\n", start, min(start + _MAX_HEAD, len(body)))
        if 0 <= head_end < end:
            name = _NAME.search(body[start:head_end])
            if name and end - head_end <= MAX_VALUE:
                yield name[1], body[head_end + 4 : end]
        start = end + 2 if end >= 0 else -1
    raise UnreadableForm(f"it has more than {MAX_FIELDS} fields")
