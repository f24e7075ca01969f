"""Who closes or replaces a descriptor: its owner may, nobody else."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import pytest

from glassq import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def nothing(_file: IO[str], _other: int) -> None:
    """Leaves it as it is."""


def close(file: IO[str], _other: int) -> None:
    os.close(file.fileno())


def replace(file: IO[str], other: int) -> None:
    os.dup2(other, file.fileno())


def owner_closes(file: IO[str], _other: int) -> None:
    file.close()


def owner_closes_and_another_gets_the_number(file: IO[str], other: int) -> None:
    number = file.fileno()
    file.close()
    os.dup2(other, number)


@pytest.mark.parametrize(
    ("do", "lost"),
    [
        (nothing, False),
        (close, True),
        (replace, True),
        (owner_closes, False),
        (owner_closes_and_another_gets_the_number, False),
    ],
)
def test_what_others_do_to_it_is_noticed(tmp_path: Path, do: Callable[[IO[str], int], None], *, lost: bool) -> None:
    found: list[str] = []
    before = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    file = (tmp_path / "own").open("w")
    number = file.fileno()
    descriptors.own(file, "a file of this test")
    descriptors.tell(found.append)
    try:
        do(file, before)
        descriptors.check()
        assert (["a file of this test"] if lost else []) == found
        assert descriptors.lost() == ("a file of this test" if lost else "")
    finally:
        descriptors.tell(None)
        os.dup2(before, number)
        os.close(before)
        if file.closed:
            os.close(number)
        else:
            file.close()
