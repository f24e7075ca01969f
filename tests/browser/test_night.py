"""The night of five causes, by keyboard alone: a real pool has worked and buried it all, and works it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import Tab
from tests.browser.night import CAUSES, Night

if TYPE_CHECKING:
    import pytest
    from playwright.sync_api import Browser

# From the overview to "nothing is wrong". Whoever needs more has made the night longer; whoever needs fewer says so.
KEYS = 20


def test_a_night_of_five_causes_takes_twenty_keys(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Night(tmp_path_factory.mktemp("night")) as night:
        context = browser.new_context()
        tab = Tab(context.new_page(), night.url)
        tab.page.goto(night.link())
        tab.press("Enter")
        tab.at("/$")
        tab.keys = 0
        # the biggest: a target is down, and stays down: a trial stops by itself
        tab.sees_soon("maps answered 503", "#verdict")
        tab.press("l")
        tab.at("/buried/")
        tab.press("p")
        _carry_out(tab)
        tab.sees_soon("It stopped by itself: 1 of 1 failed again.", "#why")
        tab.sees(f"{CAUSES['maps'] - 1} were not touched", "#why")
        tab.sees("ConnectionError: maps answered 503", "#why")
        # so it is kept for the morning: a file, and Undo
        tab.press("e")
        _carry_out(tab)
        _ends(tab, CAUSES["maps"])
        tab.page.get_by_role("button", name="Undo").wait_for()
        # what a release had broken, and the next one mended; and an outage that is over: one, then the rest
        for words, count in (("KeyError", CAUSES["broken"]), ("photos answered 503", CAUSES["photos"])):
            tab.sees_soon(words, "#verdict")
            _try_then_all(tab, count)
        # what was killed at its deadline
        tab.sees_soon("clock", "#verdict")
        _try_then_all(tab, CAUSES["slow"])
        # bytes that no handler can read
        tab.sees_soon("damaged", "#verdict")
        tab.press("l")
        tab.at("/buried/")
        tab.press("e")
        _carry_out(tab)
        _ends(tab, CAUSES["garbage"])
        tab.sees_soon("nothing is wrong", "#verdict")
        assert tab.keys == KEYS
        assert night.buried() == 0
        assert not tab.page.title().startswith(("!", "WRONG"))
        assert tab.said == []
        # the queue itself ends: that comes first, on every page, in its title and its icon
        night.stop_queue()
        tab.sees_soon("the queue cannot be looked at", "#verdict")
        assert tab.page.title().startswith("WRONG: ")
        assert "icon-wrong" in (tab.page.locator("link[rel=icon]").get_attribute("href") or "")
        context.close()


def _carry_out(tab: Tab) -> None:
    tab.at("/plans/")
    tab.has_focus("Carry out")
    tab.press("Enter")
    tab.at("/runs/")


def _ends(tab: Tab, count: int) -> None:
    tab.sees_soon("done", "main .head")
    tab.sees(f"{count} of {count}")


def _try_then_all(tab: Tab, count: int) -> None:
    """One, and the others when that went well."""
    tab.press("t")
    _carry_out(tab)
    _ends(tab, 1)
    tab.press("p")
    _carry_out(tab)
    _ends(tab, count - 1)
    if count > 12:
        tab.sees("10 went well: the next ones follow")
