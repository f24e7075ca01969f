"""What an answer says of when to come again, in whatever form a client hands its headers over."""

from __future__ import annotations

import http.client
import io
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests
import urllib3
from httplib2 import Response
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers as WerkzeugHeaders

from glassq import retry_after
from glassq.headers import MAX_RETRY_AFTER, Headers, seconds

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def http_message(value: str) -> http.client.HTTPMessage:
    return http.client.parse_headers(io.BytesIO(f"Server: x\r\nRetry-After: {value}\r\n\r\n".encode()))


FORMS: dict[str, Any] = {
    "dict": lambda value: {"Retry-After": value},
    "dict in lower case": lambda value: {"retry-after": value},
    "dict in upper case": lambda value: {"X": "y", "RETRY-AFTER": value},
    "dict of lists": lambda value: {"Retry-After": [value]},
    "http.client": http_message,
    "http.client getheaders": lambda value: http_message(value).items(),
    "urllib3": lambda value: urllib3.HTTPHeaderDict({"Retry-After": value}),
    "requests": lambda value: requests.structures.CaseInsensitiveDict({"Retry-After": value}),
    "httplib2": lambda value: Response({"retry-after": value}),
    "werkzeug": lambda value: WerkzeugHeaders([("Retry-After", value)]),
    "pairs": lambda value: [("Server", "x"), ("Retry-After", value)],
    "ASGI and h11": lambda value: [(b"server", b"x"), (b"retry-after", value.encode())],
    "bytes": lambda value: {b"Retry-After": value.encode()},
    "ours": lambda value: Headers({"Retry-After": value}),
    "the value": lambda value: value,
    "the value in bytes": lambda value: value.encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_seconds_are_found_in_every_form_of_headers(form: str) -> None:
    assert retry_after(FORMS[form]("90")) == 90.0
    assert retry_after(FORMS[form]("soon")) is None


@pytest.mark.parametrize("form", FORMS)
def test_a_date_is_found_in_every_form_of_headers(form: str) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    wait = retry_after(FORMS[form](when))
    assert wait is not None
    assert 3000 < wait <= 3600


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        (7, 7.0),
        ("86401", MAX_RETRY_AFTER),
        ("9" * 10_000, MAX_RETRY_AFTER),
        # the three forms of a date that RFC 9110 has
        ("Sat, 31 Jan 2026 12:02:00 GMT", 120.0),
        ("Saturday, 31-Jan-26 12:02:00 GMT", 120.0),
        ("Sat Jan 31 12:02:00 2026", 120.0),
        ("Sat, 31 Jan 2026 14:02:00 +0200", 120.0),
        (b"Sat, 31 Jan 2026 12:02:00 GMT", 120.0),
        ("Sat, 31 Jan 2026 11:58:00 GMT", 0.0),
        ("Mon, 1 Jan 1601 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
        # what is neither
        ("", None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("90s", None),
        ("5, 6", None),
        ("soon", None),
        ("Sat, 99 Jan 2026 12:02:00 GMT", None),
        ("Sat, 31 Jan 99999 12:02:00 GMT", None),
        ("\u0661\u0662", None),
        ("12:" * 100_000, None),
        (True, None),
        (1.5, None),
        (None, None),
    ],
)
def test_a_value_is_a_number_or_a_date_or_nothing(value: object, wait: float | None) -> None:
    assert seconds(value, NOW) == wait


@given(st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.none()))
def test_no_value_raises_or_asks_for_more_than_a_day(value: object) -> None:
    wait = retry_after([("Retry-After", value)])
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER


@pytest.mark.parametrize("headers", [None, {}, [], {"Retry": "5"}, {"Retry-After": []}, {"Retry-After": None}])
def test_an_answer_that_does_not_say_is_none(headers: Any) -> None:
    assert retry_after(headers) is None


def test_of_several_the_first_that_can_be_read_counts() -> None:
    assert retry_after([("Retry-After", "soon"), ("retry-after", "5"), ("Retry-After", "6")]) == 5.0


def test_headers_know_no_case_and_cannot_be_changed() -> None:
    headers = Headers({"X-Kind": "photo", "content-type": "text/plain"})
    assert (headers["x-kind"], headers["X-KIND"], headers.get("Content-Type")) == ("photo", "photo", "text/plain")
    assert "CONTENT-TYPE" in headers
    assert "X-Other" not in headers
    assert headers == {"X-Kind": "photo", "content-type": "text/plain"}
    with pytest.raises(TypeError):
        headers["X-Kind"] = "video"  # type: ignore[index]
