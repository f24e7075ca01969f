"""An edited copy keeps the secrets that were not shown, and says so where it cannot."""

import json
import sys

import pytest

from glassq.console.render import shown
from glassq.errors import InvalidRequest
from glassq.mask import masked_body
from glassq.operations.edited_body import _is_kept, body_text, diff, editable_text, has_mask, unmasked

ORIGINAL = (
    b'{"itemId":"abc","verifyToken":"s3cret-of-ours","deep":[{"client_secret":"t0p"},{"n":1}]'
    b',"big":12345678901234567890}'
)


def _edit(change):
    seen = masked_body(ORIGINAL)
    change(seen)
    return json.loads(unmasked(ORIGINAL, json.dumps(seen, indent=2)))


def test_what_is_shown_has_no_secret():
    text = editable_text(ORIGINAL)
    assert "s3cret" not in text
    assert "t0p" not in text
    assert has_mask(text)


def test_an_unchanged_body_keeps_its_very_bytes():
    seen = masked_body(ORIGINAL)
    assert unmasked(ORIGINAL, body_text(seen).replace("\n", "\r\n")) == ORIGINAL
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
    text = editable_text('{"a":"x\u202ey\u0085"}'.encode())
    assert text.isascii()
    assert unmasked('{"a":"x\u202ey\u0085"}'.encode(), text) == '{"a":"x\u202ey\u0085"}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        *(b"a\r\nb\nc", b"a\rb", b"a\x00b", b"a\x1b[0m", b'{"a":1.2345678901234567890}', b'{"a":1,"a":2}'),
        *(b'{"a":1e999}', b'{"a":NaN}', '{"a":1}'.encode("utf-16"), b'\xef\xbb\xbf{"a":1}'),
        *(f"a{char}b".encode() for char in "\u202e\u200b\ufeff\u2028\u00ad\x85\x0c"),
    ],
)
def test_what_a_form_would_change_is_refused_for_editing(body):
    for refused in (lambda: editable_text(body), lambda: unmasked(body, body.decode("latin-1") + " ")):
        with pytest.raises(InvalidRequest, match=r"glassq replay|cannot be edited here"):
            refused()


def test_a_form_shows_all_that_it_takes_as_it_is():
    kept = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if _is_kept(char))
    assert shown(kept) == kept


def test_line_ends_stay_what_they_were():
    assert editable_text(b"one\r\ntwo\r\n") == "one\ntwo\n"
    # a browser sends CRLF, whatever it was given
    assert unmasked(b"one\r\ntwo\r\n", "one\r\n2\r\n") == b"one\r\n2\r\n"
    assert unmasked(b"one\ntwo\n", "one\r\n2\r\n") == b"one\n2\n"
    assert unmasked(b"one\ntwo \n", "one\r\ntwo\r\n") == b"one\ntwo\n"


def test_the_difference_is_masked():
    after = unmasked(ORIGINAL, body_text(masked_body(ORIGINAL)).replace('"abc"', '"xyz"'))
    lines = diff(ORIGINAL, after)
    assert '-  "itemId": "abc",' in lines
    assert '+  "itemId": "xyz",' in lines
    assert not any("s3cret" in line for line in lines)


def test_a_long_difference_is_cut():
    before, after = (json.dumps([f"{word}{n}" for n in range(500)]).encode() for word in ("a", "b"))
    assert diff(before, after)[-1].endswith("lines more")
