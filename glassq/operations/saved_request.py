"""A request as somebody saved it: head and body, as nc, mitmproxy or a log show what went over the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass

from glassq.errors import InvalidRequest

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([A-Z]+) (\S+)(?: HTTP/[0-9.]+)?")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SavedRequest:
    """What a sender sent. Names of headers are in lower case; values of a repeated one are joined by ", ".

    `remarks` say what was not as it came, and how it was taken. `surplus` is what stands after the end of the body that
    Content-Length tells: the body has it all, if something has written it anew.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    remarks: tuple[str, ...] = ()
    surplus: bytes = b""


def parse(data: bytes, *, bare: bool = False) -> SavedRequest:
    """The request in the bytes of a file; its lines may end as an editor has left them. Raises InvalidRequest.

    With `bare` a file that does not begin with a request line is taken as the body of a POST.
    """
    text = data.removeprefix(_BOM).lstrip(b"\r\n")
    if bare and not _REQUEST_LINE.fullmatch(text.partition(b"\n")[0].decode("latin-1").strip()):
        return SavedRequest("POST", "/", {}, data)
    if not text:
        raise InvalidRequest("the file is empty: expected a request, its head and its body")
    end = _END_OF_HEAD.search(text)
    head, rest = (text[: end.start()], text[end.end() :]) if end else (text.rstrip(b"\r\n"), b"")
    lines = [line.removesuffix(b"\r").decode("latin-1") for line in head.split(b"\n")]
    remarks: list[str] = []
    method, target = _begin(lines, remarks)
    headers = _headers(lines)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return SavedRequest(method, target, headers, _unchunked(rest, remarks), tuple(remarks))
    body = _as_long_as_told(headers.get("content-length", ""), rest, remarks)
    return SavedRequest(method, target, headers, body, tuple(remarks), rest[len(body) :])


def _begin(lines: list[str], remarks: list[str]) -> tuple[str, str]:
    """Method and target; takes the request line out of the lines. Raises InvalidRequest."""
    if line := _REQUEST_LINE.fullmatch(lines[0].strip()):
        del lines[0]
        return line[1], line[2]
    if not _HEADER.fullmatch(lines[0]):
        bare = lines[0].lstrip()[:1] in ("{", "[", "<")
        why = "this is a body without its head" if bare else "line 1 is no request line"
        raise InvalidRequest(
            f'{why}: expected the whole request, such as "POST /hooks/github HTTP/1.1", its headers (the signature is '
            "in one of them), an empty line, and the body"
        )
    remarks.append("there is no request line: taken as a POST")
    return "POST", "/"


def _headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    last = ""
    for number, line in enumerate(lines, 2):
        if line[:1] in (" ", "\t") and last:
            found[last] += f" {line.strip()}"
            continue
        header = _HEADER.fullmatch(line)
        if header is None:
            raise InvalidRequest(f"line {number} is no header: expected NAME: VALUE, and an empty line before the body")
        last = header[1].lower()
        found[last] = f"{found[last]}, {header[2]}" if last in found else header[2]
    return found


def _as_long_as_told(told: str, rest: bytes, remarks: list[str]) -> bytes:
    """The body, by its Content-Length."""
    if not told.isdecimal():
        return rest
    length = int(told)
    if surplus := rest[length:]:
        what = "a line end" if surplus in (b"\n", b"\r\n") else f"{len(surplus)} bytes"
        remarks.append(f"{what} after the {length} bytes of Content-Length left out")
    elif len(rest) < length:
        remarks.append(f"the body has {len(rest)} bytes, and Content-Length says {length}: it was changed or cut")
    return rest[:length]


def _unchunked(rest: bytes, remarks: list[str]) -> bytes:
    """The body out of its chunks; as it is, where it was saved without them."""
    parts: list[bytes] = []
    left = rest
    while True:
        size, line_end, left = left.partition(b"\n")
        try:
            length = int(size.split(b";")[0].strip(), 16)
        except ValueError:
            return rest
        if not line_end or len(left) < length:
            return rest
        if not length:
            remarks.append("the body was put together from its chunks")
            return b"".join(parts)
        parts.append(left[:length])
        left = left[length:].removeprefix(b"\r\n").removeprefix(b"\n")
