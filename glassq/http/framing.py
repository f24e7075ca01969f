"""Has a whole request arrived? Decided on the bytes so far, before anything parses them.

This bounds what a connection can hold up; it does not validate. A doubtful request counts as arrived, and is left to
gunicorn's parser and the app, which then read no body (`whole` is false).
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Maximum size of a request's head, in bytes. gunicorn's own limits (per line, per field) are below it.
MAX_HEAD = 32 << 10
# gunicorn's limit_request_line
MAX_LINE = 4094

_REQUEST_LINE = re.compile(rb"[A-Za-z]{1,20} [^\s]+ HTTP/\d\.\d\r?\Z")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*(\d{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
# HTTP/1.0 does not have it (RFC 9110, section 10.1.1).
_EXPECT = re.compile(rb"HTTP/1\.1\r\n(?:[^\n]*\n)*?expect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)


class Arrival(NamedTuple):
    """`arrived`: parse it now. `whole`: all of its body is here, so another request may follow on the connection.

    `refuse` is the HTTP status for bytes that can never become a request (0: none). `expects`: the client waits for
    "100 Continue" before it sends the body. `size` is that of the whole request, in bytes, once its head is here. A
    body of `large` bytes is too long to be waited for; then `head` is the size of the head.
    """

    arrived: bool = False
    whole: bool = False
    refuse: int = 0
    expects: bool = False
    size: int = 0
    head: int = 0
    large: int = 0


WAIT = Arrival()
HEAD_ONLY = Arrival(arrived=True)


def classify(data: bytes | bytearray, max_body: int) -> Arrival:
    """What has arrived in `data`, the bytes of a connection since its last request; `max_body` is in bytes."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return _incomplete_head(data)
    if end > MAX_HEAD:
        return Arrival(refuse=431)
    head = bytes(data[: end + 2])
    lowered = head.lower()
    if b"\r\ntransfer-encoding" in lowered:
        return HEAD_ONLY
    if b"\r\ncontent-length" not in lowered:
        # after one of these methods the next bytes may be an unannounced body instead of a request
        return HEAD_ONLY if head.startswith((b"POST ", b"PUT ", b"PATCH ")) else _whole(end + 4)
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or lowered.count(b"\r\ncontent-length") != 1:
        return HEAD_ONLY
    length = int(lengths[0])
    size = end + 4 + length
    if length > max_body:
        return Arrival(arrived=True, size=size, head=end + 4, large=length, expects=bool(_EXPECT.search(head)))
    if len(data) >= size:
        return _whole(size)
    return Arrival(size=size, expects=bool(_EXPECT.search(head)))


def _whole(size: int) -> Arrival:
    return Arrival(arrived=True, whole=True, size=size)


def _incomplete_head(data: bytes | bytearray) -> Arrival:
    """Refuses early what no further bytes can repair: TLS, garbage, HTTP/0.9, bare line feeds, endless heads."""
    line, newline, _ = bytes(data[: MAX_LINE + 2]).partition(b"\n")
    if not newline and len(line) > MAX_LINE:
        return Arrival(refuse=414)
    if len(data) > MAX_HEAD:
        return Arrival(refuse=431)
    if (newline and not _REQUEST_LINE.match(line)) or data.count(b"\n") != data.count(b"\r\n"):
        return Arrival(refuse=400)
    if data and not data[:1].isalpha() and data != b"\r":
        return Arrival(refuse=400)
    return WAIT
