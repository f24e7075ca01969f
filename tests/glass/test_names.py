from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glassq.errors import Bury
from glassq.glass.names import (
    HEAD,
    MAX_NAME,
    UNKNOWN,
    belongs,
    check_attachment,
    check_item,
    extension,
    object_name,
    prefix,
    shown,
    sniff,
    stored_type,
)

JPEG, PNG = b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x89PNG\r\n\x1a\n\x00"
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00"
HTML = b"<!DOCTYPE html><title>x</title>"

# Few characters, so that collisions would be met.
_short = st.text("a1-_%.:~/", min_size=1, max_size=5)
_users = _short | st.text(min_size=1, max_size=8)
_items = st.text("a1-_", min_size=1, max_size=6)
_parts = st.tuples(_users, _items, st.none() | _short)


def test_the_only_photo_has_the_seed_programs_name() -> None:
    name = object_name("115567334", "cc4bf15e-370d-4ebf-a2f3-1f1282623029", None, "image/jpeg")
    assert name == "ugi-115567334-cc4bf15e-370d-4ebf-a2f3-1f1282623029.jpg"


def test_another_photo_adds_its_attachment_id() -> None:
    assert object_name("115", "item", "ps:593", "image/png") == "ugi-115-item-ps%3A593.png"


def test_an_attachment_id_without_special_characters_is_marked_all_the_same() -> None:
    assert object_name("115", "item", "593", "image/png") == "ugi-115-item-%3593.png"


@given(_parts, _parts)
def test_no_two_attachments_share_a_name(one: tuple[str, str, str | None], other: tuple[str, str, str | None]) -> None:
    assume(one != other)
    assert object_name(*one, "image/jpeg") != object_name(*other, "image/jpeg")


@given(_parts, _parts)
def test_a_name_belongs_to_its_own_item_and_to_no_other(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    name = object_name(*one, "video/mp4")
    assert belongs(name, one[0], one[1])
    assert name.startswith(prefix(one[0], one[1]))
    assert belongs(name, other[0], other[1]) == (one[:2] == other[:2])


def test_an_item_does_not_own_the_photos_of_a_longer_id() -> None:
    longer = object_name("u", "abc-1", None, "image/jpeg")
    assert longer.startswith(prefix("u", "abc"))
    assert not belongs(longer, "u", "abc")
    assert belongs(longer, "u", "abc-1")
    assert belongs(object_name("u", "abc", "1", "image/jpeg"), "u", "abc")


@pytest.mark.parametrize("name", ["", "ugi-", "ugi-u-abc", "ugi-u-abc.jpg.tmp", "x-ugi-u-abc.jpg", "ugi-u-abc.jpg\n"])
def test_other_files_belong_to_nobody(name: str) -> None:
    assert not belongs(name, "u", "abc")


@given(_users, _items, st.none() | _short)
def test_a_name_is_safe_in_a_path(user: str, item: str, attachment: str | None) -> None:
    name = object_name(user, item, attachment, "text/html")
    assert name.isascii()
    assert "/" not in name
    assert name.startswith("ugi-")
    assert name.endswith(".bin")


@pytest.mark.parametrize("item", ["", "a b", "../x", "a/b", "a\n", "é", "x" * 129, "a.b", "a%b"])
def test_what_is_no_item_id_is_buried(item: str) -> None:
    with pytest.raises(Bury, match="timeline item"):
        check_item(item)
    with pytest.raises(Bury, match="timeline item"):
        object_name("u", item, None, "image/jpeg")


@pytest.mark.parametrize("attachment", [None, 7, "", ".", "..", "a b", "é", "\n", "x" * 257])
def test_what_is_no_attachment_id_is_buried(attachment: object) -> None:
    with pytest.raises(Bury, match="timeline item i: attachment"):
        check_attachment(attachment, "i")


def test_a_name_longer_than_file_systems_take_is_buried() -> None:
    assert len(object_name("u" * 200, "i", None, "image/jpeg")) <= MAX_NAME
    with pytest.raises(Bury, match="of 255 bytes"):
        object_name("é" * 43, "i", None, "image/jpeg")


def test_an_empty_user_or_attachment_has_no_name() -> None:
    for user, attachment in (("", None), ("u", "")):
        with pytest.raises(Bury, match="not empty"):
            object_name(user, "i", attachment, "image/jpeg")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("image/jpeg", "jpg"),
        ("IMAGE/JPEG; charset=x", "jpg"),
        ("image/jpg", "jpg"),
        ("image/png", "png"),
        ("image/gif", "gif"),
        ("image/webp", "webp"),
        ("video/mp4", "mp4"),
        ("audio/mpeg", "mp3"),
        ("audio/aac", "aac"),
        ("audio/x-wav", "wav"),
        ("image/svg+xml", "bin"),
        ("text/html", "bin"),
        ("", "bin"),
    ],
)
def test_the_extension_comes_from_the_list_of_content_types(declared: str, expected: str) -> None:
    assert extension(declared) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (JPEG, "image/jpeg"),
        (PNG, "image/png"),
        (b"GIF89a\x01\x00", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x10\x00\x00\x00AVI LIST", None),
        (MP4, "video/mp4"),
        (b"\x00\x00\x00\x18ftypheic", None),
        (b"ID3\x03\x00", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"\xff\xf9\x50\x80", "audio/aac"),
        (b"\xff\xfe<\x00h\x00", None),
        (b"\xff", None),
        (HTML, None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_what_something_is(head: bytes, expected: str | None) -> None:
    assert sniff(head[:HEAD]) == expected


@pytest.mark.parametrize(
    ("declared", "head", "expected"),
    [
        ("image/jpeg", JPEG, "image/jpeg"),
        ("image/jpg; q=1", JPEG, "image/jpeg"),
        ("", JPEG, "image/jpeg"),
        (UNKNOWN, PNG, "image/png"),
        ("image/jpeg", PNG, UNKNOWN),
        ("image/jpeg", HTML, UNKNOWN),
        ("text/html", HTML, UNKNOWN),
        ("text/html", JPEG, UNKNOWN),
        ("image/svg+xml", b"<svg/>", UNKNOWN),
    ],
)
def test_bytes_that_contradict_the_declared_type_are_stored_as_unknown(
    declared: str, head: bytes, expected: str
) -> None:
    assert stored_type(declared, head) == expected


def test_an_odd_id_is_shown_quoted_and_bounded() -> None:
    assert shown("115567334") == "115567334"
    assert shown("ada@example.com") == "ada@example.com"
    assert shown("a\nb") == r"'a\nb'"
    assert shown("\ud800\u202e") == r"'\ud800\u202e'"
    assert len(shown("x y" * 5000)) < 80
