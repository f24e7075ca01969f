"""Every page, in both colours and at the size of a phone: accessible, within its screen, and silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import DESK, PHONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Tab
    from tests.browser.house import House

# The rules of WCAG 2.2, levels A and AA, and what axe's authors recommend beside. In the dark colours alone differ.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


def paths(house: House) -> list[str]:
    """One page of each kind."""
    delivery, cause = house.delivery("again"), house.cause("again")
    deliveries = [f"/d/{delivery}", f"/d/{delivery}?body=tree&order=newest", f"/d/{delivery}/edit"]
    return [*house.pages(), "/buried?group=0", "/buried?words=nowhere", f"/buried/{cause}", *deliveries]


@pytest.mark.parametrize(("colours", "rules"), [("light", RULES), ("dark", CONTRAST)], ids=["light", "dark"])
def test_axe_finds_nothing_on_any_page(
    colours: Literal["light", "dark"], rules: dict[str, Any], open_tab: Callable[..., Tab], house: House
) -> None:
    axe, tab, found = Axe(), open_tab(color_scheme=colours), {}
    for path in paths(house):
        tab.go(path)
        violations = axe.run(tab.page, options=rules).response["violations"]
        if violations:
            found[path] = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in violations]
    assert found == {}


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_no_page_is_wider_than_its_screen(size: dict[str, int], open_tab: Callable[..., Tab], house: House) -> None:
    tab, wide = open_tab(viewport=size, color_scheme="dark"), []
    for path in paths(house):
        tab.go(path)
        if tab.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    assert wide == []


def test_what_matters_at_night_fits_on_the_screen_of_a_phone(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(viewport=PHONE, color_scheme="dark")
    tab.go("/buried")
    for words in ("60 of", "Pause all", "ConnectionError: target", "Try one"):
        box = tab.page.get_by_text(words).last.bounding_box()
        assert box is not None, words
    first = tab.page.locator("main [data-row]").first.get_by_role("button", name="Try one").bounding_box()
    assert first is not None
    assert first["y"] + first["height"] <= PHONE["height"]


def test_every_page_shows_the_verdict_and_says_it_in_its_title_and_icon(tab: Tab, house: House) -> None:
    for path in paths(house):
        tab.go(path)
        assert "are one error, new since" in tab.words("#verdict"), path
        assert tab.page.title().startswith(("! ", "WRONG: ")), path
        assert "icon-" in (tab.page.locator("link[rel=icon]").get_attribute("href") or ""), path


def test_errors_are_pages_that_lead_on(open_tab: Callable[..., Tab], house: House) -> None:
    tab = open_tab(quiet=False)
    for path, words in (
        ("/none", "there is no such page"),
        ("/buried/0", "expected the 12 hex digits"),
        ("/d/x", "is no id"),
    ):
        assert tab.go(path).status in (400, 404)
        tab.sees(words)
        assert Axe().run(tab.page, options=RULES).response["violations"] == []
        tab.page.get_by_role("link", name="To the overview").wait_for()
