"""Requests as people save them."""

from __future__ import annotations

import pytest

from glassq.errors import InvalidRequest
from glassq.operations.saved_request import parse

HEAD = "POST /hooks/acme?a=b%20c HTTP/1.1\r\nHost: hooks.example\r\nX-Sig: one\r\nx-sig:  two \r\n"
BODY = b'{"a": 1,\r\n\r\n "b": "\xc3\xa9"}'


def request(head: str = HEAD, body: bytes = BODY) -> bytes:
    return f"{head}\r\n".encode() + body


def test_head_and_body_are_taken_as_they_came() -> None:
    found = parse(request())
    assert (found.method, found.target) == ("POST", "/hooks/acme?a=b%20c")
    assert found.headers == {"host": "hooks.example", "x-sig": "one, two"}
    assert (found.body, found.remarks) == (BODY, ())


def test_lines_may_end_as_an_editor_leaves_them_and_the_body_stays() -> None:
    saved = b"\xef\xbb\xbf\n" + HEAD.replace("\r\n", "\n").encode() + b"\n" + BODY
    assert parse(saved) == parse(request())


@pytest.mark.parametrize(
    ("length", "body", "surplus", "says"),
    [
        (4, b"1234", b"\n", "a line end after the 4 bytes of Content-Length left out"),
        (4, b"1234", b"POST / HTTP/1.1\r\n", "17 bytes after the 4 bytes"),
        (4, b"123", b"", "the body has 3 bytes, and Content-Length says 4"),
    ],
)
def test_content_length_says_where_the_body_ends(length: int, body: bytes, surplus: bytes, says: str) -> None:
    found = parse(request(f"{HEAD}Content-Length: {length}\r\n", body + surplus))
    assert (found.body, found.surplus) == (body, surplus)
    assert says in found.remarks[0]


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_chunks_are_put_together(line_end: bytes) -> None:
    chunked = line_end.join([b"5;x=y", b"hello", b"1", b"!", b"0", b"", b""])
    assert parse(request(f"{HEAD}Transfer-Encoding: chunked\r\n", chunked)).body == b"hello!"


def test_a_body_that_was_saved_without_its_chunks_stays_as_it_is() -> None:
    assert parse(request(f"{HEAD}Transfer-Encoding: chunked\r\n", b'{"a": 1}')).body == b'{"a": 1}'


def test_a_long_header_may_go_on_in_the_next_line() -> None:
    assert parse(b"POST / HTTP/1.1\nX-Sig: one,\n  two\n\n").headers == {"x-sig": "one, two"}


def test_headers_and_body_alone_are_a_post() -> None:
    found = parse(b"X-Sig: one\n\nbody")
    assert (found.method, found.target, found.headers, found.body) == ("POST", "/", {"x-sig": "one"}, b"body")
    assert found.remarks == ("there is no request line: taken as a POST",)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b'{"a": 1}', "this is a body without its head: expected the whole request"),
        (b"hello there\n\nbody", "line 1 is no request line"),
        (b"POST / HTTP/1.1\nno header here\n\nbody", "line 2 is no header: expected NAME: VALUE"),
    ],
)
def test_what_is_no_request_is_told(data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse(data)


def test_a_bare_body_is_taken_where_that_is_asked_for() -> None:
    found = parse(b'\n{"a": 1}\n', bare=True)
    assert (found.method, found.headers, found.body) == ("POST", {}, b'\n{"a": 1}\n')
    assert parse(request(), bare=True) == parse(request())
