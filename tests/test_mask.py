"""What of a body an operator may see."""

from __future__ import annotations

import pytest

from glassq.mask import masked_body, masked_text


@pytest.mark.parametrize(
    "key",
    ["verifyToken", "access_token", "refresh-token", "client_secret", "PASSWORD", "passwd", "apiKey", "Authorization"],
)
def test_what_a_secret_sounding_key_holds_is_masked_whatever_it_is(key: str) -> None:
    for value in (b'"abc"', b"12", b'{"inner": "abc"}', b'["abc"]'):
        assert masked_body(b'[{"%b": %b, "other": "shown"}]' % (key.encode(), value)) == [
            {key: "***", "other": "shown"}
        ]


def test_a_secret_that_is_not_there_is_seen_not_to_be_there() -> None:
    assert masked_body(b'{"verifyToken": null, "password": ""}') == {"verifyToken": None, "password": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"verifyToken": "a\\"b, c", "x": 1', '{"verifyToken": ***, "x": 1'),
        ('{"verifyToken": "abc', '{"verifyToken": ***'),
        ('"pin_token": 123, "a": 2', '"pin_token": ***, "a": 2'),
        ("access_token=abc&x=1", "access_token=***&x=1"),
        ("{'client_secret': 'abc'}", "{'client_secret': ***}"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("invalid_grant: Token has been expired or revoked.", "invalid_grant: Token has been expired or revoked."),
    ],
)
def test_secrets_in_a_text_are_masked_and_words_about_them_are_not(text: str, expected: str) -> None:
    assert masked_text(text) == expected


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[" * 60_000, b'{"a":' * 10_000, b"NaN", b"-1e9999"])
def test_any_bytes_can_be_shown(body: bytes) -> None:
    assert len(str(masked_body(body))) < 5_000
