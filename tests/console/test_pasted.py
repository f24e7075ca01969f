"""What [copy] gives is pasted into a terminal: a bash runs that one command, whatever a stranger has named things."""

from __future__ import annotations

import html
import os
import pty
import re
import select
import shutil
import time
from itertools import chain, count
from typing import TYPE_CHECKING
from urllib.parse import quote

import falcon.testing
import pytest

from glassq.console.app import create_app
from glassq.delivery import encode
from glassq.operations.filters import Filter
from tests.cli.conftest import a_delivery, evidence, put
from tests.console.test_plans import location, look

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.console.conftest import Browser, Site
    from tests.queues.raw import Queue

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="no bash")

# What whoever sends pings, or sends links, would like to see in a shell: each makes the file `evil`, if it runs.
EVIL = [
    "$(touch evil)",
    "`touch evil`",
    "'; touch evil; '",
    '"; touch evil; "',
    "x\ntouch evil\n",
    "x'\ntouch evil\n'",
    "x\r touch evil\r",
    # of a terminal that sends what is pasted as if it was typed: interrupt, erase the line, end of the paste
    "x\x03touch evil\n",
    "x\x15touch evil\n",
    "x\x1b[201~\ntouch evil\n",
    "x\x16\x03\x04touch evil\n",
    "a\t\ttouch evil\n",
    "x\n!!\n!-1\ntouch evil",
    "-rf",
    "--config=evil",
    "--all",
    "~root",
    "*",
    "a\u202e\u2066live\u2069 hcuot",
    "\x00touch evil",
    "\x7f\x7f\x7f\x7f touch evil",
    "; touch evil #",
    "&& touch evil",
    "| touch evil",
    "$'\\n'touch evil",
    "\\",
    "\\\ntouch evil",
]


class Bash:
    """A bash at a terminal, without bracketed paste, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._number = 0
        environ = {"PATH": "/usr/bin:/bin", "TERM": "dumb", "HOME": str(directory), "LC_ALL": "C.UTF-8", "PS1": "$ "}
        pid, self._terminal = pty.fork()
        if not pid:
            os.chdir(directory)
            os.execve(shutil.which("bash") or "", ["bash", "--norc", "--noprofile", "-i"], environ)
        self._pid = pid
        self._type("bind 'set enable-bracketed-paste off'\n")
        for name in ("glassq", "journalctl"):
            self._type(f"{name}() {{ printf '%s\\0' {name} \"$@\" > ran; }}\n")
        self._wait()

    def paste(self, text: str) -> list[str]:
        """What ran, with its arguments, once it is over."""
        ran = self.directory / "ran"
        ran.unlink(missing_ok=True)
        self._type(f"{text}\n")
        self._wait()
        return ran.read_text().split("\0")[:-1] if ran.exists() else []

    def end(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)

    def _type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _wait(self) -> None:
        """Until the shell has done all that was typed."""
        self._number += 1
        self._type(f"echo over-$(({self._number} + 1000))\n")
        self._until(f"over-{self._number + 1000}".encode())

    def _until(self, words: bytes) -> None:
        seen, deadline = b"", time.monotonic() + 20
        while words not in seen:
            assert select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))[0], seen
            seen += os.read(self._terminal, 65_536)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Bash]:
    directory = tmp_path / "home"
    directory.mkdir()
    made = Bash(directory)
    yield made
    made.end()


@pytest.fixture
def browser(house: Site) -> Browser:
    """An operator's, whom no rate holds up."""
    seconds = count()
    house.client = falcon.testing.TestClient(create_app(house.console, tick=lambda: float(next(seconds))))
    return house.signed_in()


def copied(browser: Browser, path: str) -> list[str]:
    """What the buttons of a page copy: app.js takes the text of an element, without blanks around it."""
    page = browser.get(path)
    assert page.status_code == 200, page.text
    texts = []
    for id_ in re.findall(r'data-copy="([^"]+)"', page.text):
        found = re.search(rf'<(?:code|span)[^>]* id="{id_}"[^>]*>(.*?)</(?:code|span)>', page.text, re.DOTALL)
        assert found is not None, id_
        texts.append(html.unescape(found[1]).strip())
    return [text for text in texts if text.startswith(("glassq ", "journalctl "))]


def test_a_link_by_mail_has_one_command_pasted_and_no_other(browser: Browser, bash: Bash) -> None:
    pages = ["/buried?words={}", "/buried?group=0&source={}", "/live?tube={}", "/live?source={}", "/activity?who={}"]
    for evil in EVIL:
        for page in pages:
            for text in copied(browser, page.format(quote(evil))):
                ran = bash.paste(text)
                assert ran[0] == "glassq", (text, ran)
                assert ran[1] in ("buried", "tail", "activity")
        assert sorted(each.name for each in bash.directory.iterdir() if each.name != ".bash_history") == ["ran"], evil


def test_what_a_delivery_is_called_runs_nothing(house: Site, browser: Browser, queue: Queue, bash: Bash) -> None:
    for evil in EVIL:
        error = f"{evil} failed"
        delivery = a_delivery(id=f"0199{evil}0000", source=evil, buried=error, attempt=2, evidence=(evidence(error),))
        put(queue, delivery, "buried")
    queue.put(encode(a_delivery()), tube="glassq.queue.$(touch$IFS/evil);x")
    look(house)
    census = house.console.census.snapshot()
    entries = census.matching(Filter(), house.clock())
    assert len(entries) == len(EVIL)
    forms = [{"id": entry.ref} for entry in entries] + [{"cause": group.cause.id} for group in census.groups]
    plans = (location(browser.post("/plan/kick", form), "/plans/") for form in forms)
    for path in chain((f"/d/{quote(entry.ref)}" for entry in entries), plans):
        for text in copied(browser, path):
            ran = bash.paste(text)
            assert ran[:1] in (["glassq"], ["journalctl"]), (text, ran)
    assert sorted(each.name for each in bash.directory.iterdir() if each.name != ".bash_history") == ["ran"]
