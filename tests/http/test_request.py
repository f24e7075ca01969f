"""What is taken of an ordinary request without asking gunicorn further is what gunicorn would say."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from hypothesis import given, settings
from hypothesis import strategies as st

from glassq.http.request import Parsed, RequestParser
from tests.http.test_framing import HEADER, REQUESTS, TAILS
from tests.thorough import examples

CLIENT = ("127.0.0.1", 1)
METHODS = st.sampled_from([b"POST", b"GET", b"OPTIONS", b"CONNECT", b"post", b"PURGE", b"P\xd6ST"])
TARGETS = st.sampled_from(
    b"/|/hooks/a?b=c|/a%2Fb%20?x%20y|/?|/?a?b|/a#b|/a?b#c|//a/b|///|/a//b|*|http://a/b|a|/\xc3\xa9|/a\x7f|/a\tb|/[::|"
    b"/a:b@c;d|/%zz|/%C3%A9".split(b"|")
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"])
FURTHER = st.sampled_from(
    [
        *(b"Connection: close\r\n", b"connection:\t Keep-Alive \r\n", b"Connection: upgrade, close\r\n"),
        *(b"Host: b\r\n", b"HOST: b\r\n", b"Content-Type: a/b\r\n", b"X-A: 1\r\n", b"x-a:\xe9\r\n", b"X_A: 3\r\n"),
        *(b"Expect: 100-continue\r\n", b"Content-Length: \xb2\r\n", b"X-Empty:\r\n"),
    ]
)
LINES = st.tuples(METHODS, st.just(b" "), TARGETS, st.just(b" "), VERSIONS, st.just(b"\r\n")).map(b"".join)
MORE = st.tuples(LINES, st.lists(FURTHER | HEADER, max_size=5).map(b"".join), TAILS).map(b"".join)
ORDINARY = (
    b"POST /hooks/github/a%20b?c=d HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Many: 1\r\n"
    b"x-many: \xe9\r\nContent-Length: 3\r\n\r\nabc"
)


@pytest.mark.skipif(not find_spec("gunicorn_h1c"), reason="there are no ordinary requests without the C parser")
class TestOrdinary:
    def test_a_usual_ping_is_an_ordinary_request(self) -> None:
        found = RequestParser(Config()).ordinary(ORDINARY)
        headers = {
            "HTTP_HOST": "a",
            "CONTENT_TYPE": "application/json",
            "HTTP_X_MANY": "1, \xe9",
            "CONTENT_LENGTH": "3",
        }
        uri = "/hooks/github/a%20b?c=d"
        assert found == Parsed("POST", uri, "c=d", "/hooks/github/a b", (1, 1), headers, b"abc", closes=False)

    @settings(deadline=None, max_examples=examples(150))
    @given(data=REQUESTS | MORE)
    def test_gunicorn_says_the_same(self, data: bytes) -> None:
        parser = RequestParser(Config())
        found = parser.ordinary(data)
        if found is not None:
            assert found == parser.by_gunicorn(data, CLIENT)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("limit_request_line", 20),
            ("limit_request_line", 5),
            ("limit_request_fields", 4),
            ("limit_request_field_size", 20),
        ],
    )
    def test_gunicorns_limits_hold(self, name: str, value: int) -> None:
        config = Config()
        config.set(name, value)
        with pytest.raises(ParseException):
            RequestParser(config).parse(ORDINARY, CLIENT)

    @pytest.mark.parametrize("mode", ["auto", "v1"])
    def test_a_proxys_line_is_gunicorns_to_read(self, mode: str) -> None:
        config = Config()
        config.set("proxy_protocol", mode)
        data = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + ORDINARY
        assert RequestParser(config).parse(data, CLIENT).body == b"abc"


@pytest.mark.parametrize("parser", ["python", "auto"])
def test_a_request_is_parsed_by_either_parser(parser: str) -> None:
    config = Config()
    config.set("http_parser", parser)
    found = RequestParser(config)
    assert found.parse(ORDINARY, CLIENT) == found.by_gunicorn(ORDINARY, CLIENT)
    with pytest.raises((ParseException, NoMoreData)):
        found.parse(ORDINARY[:40], CLIENT)
