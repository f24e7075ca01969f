"""Every page, in both colours, at a desk and on a phone: accessible, within its screen, and silent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import DESK, PHONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Tab
    from tests.browser.house import House

# The rules of WCAG 2.2, levels A and AA, and what axe's authors recommend beside. In the dark colours alone differ.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTRAST = {"type": "rule", "values": ["color-contrast"]}


def violations(page: Page, rules: object) -> list[tuple[str, list[str]]]:
    """What axe finds: rules, each with the elements that break it."""
    run = "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
    found: list[dict[str, Any]] = page.evaluate(run, rules)["violations"]
    return [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]


def paths(house: House) -> list[str]:
    """One page of each kind, and those that are empty."""
    delivery, cause = house.delivery("again"), house.cause("again")
    more = ["/buried?group=0", "/buried?words=nowhere", f"/buried/{cause}", "/search?q=user_1", "/queues/glassq"]
    return [*house.pages(), *more, f"/d/{delivery}", f"/d/{delivery}?body=tree&order=newest", f"/d/{delivery}/edit"]


@pytest.mark.parametrize("half", [0, 1])
def test_each_page_is_accessible_fits_its_screen_and_shows_the_verdict(half: int, tab: Tab, house: House) -> None:
    axe, page, found = Axe().axe_script, tab.page, []
    for path in paths(house)[half::2]:
        tab.go(path)
        page.evaluate(axe)
        found += [(path, "light", each) for each in violations(page, RULES)]
        page.emulate_media(color_scheme="dark")
        found += [(path, "dark", each) for each in violations(page, CONTRAST)]
        for size in (PHONE, DESK):
            page.set_viewport_size(size)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append((path, "too wide", size))
        page.emulate_media(color_scheme="light")
        assert "are one error, new since" in tab.words("#verdict"), path
        assert page.get_by_text("Pause all").count() == 1, path
        # nothing in the console destroys
        buttons = " ".join(page.locator("button, summary, input[type=submit]").all_inner_texts())
        assert not re.search("delete|purge|remove|destroy|forget", buttons, re.IGNORECASE), (path, buttons)
        assert page.title().startswith(("! ", "WRONG: ")), path
        assert "icon-" in (page.locator("link[rel=icon]").get_attribute("href") or ""), path
    assert found == []


def test_what_matters_at_night_fits_on_the_screen_of_a_phone(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(viewport=PHONE, color_scheme="dark")
    tab.go("/buried")
    first = tab.page.locator("main [data-row]").first
    for what in (
        tab.page.locator("#verdict p"),
        tab.page.get_by_text("Pause all"),
        first.get_by_text("target"),
        first.get_by_role("button", name="Try one"),
    ):
        box = what.first.bounding_box()
        assert box is not None, what
        assert box["x"] >= 0 <= box["y"]
        assert box["y"] + box["height"] <= PHONE["height"], what
        assert box["x"] + box["width"] <= PHONE["width"], what


def test_errors_are_pages_that_lead_on(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(quiet=False)
    wrong = (("/none", "there is no such page"), ("/buried/0", "expected the 12 hex digits"), ("/d/x", "is no id"))
    for path, words in wrong:
        assert tab.go(path).status in (400, 404)
        tab.sees(words)
        tab.page.get_by_role("link", name="To the overview").wait_for()
    tab.page.evaluate(Axe().axe_script)
    assert violations(tab.page, RULES) == []
