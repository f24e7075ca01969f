from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.edited import MAX_FILE, decode, read_text, secret_lines, trimmed
from glassq.errors import UnreadableText

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "a = 1\r\nb = 'ä'\n"


def test_a_byte_order_mark_is_no_part_of_a_text_and_line_ends_stay(tmp_path: Path) -> None:
    for data in (TEXT.encode(), TEXT.encode("utf-8-sig"), b"\xef\xbb\xbf" * 2 + TEXT.encode()):
        (tmp_path / "f").write_bytes(data)
        assert read_text(tmp_path / "f") == TEXT


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32")],
)
def test_another_encoding_is_named_and_what_to_do(encoding: str, name: str) -> None:
    with pytest.raises(UnreadableText, match=f"is not UTF-8 text but {name}: save it as UTF-8"):
        decode(TEXT.encode(encoding))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_byte_that_is_not_utf_8_is_named_by_its_place_alone(encoding: str) -> None:
    with pytest.raises(UnreadableText, match=r"is not UTF-8 text \(line 2, byte 6\): save it as UTF-8") as caught:
        decode(TEXT.encode(encoding))
    assert "ä" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"a\0b = 1\n", b"\0" * 8, "ключ".encode()])
def test_what_only_looks_odd_is_not_taken_for_another_encoding(data: bytes) -> None:
    assert decode(data) == data.decode()


def test_a_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreadableText, match="cannot be read: No such file"):
        read_text(tmp_path / "nowhere")
    with pytest.raises(UnreadableText, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    with pytest.raises(UnreadableText, match="cannot be read: embedded null byte"):
        read_text("a\0b")
    with pytest.raises(UnreadableText, match="is too large: expected a file of at most 256 KiB"):
        read_text("/dev/zero")
    (tmp_path / "f").write_bytes(b"a" * MAX_FILE)
    assert len(read_text(tmp_path / "f")) == MAX_FILE


@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo\n",
        "one\r\ntwo",
        "one\rtwo\r",
        "  one \t\n\n# no secret\n two\n",
        "\u00a0one\u00a0\n\u200btwo\u200b\u2028\n",
        "one\n\ufefftwo\n\ufeff# no secret",
    ],
)
def test_what_stands_around_a_secret_does_not_belong_to_it(text: str) -> None:
    assert secret_lines(text) == ["one", "two"]


@pytest.mark.parametrize("secret", ["two words", "пароль", "second#", "ключ 🔑", '"quoted"'])
def test_a_secret_may_be_any_text_that_can_be_seen(secret: str) -> None:
    assert secret_lines(f"{secret}\n") == [secret]


@pytest.mark.parametrize(
    ("hidden", "name"),
    [
        ("\u200b", "U\\+200B ZERO WIDTH SPACE"),
        ("\u00a0", "U\\+00A0 NO-BREAK SPACE"),
        ("\ufeff", "U\\+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("\u202e", "U\\+202E RIGHT-TO-LEFT OVERRIDE"),
        ("\0", "U\\+0000"),
        ("\t", "U\\+0009"),
    ],
)
def test_what_cannot_be_seen_inside_a_secret_is_refused_with_its_place(hidden: str, name: str) -> None:
    with pytest.raises(UnreadableText, match=rf"\({name}\) inside a secret, in line 2, column 5") as caught:
        secret_lines(f"# a comment{hidden}!\n  s3{hidden}cret\n")
    assert "s3" not in str(caught.value)


def test_trimming_a_text_of_nothing_visible_leaves_nothing() -> None:
    assert trimmed("\ufeff \u200b\n") == ""
    assert trimmed(" a b ") == "a b"
