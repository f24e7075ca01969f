"""Every page, in both colours, small and enlarged: accessible, nothing cut off or over another, and silent."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import DESK, PHONE
from tests.browser.layout import mislaid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from tests.browser.conftest import Tab
    from tests.browser.house import House

# The rules of WCAG 2.2, levels A and AA, and what axe's authors recommend beside. In the dark colours alone differ.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTRAST = {"type": "rule", "values": ["color-contrast"]}
# What is pressed or filled in.
CONTROLS = ("button", "DisclosureTriangle", "textbox", "searchbox", "combobox", "checkbox", "radio")
# WCAG 1.4.12: a page bears this without losing anything.
SPACED = """() => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`
        * { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }
        p { margin-bottom: 2em !important }`);
    document.adoptedStyleSheets = [sheet];
}"""
ENLARGED = "document.documentElement.style.fontSize = '200%'"
# A fourth of a screen of 1,280 pixels: WCAG 1.4.10.
SMALL = {"width": 320, "height": 640}


def violations(page: Page, rules: object) -> list[tuple[str, list[str]]]:
    """What axe finds: rules, each with the elements that break it."""
    run = "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
    found: list[dict[str, Any]] = page.evaluate(run, rules)["violations"]
    return [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]


def heard(page: Page) -> list[tuple[str, str]]:
    """The controls of a page as a screen reader has them: role and name."""
    session = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    shown = [node for node in nodes if not node["ignored"]]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]


def unnamed(page: Page, path: str) -> list[str]:
    """Names of controls that more than one of them has, and "" for those without."""
    # the tree of a body has the names that a stranger gave
    shown = [] if "body=tree" in path else heard(page)
    names = Counter(name.strip() for role, name in shown if role in CONTROLS)
    return [name for name, many in names.items() if many > 1 or not name]


def paths(house: House) -> list[str]:
    """One page of each kind, and those that are empty."""
    delivery, cause = house.delivery("again"), house.cause("again")
    more = ["/buried?group=0", "/buried?words=nowhere", f"/buried/{cause}", "/search?q=user_1", "/queues/glassq"]
    return [*house.pages(), *more, f"/d/{delivery}", f"/d/{delivery}?body=tree&order=newest", f"/d/{delivery}/edit"]


@pytest.mark.parametrize("half", [0, 1])
def test_each_page_is_accessible_loses_nothing_and_shows_the_verdict(half: int, tab: Tab, house: House) -> None:
    axe, page, found = Axe().axe_script, tab.page, []
    for path in paths(house)[half::2]:
        tab.go(path)
        page.evaluate(axe)
        found += [(path, "light", each) for each in violations(page, RULES)]
        found += [(path, "name", each) for each in unnamed(page, path)]
        page.emulate_media(color_scheme="dark")
        found += [(path, "dark", each) for each in violations(page, CONTRAST)]
        found += [(path, *each) for each in lost(page)]
        page.emulate_media(color_scheme="light")
        assert "are one error, new since" in tab.words("#verdict"), path
        assert page.get_by_text("Pause all").count() == 1, path
        # nothing in the console destroys
        buttons = " ".join(page.locator("button, summary, input[type=submit]").all_inner_texts())
        assert not re.search("delete|purge|remove|destroy|forget", buttons, re.IGNORECASE), (path, buttons)
        assert page.title().startswith(("! ", "WRONG: ")), path
        assert "icon-" in (page.locator("link[rel=icon]").get_attribute("href") or ""), path
    assert not found, "\n".join(map(str, found[:20]))


def lost(page: Page) -> Iterator[tuple[str, str]]:
    """What lies wrong on small screens, with wide text, and enlarged to twice the size."""
    page.set_viewport_size(SMALL)
    yield from (("small", wrong) for wrong in mislaid(page))
    page.set_viewport_size(PHONE)
    page.evaluate(SPACED)
    yield from (("spaced", wrong) for wrong in mislaid(page))
    page.evaluate("document.adoptedStyleSheets = []")
    page.set_viewport_size(DESK)
    yield from (("desk", wrong) for wrong in mislaid(page))
    page.evaluate(ENLARGED)
    yield from (("enlarged", wrong) for wrong in mislaid(page))


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
