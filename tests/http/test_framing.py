"""When a request has arrived, and that gunicorn's parser never needs more than what had."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import NoMoreData, ParseException
from hypothesis import given, settings
from hypothesis import strategies as st

from glassq.http.framing import HEAD_ONLY, MAX_HEAD, WAIT, Arrival, classify
from tests.intake.conftest import PARSERS

MAX_BODY = 1000
EXPECTS = Arrival(expects=True)
WHOLE = Arrival(arrived=True, whole=True)
LARGE = Arrival(arrived=True, large=1001)
LINE = b"POST /hooks/mirror HTTP/1.1\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return LINE + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", WAIT),
        (b"\r", WAIT),
        (b"P", WAIT),
        (b"POST /hooks", WAIT),
        (LINE, WAIT),
        (LINE + b"Content-Length: 3\r\n", WAIT),
        (post(b"Content-Length: 3"), WAIT),
        (post(b"Content-Length: 3", body=b"ab"), WAIT),
        (post(b"Content-Length: 3", body=b"abc"), WHOLE),
        (post(b"Content-Length: 3", body=b"abcPOST"), WHOLE),
        (post(b"content-LENGTH:3", body=b"abc"), WHOLE),
        (post(b"Content-Length: \t 003 ", body=b"abc"), WHOLE),
        (post(b"Content-Length: 003", body=b"ab"), WAIT),
        (post(b"Content-Length: 1000"), WAIT),
        (post(b"Content-Length: 1001"), LARGE),
        (post(b"Content-Length: 1001", b"Expect: 100-continue", body=b"a"), LARGE._replace(expects=True)),
        (post(b"Content-Length: " + b"9" * 5000), HEAD_ONLY),
        (post(b"Content-Length: 3", b"Content-Length: 3"), HEAD_ONLY),
        (post(b"Content-Length: 3, 3"), HEAD_ONLY),
        (post(b"Content-Length : 3"), HEAD_ONLY),
        (post(b"Content-Length: -3"), HEAD_ONLY),
        (post(b"Content-Length:"), HEAD_ONLY),
        (post(b"Transfer-Encoding: chunked"), HEAD_ONLY),
        (post(b"Transfer-Encoding: chunked", b"Content-Length: 3"), HEAD_ONLY),
        (post(), HEAD_ONLY),
        (GET + b"\r\n", WHOLE),
        (GET + b"Content-Length: 2\r\n\r\n", WAIT),
        (post(b"Expect: 100-continue", b"Content-Length: 3"), EXPECTS),
        (post(b"Content-Length: 3", b"expect:100-CONTINUE ", body=b"ab"), EXPECTS),
        (post(b"Content-Length: 3", b"Expect: 100-continue", body=b"abc"), WHOLE),
        (post(b"Content-Length: 3", b"X-Expect: 100-continue"), WAIT),
        (post(b"Content-Length: 3", b"Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0"), WAIT),
        (b"\x16\x03\x01", Arrival(refuse=400)),
        (b"GET /\r\n", Arrival(refuse=400)),
        (b"GET / HTTP/1.1\nHost: x\n", Arrival(refuse=400)),
        (GET + b"Host: x\nX: y", Arrival(refuse=400)),
        (b"GET /" + b"a" * 5000, Arrival(refuse=414)),
        (GET + b"X: y\r\n" * 6000, Arrival(refuse=431)),
        (GET + b"X: " + b"y" * MAX_HEAD + b"\r\n\r\n", Arrival(refuse=431)),
    ],
)
def test_what_has_arrived_is_told_from_the_bytes_alone(data: bytes, found: Arrival) -> None:
    assert classify(data, MAX_BODY)._replace(size=0, head=0) == found


def test_the_size_of_a_whole_request_leaves_out_what_follows_it() -> None:
    data = post(b"Content-Length: 3", body=b"abc")
    assert classify(data + b"GET", MAX_BODY).size == len(data)
    assert classify(GET + b"\r\nGET", MAX_BODY).size == len(GET) + 2


# What smugglers are made of, and a little noise.
NAMES = st.sampled_from(
    b"Content-Length|content-length|Content-Length | Content-Length|Content_Length|X-Content-Length|Content-Length-X|"
    b"Content-Length\0|Content-Length\r|\xc3\x9fContent-Length||Transfer-Encoding|Transfer-Encoding\t|"
    b"Transfer-Encoding-X|Host|Expect|Connection|X".split(b"|")
)
VALUES = st.sampled_from(
    b"3|0| 3 |03|\t3|+3|3,3|3;x|\xb3|3\0|3\r|\x0b3|999||0x3|chunked|identity|gzip, chunked|100-continue|close|"
    b"a\r\nContent-Length: 3|a\n b".split(b"|")
)
ENDS = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\n\r", b"\r\n "])
HEADER = st.tuples(NAMES, st.sampled_from([b":", b": ", b" :", b""]), VALUES, ENDS).map(b"".join)
LINES = st.sampled_from(
    [LINE, GET, b"PUT / HTTP/1.0\r\n", b"GET  / HTTP/1.1\r\n", b"\r\n" + LINE, b"POST / HTTP/1.1\n"]
)
TAILS = st.sampled_from(
    [b"\r\n", b"\r\nabc", b"\r\nabcGET / HTTP/1.1\r\n\r\n", b"\n", b"\r\n3\r\nabc\r\n0\r\n\r\n", b""]
)
REQUESTS = st.tuples(LINES, st.lists(HEADER, max_size=4).map(b"".join), TAILS).map(b"".join)


@pytest.mark.parametrize("parser", PARSERS)
@settings(deadline=None)
@given(data=REQUESTS | st.binary(max_size=200))
def test_gunicorn_never_needs_a_byte_more_than_has_arrived(parser: str, data: bytes) -> None:
    found = classify(data, MAX_BODY)
    if not found.whole:
        return
    message = parsed(parser, data)
    if message is None:
        return
    length = sum(int(value) for name, value in message.headers if name == "CONTENT-LENGTH")
    assert not any(name == "TRANSFER-ENCODING" for name, _ in message.headers)
    assert len(message.body.read()) == length
    # and what it leaves begins where we say that the next request does
    assert message.unreader.take_buffered() == data[found.size :]


@pytest.mark.parametrize("parser", PARSERS)
@settings(deadline=None)
@given(data=REQUESTS)
def test_gunicorn_reads_the_length_of_a_large_body_as_we_do(parser: str, data: bytes) -> None:
    found = classify(data, 2)
    message = parsed(parser, data[: found.head]) if found.large else None
    if message is not None:
        assert [int(value) for name, value in message.headers if name == "CONTENT-LENGTH"] == [found.large]
        assert not any(name == "TRANSFER-ENCODING" for name, _ in message.headers)


def parsed(parser: str, data: bytes) -> Any:
    """gunicorn's request; None if it is refused, or the connection ends: nothing is waited for, nothing follows."""
    config = Config()
    config.set("http_parser", parser)
    messages = get_parser(config, iter([data]), ("127.0.0.1", 1))
    try:
        return next(messages)
    except (ParseException, NoMoreData, StopIteration):
        return None
