"""An edited copy keeps the secrets that were not shown, and says so where it cannot."""

import json

import pytest

from glassq.errors import InvalidRequest
from glassq.mask import masked_body
from glassq.operations.edited_body import body_text, diff, editable_text, has_mask, unmasked

ORIGINAL = (
    b'{"itemId":"abc","verifyToken":"s3cret-of-ours","deep":[{"client_secret":"t0p"},{"n":1}]'
    b',"big":12345678901234567890}'
)


def _edit(change):
    shown = masked_body(ORIGINAL)
    change(shown)
    return json.loads(unmasked(ORIGINAL, json.dumps(shown, indent=2)))


def test_what_is_shown_has_no_secret():
    text = editable_text(masked_body(ORIGINAL))
    assert "s3cret" not in text
    assert "t0p" not in text
    assert has_mask(text)


def test_an_unchanged_body_keeps_its_very_bytes():
    shown = masked_body(ORIGINAL)
    assert unmasked(ORIGINAL, body_text(shown).replace("\n", "\r\n")) == ORIGINAL
    assert unmasked(b"plain words\r\n", "plain words\r\n") == b"plain words\r\n"


def test_masked_values_keep_what_they_were():
    def change(shown):
        shown["itemId"] = "new"
        shown["deep"][1]["n"] = 2

    edited = _edit(change)
    assert edited == {
        "itemId": "new",
        "verifyToken": "s3cret-of-ours",
        "deep": [{"client_secret": "t0p"}, {"n": 2}],
        "big": 12345678901234567890,
    }


def test_a_secret_can_be_replaced_or_left_out():
    assert _edit(lambda shown: shown.update(verifyToken="other"))["verifyToken"] == "other"
    assert "verifyToken" not in _edit(lambda shown: shown.pop("verifyToken"))


def test_a_number_does_not_pass_for_a_truth():
    edited = unmasked(b'{"a":true,"b":1}', '{"a":1,"b":true}')
    assert json.loads(edited) == {"a": 1, "b": True}
    assert b"true" in edited.split(b'"b"')[1]


@pytest.mark.parametrize(
    ("original", "edited", "why"),
    [
        (ORIGINAL, '{"elsewhere":"***"}', "where the original has no secret"),
        (ORIGINAL, '{"deep":[{"client_secret":"***"}]}', "where the original has no secret"),
        (ORIGINAL, "{", "not JSON"),
        (ORIGINAL, '{"itemId":NaN}', "not JSON"),
        (ORIGINAL, "[" * 100_000, "not JSON"),
        (b"password=hunter22x and more", "password=*** and less", "cannot be edited here"),
        (b"x" * 5_000, "xx", "cannot be edited here"),
        (b"\xff\xfe", "y", "cannot be edited here"),
    ],
)
def test_what_cannot_be_edited_is_refused(original, edited, why):
    with pytest.raises(InvalidRequest, match=why):
        unmasked(original, edited)


def test_a_short_text_is_what_was_typed():
    assert unmasked(b"hello", "hello you") == b"hello you"


def test_characters_that_nobody_sees_are_written_out_for_editing():
    shown = masked_body('{"a":"x\u202ey\u0085"}'.encode())
    text = editable_text(shown)
    assert text.isascii()
    assert unmasked('{"a":"x\u202ey\u0085"}'.encode(), text) == '{"a":"x\u202ey\u0085"}'.encode()


def test_the_difference_is_masked():
    after = unmasked(ORIGINAL, body_text(masked_body(ORIGINAL)).replace('"abc"', '"xyz"'))
    lines = diff(ORIGINAL, after)
    assert '-  "itemId": "abc",' in lines
    assert '+  "itemId": "xyz",' in lines
    assert not any("s3cret" in line for line in lines)


def test_a_long_difference_is_cut():
    before, after = (json.dumps([f"{word}{n}" for n in range(500)]).encode() for word in ("a", "b"))
    assert diff(before, after)[-1].endswith("lines more")
