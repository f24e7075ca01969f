"""For who hears the pages, or sees them in colours of their own: rows, focus, announcements (test_looks.py: names)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import DESK, PHONE, refreshed
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Tab
    from tests.browser.house import House


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_table_stays_one_and_j_goes_to_a_row_that_is_read_whole(size, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(viewport=size)
    tab.go("/buried")
    tree = tab.page.locator("main table").aria_snapshot()
    assert tree.startswith('- table "Groups":')
    assert "columnheader" in tree
    assert "rowheader" in tree
    tab.press("j", "j")
    tab.press("k")
    row = tab.page.locator("tr[aria-current=true]")
    assert row.count() == 1
    assert row.evaluate("row => row === document.activeElement")
    assert f'row "{row.locator("td").first.inner_text()} ConnectionError: ' in row.aria_snapshot()
    # Tab goes on to what is in it, Enter opens it
    tab.press("Tab")
    assert tab.page.evaluate("document.activeElement.closest('tr[aria-current]') !== null")
    tab.press("j", "Enter")
    tab.at("/buried/[0-9a-f]{12}$")


def test_focus_stays_where_it_was_or_goes_to_the_row_that_took_the_place(tab: Tab, house: House) -> None:
    at = datetime.now(UTC) - timedelta(hours=50)
    gone = house.bury_ping("gone", b'{"does": "stored"}', "leaving: nobody knows why", at)
    house.wait_listed(gone)
    tab.go("/buried")
    row = tab.page.locator("tr", has_text="leaving:")
    row.get_by_role("button", name="Plan").focus()
    with refreshed(tab):
        house.wait_listed(house.bury("stopped", 1))
    assert "leaving:" in tab.page.evaluate("document.activeElement.closest('tr').innerText")
    house.queue.delete(int(house.json(f"/d/{gone}.json")["job"]["id"]))
    wait_for(lambda: house.counted() == house.buried(), "the console to see that one is gone")
    with refreshed(tab):
        pass
    row.wait_for(state="detached")
    assert tab.page.evaluate("document.activeElement.matches('tr[data-row][aria-current]')")


def test_what_changes_is_said_once(tab: Tab, house: House) -> None:
    told = tab.page.get_by_role("status")
    tab.go(f"/buried/{house.cause('spoken')}")
    tab.press("p")
    tab.at("/plans/")
    tab.page.get_by_label("all of them").check()
    tab.page.get_by_label("rate").fill("2/s")
    tab.press("Enter")
    tab.at("/runs/")
    told.filter(has_text="done").wait_for(state="attached")
    tab.go("/buried")
    tab.press("Space")
    told.filter(has_text="stands still").wait_for(state="attached")
    tab.press("Space")
    told.filter(has_text="live again").wait_for(state="attached")


def test_colours_of_ones_own_and_no_movement(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(forced_colors="active", reduced_motion="reduce")
    tab.go("/buried")
    tab.press("j", "Space")
    tab.sees("frozen by you", ".frozen")
    assert tab.page.evaluate("document.getAnimations().length") == 0
    assert tab.page.locator("tr[aria-current]").evaluate("row => getComputedStyle(row).outlineStyle") == "solid"
    border = "link => getComputedStyle(link).borderBottomColor"
    here, other = tab.page.locator(".nav [aria-current]"), tab.page.locator(".nav a:not([aria-current])").first
    assert here.evaluate(border) != other.evaluate(border)
    tab.press("Space")


def test_the_first_tab_skips_to_the_page(tab: Tab) -> None:
    tab.go("/buried")
    tab.press("Tab")
    assert tab.focused() == "Skip to the page"
    tab.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "main"
