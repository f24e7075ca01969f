"""What lies wrong on a page, whatever texts it has: wider than the screen, over one another, or cut off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Boxes of text may touch one another by so many pixels: a line's box is higher than its letters.
_SLACK = 3
# Of texts that are wrong so many are named; in characters of each.
_NAMED, _LENGTH = 8, 40

_FIND = (Path(__file__).parent / "layout.js").read_text()


def mislaid(page: Page) -> list[str]:
    """What lies wrong on this page at the size of its screen; the first of it, in words."""
    found: list[str] = page.evaluate(_FIND, [_SLACK, _NAMED, _LENGTH])
    return found
