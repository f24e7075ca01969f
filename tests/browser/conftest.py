"""A real browser at a real console: chromium without a window, driven by playwright.

Where the browser is missing these tests are left out (`make` says so); with GLASSQ_REQUIRE=all they fail.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.house import House

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page, Response

# Names of hosts for evil pages: this machine.
RULES = "MAP *.test 127.0.0.1"
# Of anything that is waited for, in milliseconds: on a loaded machine a page takes its time.
PATIENCE = 30_000
# Between two looks at a page, in milliseconds: a session may ask 20 times a second.
BETWEEN = 100
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1_440, "height": 900}


class Tab:
    """A tab of a browser that has signed in. `said` is all that pages and the browser said in its console."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.said: list[str] = []
        self.asked: list[str] = []
        self.keys = 0
        page.on("console", lambda message: self.said.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"{page.url}: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))
        page.set_default_timeout(PATIENCE)

    def go(self, path: str) -> Response:
        """Opens a page of the console."""
        answer = self.page.goto(f"{self.url}{path}")
        assert answer is not None
        return answer

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other, and counts them."""
        for key in keys:
            self.keys += 1
            self.page.keyboard.press(key)

    def at(self, pattern: str) -> None:
        """Waits until it is at such a path."""
        self.page.wait_for_url(re.compile(re.escape(self.url) + pattern))

    def words(self, selector: str = "main") -> str:
        """What stands there."""
        return self.page.locator(selector).first.inner_text()

    def sees(self, words: str, selector: str = "main") -> None:
        """Waits until these words stand there."""
        self.page.locator(selector).get_by_text(words).first.wait_for()

    def sees_soon(self, words: str, selector: str = "main") -> None:
        """The same of what is live, without waiting for the page to ask by itself."""
        place = self.page.locator(selector).get_by_text(words).first
        deadline = time.monotonic() + PATIENCE / 1_000
        while not place.is_visible():
            assert time.monotonic() < deadline, f"{words!r} is not in {self.words(selector)!r}"
            self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            self.page.wait_for_timeout(BETWEEN)

    def has_focus(self, words: str) -> None:
        """Waits until what says this has the focus: the browser gives it a moment after the page is there."""
        self.page.wait_for_function("words => document.activeElement?.innerText === words", arg=words)

    def focused(self) -> str:
        """The words of what has the focus."""
        text: str = self.page.evaluate("document.activeElement.innerText || document.activeElement.value || ''")
        return text


Opener = "Callable[..., Tab]"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium-headless-shell")
    if program is None:
        words = "chromium-headless-shell is missing: make setup"
        (pytest.fail if os.environ.get("GLASSQ_REQUIRE") == "all" else pytest.skip)(words)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", f"--host-resolver-rules={RULES}"]
        made = playwright.chromium.launch(executable_path=program, args=arguments)
        yield made
        made.close()


@pytest.fixture(scope="session")
def house(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """After the browser: without one it is not needed."""
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture(scope="session")
def signed_in(browser: Browser, house: House) -> Any:
    """The cookies of a browser that has signed in by the link, pressing Enter."""
    context = browser.new_context()
    tab = Tab(context.new_page(), house.url)
    tab.page.goto(house.link())
    tab.has_focus("Sign in as anna (operator)")
    tab.press("Enter")
    tab.at("/$")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def open_tab(browser: Browser, house: House, signed_in: Any) -> Iterator[Callable[..., Tab]]:
    """Opens tabs; in the end none may have said anything."""
    opened: list[Tab] = []

    def opens(*, quiet: bool = True, **options: Any) -> Tab:
        context = browser.new_context(**{"storage_state": signed_in, "viewport": DESK, **options})
        tab = Tab(context.new_page(), house.url)
        if quiet:
            opened.append(tab)
        return tab

    yield opens
    said = [words for tab in opened for words in tab.said]
    for context in browser.contexts:
        context.close()
    assert said == []


@pytest.fixture
def tab(open_tab: Callable[..., Tab]) -> Tab:
    """A tab at a desk, in light colours."""
    return open_tab()


@contextmanager
def refreshed(tab: Tab) -> Iterator[None]:
    """The block's changes, and then a refresh of what is live, at once rather than in some seconds."""
    yield
    with tab.page.expect_response(lambda answer: answer.request.headers.get("glassq-live") == "1"):
        tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
