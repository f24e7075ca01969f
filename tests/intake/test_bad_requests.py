"""Rows 1 to 38 of the table of bad inputs: requests that are no good HTTP, or none that we take."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.test_framing import REQUESTS
from tests.intake.conftest import assert_clean
from tests.intake.rows import Row, hold, table
from tests.intake.wire import MARKER, body, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.intake.conftest import Web

CHUNKED = "Transfer-Encoding: chunked"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body()), body())
# A second request inside what a careless parser takes for a body, or for the next request.
SMUGGLED = request(line="POST /hooks/mirror HTTP/1.1")


def chunked(payload: bytes, *headers: str, line: str = "POST /hooks/mirror HTTP/1.1") -> bytes:
    return request(payload, CHUNKED, *headers, line=line, length=...)


def ping(*headers: str, line: str | bytes = "POST /hooks/mirror HTTP/1.1") -> bytes:
    return request(None, *headers, line=line)


def mended(old: bytes, new: bytes, data: bytes | None = None) -> bytes:
    """A good ping with some of its bytes replaced."""
    return (data or ping()).replace(old, new, 1)


FRAMING = table(
    Row("1 length and chunked", chunked(ONE_CHUNK, "Content-Length: 5"), (400,), closes=True),
    Row("1 chunked and length, another request inside", request(b"0\r\n\r\n" + SMUGGLED, CHUNKED), (400,), closes=True),
    Row("2 two equal lengths", ping(f"Content-Length: {len(body())}"), (400,), closes=True),
    Row("2 two different lengths", ping("Content-Length: 2"), (400,), closes=True),
    Row("2 a list of lengths", request(length=f"{len(body())}, {len(body())}"), (400,), closes=True),
    Row("3 length with a plus", request(length="+2"), (400,), closes=True),
    Row("3 length below zero", request(length="-1"), (400,), closes=True),
    Row("3 length in hex", request(length="0x2"), (400,), closes=True),
    Row("3 length empty", request(length=""), (400,), closes=True),
    Row("3 length with underscore", request(length="2_0"), (400,), closes=True),
    Row("3 length of 31 digits", request(length=10**30), (400, 413), closes=True),
    Row("3 length of 5000 digits", request(length="9" * 5000), (400, 413, 431), closes=True),
    Row("3 length in superscript", ping().replace(b"Length: ", b"Length: \xb2"), (400,), closes=True),
    Row("4 unknown coding", request(None, "Transfer-Encoding: xchunked", length=...), (400,), closes=True),
    Row(
        "4 chunked not last",
        request(ONE_CHUNK, "Transfer-Encoding: chunked, identity", length=...),
        (400,),
        closes=True,
    ),
    Row("4 space before the colon", request(ONE_CHUNK, "Transfer-Encoding : chunked", length=...), (400,), closes=True),
    Row("5 gzip, chunked", request(ONE_CHUNK, "Transfer-Encoding: gzip, chunked", length=...), (400,), closes=True),
    Row("6 chunked", chunked(ONE_CHUNK), (411,), closes=True),
    Row("7 chunk size in 0x", chunked(b"0x2\r\nab\r\n0\r\n\r\n"), (400, 411), closes=True),
    Row("7 chunk size below zero", chunked(b"-1\r\nab\r\n0\r\n\r\n"), (400, 411), closes=True),
    Row("7 chunk size no number", chunked(b"ZZ\r\nab\r\n0\r\n\r\n"), (400, 411), closes=True),
    Row("7 chunk without its end", chunked(b"2\r\nab0\r\n\r\n"), (400, 411), closes=True),
    Row("7 chunk with line feeds only", chunked(b"2\nab\n0\n\n"), (400, 411), closes=True),
    Row("7 chunk that never comes", chunked(b""), (400, 411), closes=True),
    Row("8 length as a trailer", chunked(b"2\r\nab\r\n0\r\nContent-Length: 5\r\n\r\n"), (400, 411), closes=True),
    Row("9 chunked in HTTP/1.0", chunked(ONE_CHUNK, line="POST /hooks/mirror HTTP/1.0"), (400,), closes=True),
    Row("10 no length at all", request(b"", length=...), (411,)),
    Row("10 no length, but a body", request(SMUGGLED, length=...), (411,)),
    Row("11 body shorter than its length", request(b"{}", length=10), (400,), closes=True, half_close=True),
    Row("12 body too large", request(b"x" * 70_000), (413,), closes=True),
    Row("12 body announced too large, not sent", request(b"", length=70_000), (413,), closes=True),
    Row(
        "12 body too large, behind a line without a space", b"POST\r\nContent-Length:70000\r\n\r\n", (400,), closes=True
    ),
    Row("13 empty body", request(b""), (400,), closes=False),
    Row("14 no Host", request(host=None), (400,)),
    Row("15 two Hosts", ping("Host: localhost"), (400,), closes=True),
    Row("16 Host with a space", request(host=f"a {MARKER}"), (400,)),
    Row("16 Host empty", request(host=""), (400,)),
    Row("16 Host with a path", request(host=f"localhost/{MARKER}"), (400,)),
    Row("17 two Content-Types", ping("Content-Type: application/json"), (400,), closes=True),
    Row("18 length with underscore in its name", ping("Content_Length: 5"), (200,), closes=False),
    Row("odd: length of many zeros", request(length=f"{len(body()):015}"), (200,), closes=False),
    Row(
        "odd: length of many zeros, body missing",
        request(b"", length="000000000000005"),
        (400,),
        closes=True,
        half_close=True,
    ),
    Row("odd: a header that begins like length", ping("Content-Length-X: 1"), (200, 400), closes=None),
    Row(
        "odd: a header that begins like length, body missing",
        request(b"", "Content-Length-X: 1", length=5),
        (400,),
        closes=True,
        half_close=True,
    ),
    Row("odd: a header that begins like coding", ping("Transfer-Encoding-X: chunked"), (200, 400), closes=None),
    Row("odd: length before HTTP/1.1 sees it", mended(b"POST /hooks", b"\r\nPOST /hooks"), (200, 400)),
)

HEADS = table(
    Row("19 NUL in a header", ping(f"X-A: {MARKER}\0"), (400,), closes=True),
    Row("19 bare CR in a header", ping(f"X-A: a\rContent-Length: 2{MARKER}"), (400,), closes=True),
    Row("19 control character in a header", ping(f"X-A: \x01{MARKER}"), (400,), closes=True),
    Row("20 bare line feeds", ping().replace(b"\r\n", b"\n"), (400,), closes=True),
    Row("20 one bare line feed", mended(b"\r\nContent-Length", b"\nContent-Length"), (400,), closes=True),
    Row("20 folded header", ping(f"X-A: a\r\n {MARKER}: b"), (400,), closes=True),
    Row("20 folded length", mended(b"Content-Length: ", b"Content-Length:\r\n "), (400,), closes=True),
    Row("20 header without a name", ping(f": {MARKER}"), (400,), closes=True),
    Row("20 header without a colon", ping(MARKER), (400,), closes=True),
    Row("20 header name not ASCII", ping(f"X-\xe9{MARKER}: a"), (400,), closes=True),
    Row("21 header value not ASCII", ping(f"X-A: \xe9\xff{MARKER}"), (200,), closes=False),
    Row("22 101 headers", ping(*(f"X-{n}: {MARKER}" for n in range(101))), (431,), closes=True),
    Row("22 9 KB header", ping(f"X-A: {MARKER * 900}"), (431,), closes=True),
    Row("22 40 KB of headers", ping(*(f"X-{n}: {MARKER * 40}" for n in range(99))), (431,), closes=True),
    Row("22 a head without an end", ping(*(f"X-{n}: {MARKER * 40}" for n in range(99)))[:34_000], (431,), closes=True),
    Row("23 long target", ping(line=f"POST /{MARKER * 500} HTTP/1.1"), (414,), closes=True),
    Row("23 long target without an end", f"POST /{MARKER * 500}".encode(), (414,), closes=True),
    Row("24 method in small letters", ping(line="post /hooks/mirror HTTP/1.1"), (400,), closes=True),
    Row("24 unknown method", ping(line="FOO /hooks/mirror HTTP/1.1"), (400,)),
    Row("24 method of one letter", ping(line="P /hooks/mirror HTTP/1.1"), (400,)),
    *(
        Row(
            f"25 {method}",
            request(b"", line=f"{method} /hooks/mirror HTTP/1.1"),
            (405,),
            allow=True,
            headless=method == "HEAD",
        )
        for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE")
    ),
    Row("26 CONNECT", request(b"", line=f"CONNECT {MARKER}:443 HTTP/1.1"), (404, 405), closes=True),
    Row("26 OPTIONS of everything", request(b"", line="OPTIONS * HTTP/1.1"), (404, 405)),
    Row("27 absolute form", ping(line=f"POST http://{MARKER}/hooks/mirror HTTP/1.1"), (400,)),
    Row("28 dot segments", ping(line=f"POST /{MARKER}/../hooks/mirror HTTP/1.1"), (404,)),
    Row("28 slash at the end", ping(line="POST /hooks/mirror/ HTTP/1.1"), (404,)),
    Row("28 percent-encoded letter", ping(line="POST /hooks/%6dirror HTTP/1.1"), (200,)),
    Row("29 NUL in the path", ping(line=f"POST /hooks/mirror%00{MARKER} HTTP/1.1"), (404,)),
    Row("29 bad UTF-8 in the path", ping(line=f"POST /hooks/%ff{MARKER} HTTP/1.1"), (404,)),
    Row("29 line end in the path", ping(line=f"POST /hooks/%0d%0a{MARKER} HTTP/1.1"), (404,)),
    Row(
        "30 raw byte in the path", ping(line=b"POST /hooks/\xff" + MARKER.encode() + b" HTTP/1.1"), (400,), closes=True
    ),
    Row("31 HTTP/2.0", ping(line="POST /hooks/mirror HTTP/2.0"), (400,), closes=True),
    Row("31 HTTP/1.2", ping(line="POST /hooks/mirror HTTP/1.2"), (400,)),
    Row("31 HTTP/0.9", f"GET /{MARKER}\r\n".encode(), (400,), closes=True),
    Row("31 TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARKER.encode(), (400,), closes=True),
    Row("31 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARKER.encode(), (400,), closes=True),
    Row("31 binary garbage", bytes(range(256)) * 8, (400,), closes=True),
    Row("31 garbage that begins with a letter", b"a\x00\xff" + MARKER.encode() + b"\n", (400,), closes=True),
    Row("32 unknown expectation", ping(f"Expect: {MARKER}"), (417,), closes=True),
    Row(
        "34 upgrade to h2c",
        ping("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
        (200,),
    ),
    Row("36 gzip", request(gzip.compress(body()), "Content-Encoding: gzip"), (415,), closes=False),
    Row(
        "37 says for whom it speaks",
        ping(f"X-Forwarded-For: {MARKER}", f"Forwarded: for={MARKER}", "X-Forwarded-Proto: https"),
        (200,),
    ),
    Row("37 and is refused", request(b"{}", f"X-Forwarded-For: {MARKER}", "X-Forwarded-Proto: https"), (403,)),
    Row("38 SCRIPT_NAME as a header", ping(f"SCRIPT_NAME: /{MARKER}", "Script-Name: /x"), (200,)),
)


@FRAMING
def test_a_request_framed_badly_is_refused_and_nothing_follows_it(
    row: Row, web: Web, jobs: Callable[[], list[bytes]]
) -> None:
    hold(row, web, jobs)


@HEADS
def test_a_request_with_a_bad_head_is_answered_rightly(row: Row, web: Web, jobs: Callable[[], list[bytes]]) -> None:
    hold(row, web, jobs)


@settings(deadline=None)
@given(st.lists(REQUESTS | st.binary(max_size=100) | st.just(ping()), min_size=1, max_size=3).map(b"".join))
def test_any_bytes_are_answered_or_hung_up_on_and_never_break_anything(shared_web: Web, data: bytes) -> None:
    with shared_web.wire() as wire:
        wire.send(data)
        wire.half_close()
        answered = wire.rest()
    statuses = {int(line[9:12]) for line in answered.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")}
    assert statuses <= {100, 200, 400, 403, 404, 405, 408, 411, 413, 414, 415, 417, 431}
    assert_clean(shared_web.log())
