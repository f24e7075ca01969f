"""What tables look like where there is little room, and what is never shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from glassq.cli.output import MANY_ROWS, PipedConsole, print_facts, print_hints, print_table, table
from glassq.values import without_password


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_an_id_is_never_cut_into_another_one(width: int) -> None:
    out = Console(width=width, file=io.StringIO(), markup=False)
    cells = ("56942", "01a2097f-b96d-7167-8445-4fc3f844e2f7", "3d 4h", "mirror", "8", "a reason of some words " * 5)
    print_table(out, table("", ("job", "delivery", "age", "source", "attempts", "reason"), [cells], wraps="reason"))
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "56942" in said.split()
    assert "01a2097f-b96d-7167-8445-4fc3f844e2f7" in said
    assert said.count("reason") == 6


def test_a_long_table_looks_like_a_short_one() -> None:
    rows = [
        (str(number), "wide: \u8a9e\u8a9e" if number % 2 else "plain", number * 1000) for number in range(MANY_ROWS)
    ]
    said = []
    for more in ([], [("a", "b", "c")]):
        out = Console(width=200, file=io.StringIO(), markup=False)
        print_table(out, table("", ("number", "words", "thousands"), rows + more, wraps="words"))
        said.append([line.split() for line in out.file.getvalue().splitlines()])  # type: ignore[attr-defined]
    short, long = said
    assert long == [*short, ["a", "b", "c"]]


def test_no_line_that_goes_into_a_pipe_ends_in_blanks() -> None:
    out = PipedConsole(width=200, file=io.StringIO(), markup=False)
    print_table(out, table("", ("name", "words"), [("a", "longer"), ("b", "x")]))
    print_facts(out, [("name", "value"), ("longer name", "")])
    assert out.file.getvalue() == "name  words\na     longer\nb     x\nname         value\nlonger name\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (
            60,
            "job   age    reason\n"
            "5694  3d 4h  HttpError: 503 from photos.example, tried\n"
            "             eight times\n"
            "5     2s\n",
        ),
        (
            30,
            "job   age\n  reason\n5694  3d 4h\n  HttpError: 503 from\n  photos.example, tried eight\n  times\n"
            "5     2s\n",
        ),
        (
            10,
            "job 5694\n  age 3d 4h\n  reason HttpError: 503 from\n  photos.example, tried eight\n  times\n"
            "job 5\n  age 2s\n",
        ),
    ],
)
def test_a_table_that_is_too_wide_folds_between_words(width: int, shown: str) -> None:
    out = Console(width=width, file=io.StringIO(), markup=False, highlight=False)
    rows = [("5694", "3d 4h", "HttpError: 503 from photos.example, tried eight times"), ("5", "2s", "")]
    print_table(out, table("", ("job", "age", "reason"), rows, wraps="reason"))
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "".join(f"{line.rstrip()}\n" for line in said.splitlines()) == shown


def test_a_command_in_a_sentence_is_not_broken() -> None:
    out = Console(width=40, file=io.StringIO(), markup=False, highlight=False)
    print_hints(out, ["3 deliveries are buried; for their causes: `glassq buried --by reason`"])
    assert out.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "! 3 deliveries are buried; for their",
        "  causes: `glassq buried --by reason`",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:S@CRET@h/db?password=SECRET",
        "postgresql://u:SECRET@h/db",
        "mysql://h/db?user=u&ssl_key_password=SECRET&x=1",
    ],
)
def test_no_part_of_a_password_is_shown(url: str) -> None:
    assert "CRET" not in without_password(url)
    assert without_password(url).startswith(url.partition(":")[0])


def test_words_of_a_column_that_does_not_wrap_are_not_cut_off_on_a_narrow_terminal() -> None:
    out = Console(width=40, file=io.StringIO(), markup=False, highlight=False)
    row = ("a cell of several words", "reasons " * 8, "another one of them")
    print_table(out, table("", ("first of all", "why", "secrets, last used"), [row], wraps="why"))
    said = out.file.getvalue()  # type: ignore[attr-defined]
    for words in (row[0], row[2], "secrets, last used"):
        assert words in said
