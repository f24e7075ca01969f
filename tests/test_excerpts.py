"""Texts out of code that is not ours: short, whatever they come from, and had without any failure."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from glassq.excerpts import (
    MAX_EXCEPTIONS,
    MAX_FRAMES,
    MAX_MESSAGE,
    MAX_NOTES,
    UNPRINTABLE,
    json_of,
    text_of,
    traceback_of,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ENDS = [SystemExit(3), KeyboardInterrupt(), RecursionError(), MemoryError(), GeneratorExit(), BaseException("x")]
# Of any traceback, in characters; a message, its notes and twenty frames of each exception.
MOST = MAX_EXCEPTIONS * (MAX_MESSAGE * (MAX_NOTES + 2) + MAX_FRAMES * 1_000)


class Mean(Exception):
    """Ends whoever asks it for a text."""

    def __init__(self, end: BaseException) -> None:
        self.end = end

    def __str__(self) -> str:
        raise self.end

    __repr__ = __str__


class Odd(str):
    __slots__ = ()

    def __getitem__(self, _: object) -> str:
        raise SystemExit(4)

    def __str__(self) -> str:
        return self


def caught(raises: Callable[[], object]) -> BaseException:
    try:
        raises()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_an_object_that_ends_whoever_asks_has_a_text_all_the_same(end: BaseException) -> None:
    error = Mean(end)
    assert text_of(error, 100) == UNPRINTABLE
    assert words_of(error, 100) == f"Mean: {UNPRINTABLE}"
    assert f"Mean: {UNPRINTABLE}" in traceback_of(error)
    assert json_of({"a": error}, 100, strict=False) == json.dumps({"a": UNPRINTABLE})
    with pytest.raises(ValueError, match="not JSON serializable"):
        json_of({"a": error}, 100, strict=True)


def test_a_text_is_cut_by_us_and_not_by_its_own_methods() -> None:
    assert text_of(Odd("abcdef"), 3) == "abc"


def test_a_traceback_names_the_line_that_failed_behind_what_caused_it() -> None:
    def cause() -> None:
        raise KeyError("first")

    def fail() -> None:
        try:
            cause()
        except KeyError as error:
            raise json.JSONDecodeError("second", "{", 1) from error

    lines = traceback_of(caught(fail)).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert '    raise KeyError("first")' in lines
    assert lines.index("KeyError: 'first'") < lines.index(
        "The above exception was the direct cause of the following exception:"
    )
    assert lines[-1] == "json.decoder.JSONDecodeError: second: line 1 column 2 (char 1)"


def test_a_group_shows_where_its_members_failed() -> None:
    def fail() -> None:
        raise ExceptionGroup("two", [caught(lambda: 1 / 0), ValueError("no")])  # type: ignore[list-item]

    text = traceback_of(caught(fail))
    assert re.search(r"ExceptionGroup: two .2 sub-exceptions.\n  \+-- 1 of 2\n  \| Traceback", text)
    assert "  | ZeroDivisionError: division by zero\n  +-- 2 of 2\n  | ValueError: no\n" in text


def huge() -> BaseException:
    return ValueError('"token": ' * 1_000_000)


def chain() -> BaseException:
    error: BaseException = ValueError("innermost")
    for number in range(20_000):
        following = ValueError(f"number {number} " + "x" * 1_000)
        following.__cause__ = error
        error = following
    return error


def loop() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def crowd() -> BaseException:
    return ExceptionGroup("many", [ValueError("x" * 1_000) for _ in range(50_000)])


def nest() -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(2_000):
        error = ExceptionGroup("x" * 1_000, [error])
    return error


def noted() -> BaseException:
    error = ValueError("no")
    for _ in range(10_000):
        error.add_note("x" * 10_000)
    return error


def oddly_noted() -> BaseException:
    error = ValueError("no")
    error.__notes__ = [Mean(SystemExit(1))]  # type: ignore[list-item]
    return error


def deep() -> BaseException:
    def down() -> None:
        down()

    return caught(down)


def made() -> BaseException:
    name = "x" * 1_000_000
    return caught(lambda: exec(compile(f"{name}()", name, "exec")))


def fieldless() -> BaseException:
    class Fieldless(ValueError):
        @property
        def __cause__(self) -> Any:
            raise SystemExit(5)

    return Fieldless("no")


@pytest.mark.parametrize(
    "make", [huge, chain, loop, crowd, nest, noted, oddly_noted, deep, made, fieldless], ids=lambda make: make.__name__
)
def test_a_traceback_is_short_and_soon_there_whatever_the_exception_holds(make: Callable[[], BaseException]) -> None:
    error = make()
    taken = []
    for _ in range(3):
        started = time.thread_time()
        text = traceback_of(error)
        taken.append(time.thread_time() - started)
    # it takes milliseconds; a pattern or a pass for each member takes half a minute, each time. The least counts: a
    # virtual machine that was stopped meanwhile takes that for ours
    assert min(taken) < 5
    assert type(error).__name__ in text
    assert len(text) < MOST


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def test_a_value_that_is_too_large_is_not_written_whole() -> None:
    class Endless(dict[str, int]):
        def items(self) -> Any:
            while True:
                yield "key", 1

    for value in ("x" * 10_000_000, ["x"] * 10_000_000, Endless(a=1)):
        assert 100 < len(json_of(value, 100, strict=True)) < 300


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1: ..., ("a", 1): 2}, "Object of type ellipsis"),
        (float("nan"), "Out of range float values"),
        (nested(100_000), "RecursionError"),
        ([(looped := [1]), looped.append(looped)], "Circular reference"),  # type: ignore[func-returns-value, arg-type]
        (b"x", "Object of type bytes"),
    ],
)
def test_what_json_has_no_form_for_is_refused_with_the_reason(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        json_of(value, 1_000, strict=True)
