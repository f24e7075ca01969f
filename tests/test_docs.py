"""What the documents say can be typed, followed and run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import click
import pytest

from glassq.cli.app import App
from glassq.cli.main import cli
from glassq.errors import InvalidRequest
from glassq.sources.presets import PRESETS
from glassq.testing import work
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")]
    + [path for path in (ROOT / "conf").iterdir() if path.is_file() and path.suffix != ".json"]
    + [path for path in (ROOT / "systemd").iterdir() if path.is_file()]
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]

# A command is a line of its own in a block, perhaps behind a way to the program; or what an alert says to type; or it
# stands in backticks.
_LINE = re.compile(r"^ {3,}(?:\S*/)?glassq ([a-z-][^`\n]*)$", re.MULTILINE)
_TYPED = re.compile(r"\bType: (.*)")
_COMMAND = re.compile(r"\bglassq ([a-z-][^;]*)")
_SPAN = re.compile(r"`(?:\S*/)?glassq\s([^`]+)`")
# What shells take for themselves ends it.
_END = re.compile(r"\s(?:[|>;#]|&&|2>)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

README = (ROOT / "README.md").read_text("utf-8")
PICTURE = ROOT / "docs" / "architecture.svg"
_SVG = "{http://www.w3.org/2000/svg}"
_WORD = re.compile(r"(?<![\w/.-])[\w-]+(?:[./][\w-]+)*/?")
_FILE = (".py", ".md", ".toml", ".yaml", ".svg", ".lock")
# Newcomers read it in five minutes.
MAX_LINES = 160
MAX_PICTURE = 12 << 10
# of a recorded terminal
MAX_RECORDED = 40 << 10


def test_there_are_documents() -> None:
    assert {"README.md", "docs/operating.md", "docs/handlers.md", "docs/settings.md", "conf/glassq.toml"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    assert dead_links(ROOT / name) == []


def dead_links(page: Path) -> list[str]:
    """Those of a page that lead nowhere on this disk."""
    # a symlink to a page is read where the page is
    page, dead = page.resolve(), []
    for link in _LINK.findall(page.read_text("utf-8")) if page.suffix == ".md" else ():
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            dead.append(link)
    return dead


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_can_be_typed(name: str) -> None:
    wrong = []
    for words, whole in commands((ROOT / name).read_text("utf-8")):
        try:
            parse(words, whole=whole)
        except click.ClickException as error:
            wrong.append(f"glassq {shlex.join(words)}: {error.format_message()}")
    assert wrong == []


def commands(text: str) -> Iterator[tuple[list[str], bool]]:
    """The arguments of every `glassq ...` in a page, and whether all of them are there: a mention may lack some."""
    # in a unit or a settings file all of this stands in comments
    text = re.sub(r"^# ", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    typed = (part for line in _TYPED.findall(text) for part in _COMMAND.findall(line))
    for line in (*_LINE.findall(text), *typed):
        yield shlex.split(_END.split(f"{line} ")[0]), True
    for line in _SPAN.findall(text):
        yield shlex.split(_END.split(f"{line} ")[0]), False


def parse(words: list[str], *, whole: bool) -> None:
    """Has click read the arguments, and runs nothing. Raises click.ClickException where they cannot be meant."""
    command: click.Command = cli
    context: click.Context | None = None
    name: str | None = "glassq"
    while True:
        try:
            context = command.make_context(name, list(words), parent=context, obj=App(None, {}))
        except click.exceptions.Exit:
            # --help, --version
            return
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
            if whole:
                raise
            return
        except click.BadParameter as error:
            if "does not exist" in error.message:
                # a file that stands for the reader's own
                return
            raise
        words = [*context._protected_args, *context.args]
        if not isinstance(command, click.Group) or not words:
            return
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found


@pytest.mark.parametrize(
    "text",
    [
        "`glassq stats`",
        "`glassq kick --where`",
        "    glassq show\n",
        "    glassq buried --wehre x\n",
        "    bin/glassq move 7 --to\n",
    ],
)
def test_a_command_that_is_not_there_is_found(text: str) -> None:
    ((words, whole),) = commands(text)
    with pytest.raises((click.ClickException, InvalidRequest)):
        parse(words, whole=whole)


@pytest.mark.parametrize(("page", "tool"), [("settings.md", "settings_docs.py"), ("sources.md", "senders_docs.py")])
def test_a_page_that_a_tool_makes_is_up_to_date(page: str, tool: str, tmp_path: Path) -> None:
    fresh = tmp_path / page
    subprocess.run([sys.executable, ROOT / "tools" / tool, fresh], check=True, timeout=60)
    stale = (ROOT / "docs" / page).read_text("utf-8") != fresh.read_text("utf-8")
    assert not stale, f"docs/{page} is stale: python tools/{tool} writes it anew"


def test_each_kind_of_sender_has_a_section() -> None:
    sections = (ROOT / "docs" / "sources.md").read_text("utf-8").split("\n### ")[1:]
    urls = {found[1] for each in sections if (found := re.search(r"`https://your.host/hooks/([a-z0-9-]+)`", each))}
    assert urls == set(PRESETS)
    for preset in PRESETS.values():
        section = next(each for each in sections if each.startswith(f"{preset.title}\n"))
        assert ("*Unverified*" in section) == (not preset.verified)
        assert all(text.replace("|", "\\|") in section for text in (preset.secrets, preset.enter, preset.docs))
        assert f"[sources.{preset.name}]" in section


def files(page: str) -> dict[str, str]:
    """The files that a page of docs/ shows: blocks that begin with their name in a comment."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return dict(re.findall(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    ("page", "tests", "passed"),
    [("handlers.md", ["test_handlers.py"], 3), ("tasks.md", ["test_handlers.py", "test_tasks.py"], 4)],
)
def test_the_examples_of_a_page_pass_their_own_tests(page: str, tests: list[str], passed: int, tmp_path: Path) -> None:
    for file, code in files(page).items():
        (tmp_path / file).write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    done = subprocess.run([*command, *tests], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout


@pytest.mark.parametrize(
    ("event", "came"), [("push", ("done", "2 commits")), ("ping", ("dropped", ""))], ids=["push", "another"]
)
def test_the_first_handler_of_the_readme_does_what_it_says(event: str, came: tuple[str, str]) -> None:
    (code,) = re.findall(
        r"^```python\n(from glassq import Bury, Delivery, Drop\n.*?)^```", README, re.MULTILINE | re.DOTALL
    )
    module = ModuleType("handlers")
    exec(code, module.__dict__)
    worked = work(module.handle, b'{"commits": [1, 2]}', source="github", labels={"event": event})
    assert (worked.state, worked.result or "") == came


def paths(text: str) -> list[str]:
    """The words of a text that have a slash or a file's suffix; what begins with a slash is a URL's."""
    return [word for word in _WORD.findall(text) if "/" in word or word.endswith(_FILE)]


def missing_paths(text: str) -> list[str]:
    """Paths in a text that are neither in the tree nor under glassq/."""
    return [path for path in paths(text) if not any((top / path).exists() for top in (ROOT, ROOT / "glassq"))]


def in_backticks(page: str) -> str:
    return "\n".join(re.findall(r"`([^`\n]+)`", page))


def test_architecture_fits_on_one_page_and_names_only_what_is_there() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert len(page.splitlines()) <= MAX_LINES
    assert missing_paths(in_backticks(page)) == []


def test_every_room_stands_on_the_map() -> None:
    rooms = {f"{path.parent.name}/" for path in (ROOT / "glassq").glob("*/__init__.py")}
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("## Rooms")[2].partition("## ")[0]
    assert "worker/" in rooms
    assert rooms - set(paths(in_backticks(page))) == set()


def texts(picture: ET.Element) -> str:
    return "\n".join("".join(text.itertext()) for text in picture.iter(f"{_SVG}text")).replace("\xa0", " ")


@pytest.mark.parametrize("file", sorted((ROOT / "docs").glob("*.svg")), ids=lambda file: file.name)
def test_a_picture_needs_nothing_of_elsewhere_and_shows_nothing_of_this_machine(file: Path) -> None:
    data = file.read_bytes()
    picture = ET.fromstring(data)
    assert picture.tag == f"{_SVG}svg"
    assert len(data) < MAX_RECORDED
    # GitHub shows it as an image: nothing may come from elsewhere
    assert {element.tag for element in picture.iter()}.isdisjoint({f"{_SVG}script", f"{_SVG}image"})
    assert re.search(rb"href=|@import|url\((?!#)", data) is None
    assert re.search(rb"/(tmp|home|root|work|usr)/", data) is None
    assert re.search(rb"code=\w", data) is None
    pages = "".join(page.read_text("utf-8") for page in PAGES if page.suffix == ".md")
    assert f"{file.name})" in pages


@pytest.mark.parametrize("name", ["architecture.svg", "ping.svg"])
def test_a_drawn_picture_is_small_and_says_what_it_shows(name: str) -> None:
    data = (ROOT / "docs" / name).read_bytes()
    assert len(data) < MAX_PICTURE
    assert all(ET.fromstring(data).findtext(f"{_SVG}{part}") for part in ("title", "desc"))


def test_pictures_of_the_console_are_small_and_stand_in_its_document() -> None:
    pictures = sorted((ROOT / "docs" / "console").glob("*.png"))
    text = (ROOT / "docs" / "console.md").read_text("utf-8")
    assert len(pictures) >= 8
    for file in pictures:
        assert f"console/{file.name}" in text, file.name
        assert file.stat().st_size < 80_000, file.name


def test_the_picture_of_the_architecture_names_only_what_is_there() -> None:
    found = texts(ET.fromstring(PICTURE.read_bytes()))
    assert "worker/consumer.py" in paths(found)
    assert missing_paths(found) == []


def test_the_recorded_terminals_show_what_their_commands_say() -> None:
    names = ("demo.svg", "buried.svg", "github.svg")
    demo, buried, github = (texts(ET.parse(ROOT / "docs" / name).getroot()) for name in names)
    assert "acknowledged, and without an outcome" in demo
    # README says the same of it in words
    said = re.search(r"in a terminal: (\d+) pings sent, (\d+) photos", (ROOT / "README.md").read_text("utf-8"))
    assert said is not None
    assert re.search(rf"sent\s+{said[1]}\b", demo) and re.search(rf"stored\s+{said[2]}\b", demo)
    for words in ("glassq buried", "has revoked the consent", "would be kicked", "wrong signature"):
        assert words in buried
    for words in ("glassq dev", "1 commits", "refused with 401", "buried: no board for this repository", "kicked"):
        assert words in github


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("worker/nobody.py, worker/consumer.py", ["worker/nobody.py"]),
        ("nobody.py", ["nobody.py"]),
        ("nowhere/", ["nowhere/"]),
        ("conf/gunicorn.conf.pi", ["conf/gunicorn.conf.pi"]),
        ("queues/beanstalk/nothing", ["queues/beanstalk/nothing"]),
        ("POST /hooks/NAME", []),
        ("Settings.lease", []),
        ("glassq/errors.py errors.py docs/", []),
    ],
)
def test_a_path_that_is_not_there_is_found(text: str, missing: list[str]) -> None:
    assert missing_paths(text) == missing
