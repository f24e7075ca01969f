from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq import Bury, content
from glassq import delivery as envelope
from glassq.errors import UnreadableBody
from glassq.testing import work

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xx"
PARTS = (
    b'--xx\r\nContent-Disposition: form-data; name="from"\r\n\r\nAda <a@example.org>\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="text"\r\nContent-Type: text/plain; charset=latin-1\r\n\r\n\xe9\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="from"\r\n\r\nagain\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nleft out\r\n--xx--\r\n'
)


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'{"a": 1}', JSON, {"a": 1}),
        (b'[{"event": "open"}]\r\n', JSON, [{"event": "open"}]),
        (b'{"Type": "Notification"}', "text/plain; charset=UTF-8", {"Type": "Notification"}),
        (b'\xef\xbb\xbf{"a": 1}', JSON, {"a": 1}),
        (b'{"a": "\xe9"}', "application/json; charset=iso-8859-1", {"a": "é"}),
        (b'{"a": "\xc3\xa9"}', 'application/json; charset="UTF-8"', {"a": "é"}),
        (b'{"a": "\xc3\xa9"}', "application/json; charset=klingon", {"a": "é"}),
        (b"[NaN]", JSON, "[nan]"),
        (rb'"\ud800"', JSON, "\ud800"),
        (b"1e999", "", float("inf")),
        (b"payload=%7B%22a%22%3A+1%7D", FORM, {"a": 1}),
        (b"payload=%7B%22a%22%3A+1%7D", FORM + "; charset=utf-8", {"a": 1}),
        # a sender that names the wrong type
        (b'{"a": 1}', FORM, {"a": 1}),
    ],
)
def test_json_is_read_whatever_the_sender_calls_it(body: bytes, kind: str, value: Any) -> None:
    found = content.json_value(body, kind)
    assert (str(found) if isinstance(value, str) and value.startswith("[") else found) == value


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", JSON, "the body is not JSON: Input data was truncated"),
        (b'{"token": secret}', JSON, "the body is not JSON: JSON is malformed: invalid character (byte 10)"),
        (b"[" * 100_000, JSON, "the body is not JSON: it is nested too deep"),
        (b"a=1", FORM, 'the body is not JSON, but a form without a field "payload"'),
        (b"payload=", FORM, "the body is not JSON: Input data was truncated"),
        (b"\xff\xfe", "", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_a_body_that_is_not_json_says_so_and_is_not_quoted(body: bytes, kind: str, said: str) -> None:
    with pytest.raises(UnreadableBody) as refused:
        content.json_value(body, kind)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("body", "kind", "fields"),
    [
        (b"a=1&b=&a=2+3", FORM, {"a": ["1", "2 3"], "b": [""]}),
        (b"From=%2B15551234&Body=caf%C3%A9", FORM + "; charset=UTF-8", {"From": ["+15551234"], "Body": ["café"]}),
        (b"a=%E9", FORM + "; charset=iso-8859-1", {"a": ["é"]}),
        (b"a=%C3%A9", FORM + "; charset=hex", {"a": ["é"]}),
        (b"a=1", "", {"a": ["1"]}),
        (b"", FORM, {}),
        (PARTS, MULTIPART, {"from": ["Ada <a@example.org>", "again"], "text": ["é"]}),
    ],
)
def test_a_form_gives_all_values_of_each_field(body: bytes, kind: str, fields: dict[str, list[str]]) -> None:
    assert content.form(body, kind) == fields


def test_what_is_no_form_is_not_read_as_one() -> None:
    with pytest.raises(UnreadableBody, match=r"^the body is not a form, but application/json$"):
        content.form(b'{"a": 1}', "Application/JSON; charset=utf-8")


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"caf\xc3\xa9", "", "café"),
        (b"caf\xe9", "text/plain;charset=latin-1", "café"),
        (b"caf\xe9", "text/plain", "caf\ufffd"),
        (b"\xef\xbb\xbfa", "text/plain", "a"),
        (b"61", "text/plain; charset=hex", "61"),
    ],
)
def test_text_is_decoded_by_its_charset(body: bytes, kind: str, text: str) -> None:
    assert content.text(body, kind) == text


@given(st.binary(max_size=60), st.sampled_from([JSON, FORM, MULTIPART, ""]) | st.text(max_size=30))
def test_no_body_and_no_type_fails_in_another_way(body: bytes, kind: str) -> None:
    assert isinstance(content.text(body, kind), str)
    for read in (content.json_value, content.form):
        try:
            read(body, kind)
        except UnreadableBody as error:
            assert "body is not" in str(error)


def test_a_handler_sees_the_parts_of_its_ping() -> None:
    seen: list[object] = []

    def handle(delivery: envelope.Delivery) -> None:
        seen.extend([delivery.json(), dict(delivery.headers), delivery.labels, delivery.open().read(), delivery.text()])
        # later attempts see what intake kept
        delivery.headers.clear()

    body, kept, labels = b'{"ref": "main"}', {"x-github-event": "push"}, {"event": "push"}
    came = work(handle, body, headers={"X-GitHub-Event": "push"}, labels=labels, content_type=JSON)
    assert seen == [{"ref": "main"}, kept, labels, body, '{"ref": "main"}']
    assert (came.state, came.delivery.headers, came.delivery.content_type) == ("done", kept, JSON)


def test_a_body_that_never_parses_is_buried_with_its_reason_and_not_retried() -> None:
    came = work(lambda delivery: delivery.json(), b"<xml/>")
    assert (came.state, came.reason) == (
        "buried",
        "the body is not JSON: JSON is malformed: invalid character (byte 0)",
    )
    assert isinstance(came.error, Bury | ValueError)


def test_a_handler_may_take_an_unreadable_body_itself() -> None:
    def handle(delivery: envelope.Delivery) -> str:
        try:
            return str(delivery.json())
        except ValueError:
            return delivery.text()

    assert work(handle, b"plain").result == "plain"
