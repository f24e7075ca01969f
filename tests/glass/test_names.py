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


@given(_parts, _parts, st.integers(1, 60))
def test_no_two_attachments_of_long_ids_share_a_name(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None], times: int
) -> None:
    long = [(user * times, item, attachment and attachment * times) for user, item, attachment in (one, other)]
    assume(long[0] != long[1])
    assert object_name(*long[0], "image/jpeg") != object_name(*long[1], "image/jpeg")


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


ITEM = "cc4bf15e-370d-4ebf-a2f3-1f1282623029"
# What a person, or Google, may give as an id, and is longer as a file's name.
LONG_USERS = ["ж" * 60, "é" * 43, "👓" * 40, "e\u0301" * 60, "." * 300, "u" * 512, "漢" * 512]
LONG_ATTACHMENTS = [None, "ps:593", "%" * 256, "a" * 256, "-." * 128]


@pytest.mark.parametrize("user", LONG_USERS)
@pytest.mark.parametrize("attachment", LONG_ATTACHMENTS)
@pytest.mark.parametrize("item", [ITEM, "i" * 128])
def test_no_name_is_longer_than_file_systems_take(user: str, item: str, attachment: str | None) -> None:
    name = object_name(user, item, attachment, "image/webp")
    assert len(name.encode()) <= MAX_NAME
    assert name == object_name(user, item, attachment, "image/webp")
    assert name.startswith(prefix(user, item))
    assert belongs(name, user, item)
    assert not belongs(name, user + "x", item)
    assert not belongs(name, user, item + "x")


def test_long_ids_that_differ_in_their_last_character_have_names_that_differ() -> None:
    users = [f"{'ж' * 60}{last}" for last in "абвг"]
    attachments = [f"{'%' * 255}{last}" for last in "abcd"]
    made = {object_name(user, ITEM, each, "image/jpeg") for user in users for each in attachments}
    assert len(made) == len(users) * len(attachments)


def test_a_shortened_part_is_no_part_that_another_id_has_whole() -> None:
    short = object_name("ж" * 60, ITEM, None, "image/jpeg").split("-")[1]
    assert object_name(short, ITEM, None, "image/jpeg") != object_name("ж" * 60, ITEM, None, "image/jpeg")


def test_a_name_that_fits_stays_whole() -> None:
    user = "u" * (MAX_NAME - len(f"ugi--{ITEM}.jpg"))
    assert object_name(user, ITEM, None, "image/jpeg") == f"ugi-{user}-{ITEM}.jpg"
    # beside it, the same user's names that do not fit
    other = object_name(user, ITEM, "ps:1", "image/jpeg")
    assert len(other) < MAX_NAME
    for name in (f"ugi-{user}-{ITEM}.jpg", other):
        assert belongs(name, user, ITEM)
        assert name.startswith(prefix(user, ITEM))


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
