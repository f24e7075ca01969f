"""docs/troubleshooting.md has every message that a person meets: refusals by reason, and lines of the log."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from glassq.errors import REASONS
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
# An exception that nobody expected: one row for all of them.
BUG = "bug in"


def entries() -> set[str]:
    """What stands in backticks in the first cell of a row."""
    cells = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    return {text for cell in cells for text in re.findall(r"`([^`]+)`", cell)}


def messages(source: Path) -> Iterator[str]:
    """The fixed beginnings of the lines that a file logs, of warning and above."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr not in ("warning", "error", "critical", "exception"):
            continue
        for each in ast.walk(node.args[0]):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value.partition("%")[0].rstrip(" :,")


def logged() -> set[str]:
    rooms = [path for path in (ROOT / "glassq").rglob("*.py") if "dev" not in path.relative_to(ROOT / "glassq").parts]
    found = {text for path in rooms for text in messages(path) if " " in text}
    return {text for text in found if not text.startswith(BUG)}


def test_each_reason_of_a_refusal_is_explained() -> None:
    assert set(REASONS) - entries() == set()


def test_each_warning_and_error_of_the_log_is_explained() -> None:
    known = logged()
    assert "not acknowledged" in known
    assert {text for text in known if not any(entry.startswith(text) for entry in entries())} == set()
    assert BUG in entries()


def test_nothing_is_explained_that_no_program_says() -> None:
    said = "\n".join(path.read_text("utf-8") for path in (ROOT / "glassq").rglob("*.py"))
    plain = re.sub(r'"\s*\n\s*f?"', "", said)
    gone = {entry for entry in entries() if entry.partition(" ...")[0] not in plain}
    assert gone - set(REASONS) == set()
